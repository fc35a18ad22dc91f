"""What the documents say is true: excerpts are in the files they name, trees list what is there, links resolve."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("annotate", "builders", "dataset_card", "train")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / ".github").glob("*.md"), *(d for f in FOLDERS for d in (ROOT / f).rglob("*.md"))]
)
FENCE = re.compile(r"^```(\S*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)  # language, what follows it, content
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)|<(?:img|source)[^>]*\ssrc(?:set)?=\"([^\"]+)\"")


def excerpts() -> list[tuple[str, str, str]]:
    """Every fenced block whose first line names a file: document, file, text."""
    return [
        (str(document.relative_to(ROOT)), path.strip(), text)
        for document in DOCUMENTS
        for _, path, text in FENCE.findall(document.read_text(encoding="utf-8"))
        if path.strip()
    ]


def test_there_are_excerpts():
    assert len([document for document, _, _ in excerpts() if document == ".github/CONTRIBUTING.md"]) >= 5


@pytest.mark.parametrize(("document", "path", "text"), excerpts(), ids=lambda value: value.splitlines()[0][:40])
def test_an_excerpt_is_in_the_file_that_it_names(document: str, path: str, text: str):
    content = (ROOT / path).read_text(encoding="utf-8")
    indented = [textwrap.indent(text, " " * width) for width in (0, 4, 8)]
    assert any(candidate in content for candidate in indented), f"{document}: {path} no longer holds this block"


def test_what_the_tree_in_the_readme_lists_is_there():
    blocks = [text for _, _, text in FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8"))]
    trees = [text for text in blocks if re.search(r"^annotate/", text, re.MULTILINE)]
    assert len(trees) == 1, "README.md holds the tree of the repository once"
    listed = tree_paths(trees[0])
    assert [path for path in listed if not (ROOT / path).exists()] == []
    assert [folder for folder in FOLDERS if f"{folder}/" not in listed] == []


def tree_paths(tree: str) -> list[str]:
    """The paths in a tree: on each line the first word, under the less indented folder above it, and any further word
    that ends in `/` and stands two blanks apart."""
    paths: list[str] = []
    above: list[tuple[int, str]] = []  # (indentation, folder)
    for line in tree.splitlines():
        bare = re.sub(r"[│├└─]", " ", line)
        columns = re.split(r"\s{2,}", bare.strip())
        if not columns[0]:
            continue
        indentation = len(bare) - len(bare.lstrip())
        above = [(width, folder) for width, folder in above if width < indentation]
        parent = above[-1][1] if above else ""
        names = [columns[0], *(column for column in columns[1:] if re.fullmatch(r"[\w./-]+/", column))]
        paths += [parent + name for name in names]
        if columns[0].endswith("/"):
            above.append((indentation, parent + columns[0]))
    return paths


def test_a_tree_is_read_with_its_nesting():
    tree = "annotate/   ASK   images\n  engines/  one file each\n    vllm.py\ntests/  .ci/  Makefile\n└── a.py\n"
    assert tree_paths(tree) == [
        "annotate/",
        "annotate/engines/",
        "annotate/engines/vllm.py",
        "tests/",
        ".ci/",
        "tests/a.py",
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(document: Path):
    text = re.sub(FENCE, "", document.read_text(encoding="utf-8"))
    targets = [markdown or html for markdown, html in LINK.findall(text)]
    relative = [target for target in targets if not re.match(r"[a-z]+:|\{", target)]
    assert [target for target in relative if not (document.parent / target).exists()] == []
