import re
from collections import Counter
from dataclasses import replace

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from builders.build import BuildConfig, build
from builders.dataset_folder import read_checksums
from builders.files import sha256_of
from dataset_card.card import render_card, write_card
from dataset_card.metadata import CardLicense, size_category

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(params=[False, True], ids=["text only", "with images"])
def dataset(request, photographs, make_run, tmp_path):
    out = tmp_path / "dataset"
    runs = (make_run(), make_run("other", text=lambda row: f"{len(row.path) * 'word '}"))
    build(BuildConfig(images=photographs, runs=runs, out=out, with_images=request.param), finish=write_card)
    return out


def tables(text):
    """Every Markdown table as its rows of cells."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()] for block in blocks]


def table_after(text, heading):
    rows = tables(text[text.index(heading) :])[0]
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


def test_the_numbers_are_those_of_the_rows(dataset):
    text = (dataset / "README.md").read_text()
    loaded = datasets.load_dataset(str(dataset), "other")
    rows = [row for split in loaded.values() for row in split.remove_columns("path")]
    labels = table_after(text, "### Classes")
    for number, name in enumerate(loaded["train"].features["label"].names):
        if name in ("papule", "plaque"):
            per_split = [str(sum(row["label"] == number for row in split)) for split in loaded.values()]
            assert labels[name][:2] == per_split
    splits = table_after(text, "### Splits")
    for column, position in (("split_official", 1), ("split_clean", 2)):
        counts = Counter(row[column] for row in rows)
        assert {name: int(cells[position]) for name, cells in splits.items() if cells[position] != "0"} == counts
    lengths = sorted(len(row["description"].split()) for row in rows)
    words = table_after(text, "### other")  # the facts; the next table has the lengths
    assert words["Model"] == ["example/other"]
    found = tables(text[text.index("### other") :])[1][2]
    assert [found[1].strip(), found[5].strip()] == [str(lengths[0]), str(lengths[-1])]
    flagged = sum("truncated" in row["flags"] for row in rows)
    assert f"| truncated | {flagged} | {100 * flagged / 26:.1f} |" in text
    assert "| refused | 1 |" in text


def test_every_set_tells_where_it_comes_from(dataset):
    text = (dataset / "README.md").read_text()
    for name in ("tiny-doctor", "other"):
        section = text[text.index(f"### {name}") :]
        assert "0123456789abcdef0123456789abcdef01234567" in section
        assert "574973acaaf6be54b6a8aef7eae1b9779c9f9e6b38b0fb5fdc4e14b00b1b2c75" in section
        assert f"```bash\nvl-dermnet annotate photographs --out run-{name} --engine scripted\n```" in section
        assert "````text\nYou are a dermatologist.\n```\nDescribe {what} you see --- briefly.\n```\n````" in section


def test_a_nasty_label_breaks_no_table_and_styles_nothing(dataset):
    text = (dataset / "README.md").read_text()
    body = text.split("---\n", 2)[2]
    assert "<script" not in body
    assert "\u202e" not in body
    for table in tables(body):
        assert len({len(row) for row in table}) == 1
    label = next(name for name in table_after(text, "### Classes") if name.startswith("a\\|b"))
    assert label == 'a\\|b &lt;script&gt;"x" \\`c\\` \\\\u202egnol\\\\u202c שלום'


def test_the_card_warns(dataset):
    text = (dataset / "README.md").read_text()
    for words in (
        "reviewed by no clinician",
        "Not for diagnosis, triage, treatment or any clinical use",
        "voice is style",
        "findings that are not there",
        "Skin tones",
        "leak",
        "The photographs belong to their owners",
        "has not chosen a licence",
    ):
        assert words in text
    assert "[More Information Needed]" not in text


def test_the_card_says_nothing_of_this_machine(dataset):
    text = (dataset / "README.md").read_text()
    assert str(dataset.parent) not in text
    assert render_card(dataset) == text  # and is the same wherever and whenever it is rendered


def test_a_chosen_licence_stands_in_the_header_and_in_the_text(dataset):
    write_card(dataset, pretty_name="Words: | <b>", card_license=CardLicense("cc-by-4.0", None))
    text = (dataset / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "cc-by-4.0"
    assert "license_name" not in header
    assert header["pretty_name"] == "Words: | <b>"
    assert "\n# Words: \\| &lt;b&gt;\n" in text
    assert "The licence named in this card's header covers the descriptions." in text
    assert read_checksums(dataset)["README.md"] == sha256_of(dataset / "README.md")
    assert set(read_checksums(dataset)) == {
        path.relative_to(dataset).as_posix()
        for path in dataset.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }


def test_a_set_without_flags_or_losses_says_so(photographs, make_run, tmp_path):
    (photographs / "train/plaque/broken.jpg").unlink()
    run = make_run(change=lambda each: replace(each, flags=()))
    build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / "out"), finish=write_card)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "No description carries a flag." in text
    assert "No photograph was left out." in text


@pytest.mark.parametrize(
    ("n_rows", "category"), [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (19_559, "10K<n<100K"), (10**7, "n>10M")]
)
def test_size_categories_are_the_hubs(n_rows, category):
    assert size_category(n_rows) == category
