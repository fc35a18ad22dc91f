import contextlib
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from builders.build import BuildConfig, build
from builders.dataset_folder import read_checksums
from builders.errors import UserError
from builders.files import read_json, sha256_of, write_json
from dataset_card.card import render_card, write_card
from dataset_card.choices import CARD_VERSION, CardChoices, CardLicense, mark_of, read_choices, read_mark
from dataset_card.columns import COLUMNS, FLAGS
from dataset_card.facts import gather
from dataset_card.metadata import size_category
from dataset_card.set_section import regenerate_command

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Where the datasets are kept that the tests of this module copy: building one takes longer than most tests."""
    return tmp_path_factory.mktemp("built")


@pytest.fixture(params=[False, True], ids=["text only", "with images"])
def dataset(request, built, photographs, make_run, tmp_path):
    kept = built / str(request.param)
    if not kept.exists():
        runs = (make_run(), make_run("other", text=lambda row: f"{len(row.path) * 'word '}"))
        build(BuildConfig(images=photographs, runs=runs, out=kept, with_images=request.param), finish=write_card)
    return Path(shutil.copytree(kept, tmp_path / "dataset"))


def body(dataset):
    return (dataset / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]


def tables(text):
    """Every Markdown table as its rows of cells."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()] for block in blocks]


def table_after(text, heading, number=0):
    rows = tables(text[text.index(heading) :])[number]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows[2:]}


def test_the_yaml_says_what_the_shards_say(dataset):
    metadata = DatasetCard.load(dataset / "README.md").data.to_dict()
    assert [each["config_name"] for each in metadata["configs"]] == ["tiny-doctor", "other"]
    assert [each.get("default", False) for each in metadata["configs"]] == [True, False]
    for facts in metadata["dataset_info"]:
        name = facts["config_name"]
        told = datasets.Features._from_yaml_list(facts["features"])
        for split in facts["splits"]:
            shards = sorted((dataset / name).glob(f"{split['name']}-*.parquet"))
            assert told == datasets.Features.from_arrow_schema(pq.read_schema(shards[0]))
            assert split["num_examples"] == sum(pq.read_metadata(shard).num_rows for shard in shards)
        assert facts["download_size"] == sum(path.stat().st_size for path in (dataset / name).iterdir())
        assert facts["dataset_size"] == sum(split["num_bytes"] for split in facts["splits"])


def test_the_yaml_has_every_key_that_the_hub_describes(dataset):
    metadata = DatasetCard.load(dataset / "README.md").data.to_dict()
    assert metadata["annotations_creators"] == metadata["language_creators"] == ["machine-generated"]
    assert metadata["language"] == ["en"]
    assert metadata["source_datasets"] == ["extended|other"]
    assert metadata["size_categories"] == ["n<1K"]
    assert {"license", "task_categories", "task_ids", "tags", "pretty_name", "multilinguality"} <= metadata.keys()
    assert {"extra_gated_heading", "extra_gated_prompt", "extra_gated_fields"} <= metadata.keys()
    assert set(metadata["extra_gated_fields"].values()) == {"checkbox"}


def test_every_set_loads_through_the_card(dataset):
    metadata = DatasetCard.load(dataset / "README.md").data.to_dict()
    for facts in metadata["dataset_info"]:
        loaded = datasets.load_dataset(str(dataset), facts["config_name"])
        assert {name: split.num_rows for name, split in loaded.items()} == {
            split["name"]: split["num_examples"] for split in facts["splits"]
        }
        shard = next((dataset / facts["config_name"]).iterdir())
        assert loaded["train"].features == datasets.Features.from_arrow_schema(pq.read_schema(shard))
    assert ("image" in datasets.load_dataset(str(dataset))["test"].features) == (
        datasets.load_dataset(str(dataset), "tiny-doctor")["test"].features.get("image") is not None
    )


def test_what_the_card_says_how_to_load_runs(dataset, photographs):
    write_card(dataset, CardChoices(repo_id="me/set"))
    blocks = re.findall(r"```python\n(.*?)```", body(dataset), flags=re.DOTALL)
    assert len(blocks) >= 3
    said = io.StringIO()
    for block in blocks:
        here = block.replace('"me/set"', repr(str(dataset))).replace('"path/to/photographs"', repr(str(photographs)))
        assert str(dataset) in here
        names = {}
        with contextlib.redirect_stdout(said):
            exec(here, names)
        if "test" in names:
            assert set(names["test"]["split_clean"]) == {"test"}
        if "builders" in block:
            assert names["dataset"]["test"][0]["image"].size == (24, 16)
    assert said.getvalue().strip()  # the description that streaming printed


def test_it_has_the_sections_of_the_hubs_template_in_their_order(dataset):
    template = Path(huggingface_hub.__file__).parent / "templates" / "datasetcard_template.md"
    wanted = re.findall(r"^(#{2,4}) (.*?)(?: \[optional\])?$", template.read_text(), flags=re.MULTILINE)
    ours = re.findall(r"^(#{2,4}) (.*)$", body(dataset), flags=re.MULTILINE)
    assert len(wanted) > 20
    assert [heading for heading in ours if heading in wanted] == wanted


def test_the_numbers_are_those_of_the_rows(dataset):
    text = body(dataset)
    loaded = datasets.load_dataset(str(dataset), "other")
    rows = [row for split in loaded.values() for row in split.remove_columns("path")]
    labels = table_after(text, "### Classes")
    for number, name in enumerate(loaded["train"].features["label"].names):
        if name in ("papule", "plaque"):
            of_label = [row for row in rows if row["label"] == number]
            per_split = [str(sum(row["label"] == number for row in split)) for split in loaded.values()]
            clean = Counter(row["split_clean"] for row in of_label)
            assert labels[name][:2] == per_split
            assert labels[name][4:] == [str(clean[split]) for split in ("train", "validation", "test")]
    splits = table_after(text, "### Splits")
    for column, position in (("split_official", 1), ("split_clean", 2)):
        counts = Counter(row[column] for row in rows)
        assert {name: int(cells[position]) for name, cells in splits.items() if cells[position] != "0"} == counts
    section = text[text.index("##### other") :]
    assert table_after(section, "##### other")["Model"] == ["example/other"]
    lengths = sorted(len(row["description"].split()) for row in rows)
    words = table_after(section, "| Per description")["Words"]
    assert [words[0], words[1], words[4]] == [
        str(lengths[0]),
        f"{(lengths[12] + lengths[13]) / 2:.1f}",
        str(lengths[-1]),
    ]
    flagged = sum("truncated" in row["flags"] for row in rows)
    assert table_after(section, "| Flag")["truncated"] == [
        FLAGS["truncated"],
        str(flagged),
        f"{100 * flagged / 26:.1f}",
    ]
    assert table_after(section, "| Left out") == {"refused": ["1"]}
    distinct = len({row["description"] for row in rows})
    assert f"26 descriptions, {distinct} of them different." in section
    assert table_after(section, "Words by class")["papule"] == ["word 100 %", ""]


def test_every_set_tells_where_it_comes_from(dataset):
    for name in ("tiny-doctor", "other"):
        section = body(dataset).split(f"##### {name}")[1]
        commit = "0123456789abcdef0123456789abcdef01234567"
        assert commit in section
        assert "574973acaaf6be54b6a8aef7eae1b9779c9f9e6b38b0fb5fdc4e14b00b1b2c75" in section
        command = f"vl-dermnet annotate photographs --out run-{name} --engine scripted --revision {commit}"
        assert f"```bash\n{command}\n```" in section
        assert "````text\nYou are a dermatologist.\n```\nDescribe {what} you see --- briefly.\n```\n````" in section
        assert "the prompt names no class" in section
    with_images = " --with-images" if (dataset / "README.md").read_text().count("dtype: image\n") else ""
    assert (
        "```bash\nvl-dermnet build IMAGES --run runs/tiny-doctor --run runs/other --out DATASET --seed 0"
        f" --primary tiny-doctor{with_images}\n```" in body(dataset)
    )


@pytest.mark.parametrize("said", ["", " --revision main", " --revision=refs/pr/3"])
def test_a_branch_that_was_asked_for_is_printed_as_the_commit_that_it_was(said):
    commit = "0123456789abcdef0123456789abcdef01234567"
    run = {
        "command": f"vl-dermnet annotate photos{said} --model a/b --out run",
        "model": {"id": "a/b", "revision": commit},
    }
    assert regenerate_command(run) == f"vl-dermnet annotate photos --model a/b --out run --revision {commit}"


def test_a_prompt_that_names_a_class_is_told(photographs, make_run, tmp_path):
    run = make_run()
    facts = read_json(run / "run.json")
    facts["prompt"]["text"] = "Is it a papule, a PLAQUE or something else?"
    write_json(run / "run.json", facts)
    build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / "out"), finish=write_card)
    assert "the prompt itself names these classes: papule, plaque:" in body(tmp_path / "out")


def test_what_a_run_took_is_told_and_what_an_old_run_does_not_say_is_left_out(photographs, make_run, tmp_path):
    old, new = make_run("old"), make_run("new")
    summary = {
        "wall_s": 5400.0,
        "images_per_s": 3.25,
        "output_tokens_per_s": 812.5,
        "engine_busy": 0.934,
        "gpu_hours": 1.5083,
        "n_retried": 12,
        "n_mended": 0,
        "n_sessions": 2,
        "n_restarts": 1,
    }
    write_json(new / "summary.json", summary)
    build(BuildConfig(images=photographs, runs=(old, new), out=tmp_path / "out"), finish=write_card)
    took = table_after(body(tmp_path / "out").split("##### new")[1], "| The run took")
    assert took == {
        "GPU hours": ["1.5"],
        "Hours of describing": ["1.5"],
        "Images per second": ["3.2"],
        "Output tokens per second": ["812.5"],
        "Engines busy, %": ["93.4"],
        "Answers asked for again": ["12"],
        "Texts that lost their flag so": ["0"],
        "Sessions": ["2"],
        "Engines started again": ["1"],
        "Machine": ["cores 2"],
    }
    old_section = body(tmp_path / "out").split("##### old")[1].split("##### new")[0]
    assert table_after(old_section, "| The run took") == {"Images per second": ["12.5"], "Machine": ["cores 2"]}


def test_a_nasty_label_breaks_no_table_and_styles_nothing(dataset):
    text = body(dataset)
    assert "<script" not in text
    assert "\u202e" not in text
    for table in tables(text):
        assert len({len(row) for row in table}) == 1
    label = next(name for name in table_after(text, "### Classes") if name.startswith("a\\|b"))
    assert label == 'a\\|b &lt;script&gt;"x" \\`c\\` \\\\u202egnol\\\\u202c שלום'


def test_the_card_warns(dataset):
    for words in (
        "reviewed by no clinician",
        "Not for diagnosis, triage, treatment or any clinical use",
        "voice is style",
        "findings that are not there",
        "Skin tones",
        "leak",
        "consent",
        "photographs belong to their owners",
        "has not chosen a licence",
        "has not said which, whose, and on which terms",
        "Watermarks",
        "Near-copies",
        "To have a row removed, open a discussion",
        "1; report split\\_clean beside split\\_official",
    ):
        assert words in body(dataset)
    assert "[More Information Needed]" not in body(dataset)


def test_the_card_says_nothing_of_this_machine_and_is_the_same_each_time(dataset):
    text = (dataset / "README.md").read_text()
    assert str(dataset.parent) not in text
    assert render_card(gather(dataset, CardChoices())) == text


def test_the_text_of_the_card_is_the_golden_one(dataset, golden):
    # Where this changes on purpose, raise CARD_VERSION: `check` compares the text only with a card of its own version.
    with_images = "dtype: image\n" in (dataset / "README.md").read_text()
    golden(f"dataset_card{'_with_images' if with_images else ''}.md", body(dataset))


def test_every_column_that_a_build_can_write_has_its_meaning(dataset):
    for facts in DatasetCard.load(dataset / "README.md").data.to_dict()["dataset_info"]:
        assert {each["name"] for each in facts["features"]} <= COLUMNS.keys()
    columns = table_after(body(dataset), "## Dataset Structure")
    assert list(columns)[-1] == "`in_balanced_subset`"
    if "`image`" in columns:
        assert columns["`image`"] == ["the photograph, in its original bytes (in tiny-doctor)"]


def test_every_flag_of_annotate_has_its_meaning():
    from annotate.describe import NO_FINDINGS
    from annotate.flags import FLAGS as RULES

    assert FLAGS.keys() == RULES.keys() | {NO_FINDINGS}


def test_choices_stand_in_the_header_and_in_the_text_and_are_kept(dataset):
    choices = CardChoices(
        pretty_name="Words: | <b> --> ---",
        license=CardLicense(license="cc-by-4.0", name=None),
        source="Photographs of the <i>clinic</i>, CC BY 4.0.",
        repo_id="me/set",
        contact="removal@example.org",
    )
    write_card(dataset, choices)
    text = (dataset / "README.md").read_text()
    header = yaml.safe_load(text.split("\n---\n")[0])
    assert header["license"] == "cc-by-4.0"
    assert "license_name" not in header
    assert header["pretty_name"] == "Words: | <b> --> ---"
    assert "\n# Words: \\| &lt;b&gt; --&gt; ---\n" in text
    assert "**License:** cc-by-4.0, for the descriptions only" in text
    assert "Photographs of the &lt;i&gt;clinic&lt;/i&gt;, CC BY 4.0." in text
    assert 'load_dataset("me/set")' in text
    assert "OWNER/NAME" not in text
    assert "write to removal\\@example.org, or open a discussion" in text
    assert read_choices(dataset) == choices
    write_card(dataset)
    assert (dataset / "README.md").read_text() == text
    for path, digest in read_checksums(dataset).items():
        assert sha256_of(dataset / path) == digest
    assert set(read_checksums(dataset)) == {
        path.relative_to(dataset).as_posix()
        for path in dataset.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }


def test_the_mark_of_a_card_is_one_comment_whatever_it_holds():
    choices = CardChoices(pretty_name="--> <script>", source="a\n\u2028--!>", contact="שלום")
    mark = mark_of(choices)
    assert mark.count("-->") == mark.count("<") == 1
    assert len(mark.splitlines()) == 1
    assert read_mark(f"card\n{mark}") == (CARD_VERSION, choices)
    assert read_mark("a card\n") is None
    assert read_mark(mark.replace("contact", "else")) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repo_id": "set"}, "'set' is no repository on the Hub\n  fix: --repo OWNER/NAME"),
        (
            {"license": CardLicense(license="CC BY 4.0")},
            "'CC BY 4.0' is no licence of the Hub: it is written like cc-by-4.0\n  fix: --license cc-by-4.0",
        ),
    ],
)
def test_choices_that_the_hub_would_not_take_are_refused(options, message):
    with pytest.raises(UserError) as error:
        CardChoices(**options)
    assert str(error.value) == message


def test_dermnets_classes_are_told_with_what_is_known_of_their_licence(photographs, make_run, tmp_path):
    from builders.dermnet import CLASSES

    for split in ("train", "test"):
        for folder in list((photographs / split).iterdir()):
            for number, name in enumerate(CLASSES):
                (photographs / split / name).mkdir(exist_ok=True)
                (photographs / split / name / f"{split}-{number}.jpg").write_bytes(
                    next(folder.glob("*-0.jpg")).read_bytes() + split.encode() + bytes([number])
                )
    build(BuildConfig(images=photographs, runs=(make_run(),), out=tmp_path / "out"), finish=write_card)
    assert "The classes are those of DermNet as Kaggle holds it. Its photographs are copyrighted" in body(
        tmp_path / "out"
    )


def test_a_set_without_flags_or_losses_says_so(photographs, make_run, tmp_path):
    (photographs / "train/plaque/broken.jpg").unlink()
    run = make_run(change=lambda each: replace(each, flags=()))
    build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / "out"), finish=write_card)
    assert "No description carries a flag." in body(tmp_path / "out")
    assert "No photograph was left out." in body(tmp_path / "out")


def test_findings_are_shown_by_their_most_frequent_values(photographs, make_run, tmp_path):
    def find(each):
        return replace(each, findings=json.dumps({"site": "arm", "colour": ["red", "pink"]}))

    run = make_run(change=find)
    schema = {"name": "derm", "sha256": "0" * 64, "prompt": "Which ```site```?", "json_schema": {"type": "object"}}
    write_json(run / "run.json", {**read_json(run / "run.json"), "schema": schema})
    build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / "out"), finish=write_card)
    assert "asked for on their own, with the photograph:\n\n````text\nWhich ```site```?\n````\n" in body(
        tmp_path / "out"
    )
    assert 'JSON of this schema:\n\n```json\n{\n  "type": "object"\n}\n```\n' in body(tmp_path / "out")
    found = table_after(body(tmp_path / "out"), "Findings, in the words of the schema `derm`")
    assert found == {"site": ["arm (100 %)", "1"], "colour": ["pink (100 %), red (100 %)", "2"]}


@pytest.mark.parametrize(
    ("n_rows", "category"), [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (19_559, "10K<n<100K"), (10**7, "n>10M")]
)
def test_size_categories_are_the_hubs(n_rows, category):
    assert size_category(n_rows) == category
