import hashlib
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotate.schemas import load_schema
from builders.build import BuildConfig, build
from builders.check import check_dataset
from builders.check.files import check_files
from builders.check.findings import misfit
from builders.dataset_folder import write_checksums
from builders.errors import UserError
from builders.files import read_json, write_json
from builders.shards import write_shards
from dataset_card.card import write_card
from dataset_card.check_card import check_card

pytestmark = pytest.mark.usefixtures("private_cache")
DERM = json.loads((Path(__file__).parents[1] / "annotate/schemas/derm.json").read_text())
FINDINGS = {
    "lesion_type": ["papule"],
    "colour": ["red"],
    "border": "well defined",
    "surface": ["smooth"],
    "distribution": "single",
    "site": "arm",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Datasets that a test of this module has built already: building one takes longer than most checks."""
    return tmp_path_factory.mktemp("built"), {}


@pytest.fixture
def make(built, photographs, make_run, tmp_path):
    """A function that gives a fresh copy of a dataset of two sets in several shards, with its card or without."""
    root, known = built

    def make_it(with_images=False, shard_bytes=6_000, with_card=False):
        options = (with_images, shard_bytes, with_card)
        if options not in known:
            runs = [make_run(), make_run("other", text=lambda row: f"{len(row.path) * 'word '}")]
            known[options] = root / str(len(known))
            config = BuildConfig(
                images=photographs, runs=runs, out=known[options], with_images=with_images, shard_bytes=shard_bytes
            )
            build(config, **({"finish": write_card} if with_card else {}))
        shutil.rmtree(tmp_path / "dataset", ignore_errors=True)
        return Path(shutil.copytree(known[options], tmp_path / "dataset"))

    return make_it


def faults(folder, images=None, with_card=False):
    return check_dataset(folder, images, check_card if with_card else None).faults


def found(folder, contract, *words, images=None):
    """The faults of one contract in whose text all the words stand."""
    every = [each for each in faults(folder, images, contract == "card") if each.contract == contract]
    return [
        each
        for each in every
        if all(word in f"{each.file}, {each.place}: {each.seen} / {each.allowed}" for word in words)
    ]


def shards_of(folder, set_name="tiny-doctor", split="train"):
    return sorted((folder / set_name).glob(f"{split}-*.parquet"))


def change_rows(folder, change, set_name="tiny-doctor"):
    """Write all shards of a set again, from rows that went through `change`, which gets and gives {split: rows}."""
    schema = pq.read_schema(shards_of(folder, set_name)[0])
    features = datasets.Features.from_arrow_schema(schema).to_dict()
    rows: dict[str, list[dict[str, Any]]] = {
        split: [row for shard in shards_of(folder, set_name, split) for row in pq.read_table(shard).to_pylist()]
        for split in ("train", "test")
    }
    shutil.rmtree(folder / set_name)
    (folder / set_name).mkdir()
    for split, changed in change(rows).items():
        write_shards(folder / set_name, split, changed, features, 10**9)
    write_checksums(folder)


def change_shard(shard, change):
    """Write one shard again, from a table that went through `change`, with all that a shard of ours has."""
    table = change(pq.read_table(shard))
    features = datasets.Features.from_arrow_schema(table.schema).to_dict()
    split = shard.name.partition("-")[0]
    write_shards(shard.parent, f"{split}x", table.to_pylist(), features, 10**9)
    next(shard.parent.glob(f"{split}x-*")).replace(shard)
    write_checksums(shard.parents[1])


def change_json(file, change):
    value = read_json(file)
    change(value)
    write_json(file, value)
    write_checksums(file.parents[1] if file.parent.name == "provenance" else file.parent)


def change_text(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    write_checksums(file.parent)


@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("shard_bytes", [2_000, 10**9])
def test_what_build_writes_is_sound(make, photographs, with_images, shard_bytes):
    folder = make(with_images, shard_bytes, with_card=True)
    report = check_dataset(folder, photographs, check_card)
    assert report.faults == []
    assert report.not_checked == []
    assert (report.n_sets, report.n_rows) == (2, 52)


def test_a_folder_of_something_else_is_no_dataset(tmp_path):
    with pytest.raises(UserError) as error:
        check_dataset(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is not a dataset folder: it holds no provenance/\n"
        f"  fix: vl-dermnet build IMAGES --run RUN --out '{tmp_path}'"
    )


@pytest.mark.parametrize("with_images", [False, True])
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(make, with_images):
    folder, draw = make(with_images, with_card=True), random.Random(0)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(5))}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << draw.randrange(8)
            file.write_bytes(damaged)
            named = {each.file for each in check_files(folder)}
            # in the list of checksums itself it looks like a change of the file that the line is about
            assert named if file.name == "SHA256SUMS" else file.relative_to(folder).as_posix() in named, (file, place)
        file.write_bytes(whole)
    assert list(check_files(folder)) == []


@pytest.mark.parametrize("with_images", [False, True])
def test_a_flipped_bit_in_a_page_is_found_by_the_pages_own_checksum_too(make, with_images):
    folder = make(with_images)
    shard = shards_of(folder)[0]
    damaged = bytearray(shard.read_bytes())
    column = pq.read_metadata(shard).row_group(0).column(0)
    damaged[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    shard.write_bytes(damaged)
    write_checksums(folder)
    assert found(folder, "rows", shard.name, "row group 0", "CRC")


def test_no_damage_of_a_footer_ends_the_check(make):
    folder, draw = make(), random.Random(1)
    shard = shards_of(folder)[0]
    whole = shard.read_bytes()
    footer_bytes = int.from_bytes(whole[-8:-4], "little")
    for _ in range(30):
        damaged = bytearray(whole)
        damaged[len(whole) - 8 - draw.randrange(footer_bytes)] ^= 1 << draw.randrange(8)
        shard.write_bytes(damaged)
        assert shard.relative_to(folder).as_posix() in {each.file for each in faults(folder)}


def test_a_truncated_shard_is_named(make):
    folder = make()
    shard = shards_of(folder)[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    write_checksums(folder)
    assert [each.file for each in found(folder, "shards", "footer", "cannot be read")] == [f"tiny-doctor/{shard.name}"]


def test_missing_and_extra_files_are_named(make):
    folder = make()
    shards_of(folder)[0].unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / ".gitattributes").write_text("the Hub's")
    listed = {(each.file, each.seen) for each in check_files(folder)}
    assert listed == {
        ("tiny-doctor/train-00000-of-00002.parquet", "no such file"),
        ("notes.txt", "a file that the checksums do not list"),
    }
    assert found(folder, "shards", "tiny-doctor/train-*", "00001-of-00002", "00000 to 00001, each once")


def test_every_fault_is_listed_not_the_first_alone(make):
    folder = make()
    (folder / "notes.txt").write_text("mine")
    change_json(folder / "provenance/other.json", lambda each: each["build"].update(seed=7))
    change_shard(shards_of(folder, split="test")[0], lambda table: table.take(list(range(len(table) - 1, -1, -1))))
    (folder / "notes.txt").write_text("changed")
    contracts = {each.contract for each in faults(folder)}
    assert {"files", "provenance", "rows", "counts"} <= contracts


def test_two_shards_with_another_class_order_are_found(make):
    folder = make()
    first, second, *_ = shards_of(folder)

    def turn(table: pa.Table) -> pa.Table:
        features = datasets.Features.from_arrow_schema(table.schema)
        features["label"] = datasets.ClassLabel(names=features["label"].names[::-1])
        return table.cast(features.arrow_schema)

    change_shard(second, turn)
    (fault,) = found(folder, "shards", "class names")
    assert fault.file == f"tiny-doctor/{second.name}"
    assert fault.seen.startswith("['plaque', 'papule', ")
    assert fault.allowed.endswith(f"as in tiny-doctor/{first.name}")


def test_a_shard_with_other_metadata_or_columns_is_found(make):
    folder = make()
    _, second, *_ = shards_of(folder)
    table = pq.read_table(second)
    pq.write_table(table.replace_schema_metadata({"huggingface": "{"}), second)
    assert found(folder, "shards", second.name, "metadata", "cannot be read")
    pq.write_table(table.drop_columns(["flags"]), second)
    assert found(folder, "shards", second.name, "schema")
    pq.write_table(table, second)
    assert found(folder, "shards", second.name, "no page index")
    assert found(folder, "shards", second.name, "sorted by image_id")


def test_rows_out_of_order_or_twice_are_found(make):
    folder = make()
    change_rows(folder, lambda rows: {**rows, "test": [*rows["test"][1:], rows["test"][0]]})
    assert found(folder, "rows", "test-00000", "rows sorted by image_id")
    folder = make()
    change_rows(folder, lambda rows: {**rows, "test": [rows["test"][0], *rows["test"]]})
    assert found(folder, "groups", "2 rows", "one row per image_id")
    assert found(folder, "counts", "rows.n_rows", "27, as the shards hold")


def test_a_row_in_the_wrong_splits_file_is_found(make):
    folder = make()

    def move(rows):
        moved = rows["test"].pop()
        return {**rows, "train": sorted([*rows["train"], moved], key=lambda row: row["image_id"])}

    change_rows(folder, move)
    (fault,) = found(folder, "rows", "split_official")
    assert (fault.seen, fault.allowed) == ("'test'", "train or validation in a file of train")
    assert found(folder, "rows", ", path", "a path of split train", "this one says test")
    assert found(folder, "counts", "n_per_split")


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("image_id", "0" * 16, "the id of its path"),
        ("image_id", "short", "16 hex digits"),
        ("image_sha256", "F" * 64, "64 hex digits"),
        ("path", "../../etc/passwd", "a relative path below the photographs' folder"),
        ("label", 2, "the class folder in its path"),
        ("label", 9, "0 to 2, or nothing"),
        ("finish_reason", None, "a value in every row"),
        ("temperature", float("nan"), "0 or more"),
        ("n_output_tokens", -1, "0 or more"),
        ("flags", ["truncated", "empty"], "in order, each once"),
        ("flags", [None], "a value in every row"),
        ("split_official", "dev", "train, validation, test"),
        ("split_clean", "held-out", "train, validation, test, excluded"),
        ("split_clean", "test", "(its split_official) or excluded"),
    ],
)
def test_a_value_that_a_column_may_not_hold_is_found(make, column, value, allowed):
    folder = make()
    chosen = "train/papule/pap-4.jpg"

    def put(rows):
        train = [{**row, column: value} if row["path"] == chosen else row for row in rows["train"]]
        return {**rows, "train": train}

    change_rows(folder, put)
    assert found(folder, "rows", f", {column}", allowed)
    assert found(folder, "counts", "rows_sha256")


def test_a_changed_word_alone_breaks_the_hash_of_the_rows(make):
    folder = make()

    def put(rows):
        return {**rows, "train": [{**rows["train"][0], "description": "changed"}, *rows["train"][1:]]}

    change_rows(folder, put)
    (fault,) = found(folder, "counts")
    assert (fault.file, fault.place) == ("provenance/tiny-doctor.json", "build.rows_sha256")


def test_copies_that_are_kept_twice_or_stand_in_two_groups_are_found(make):
    folder = make()

    def keep(rows):
        return {
            split: [{**row, "split_clean": row["split_official"], "in_balanced_subset": False} for row in part]
            for split, part in rows.items()
        }

    change_rows(folder, keep)
    assert found(folder, "groups", "split_clean keeps one of the rows with the same image_sha256")
    assert found(folder, "groups", "one clean split for a group of copies")
    assert found(folder, "groups", "excluded, because the copies carry different labels")
    assert found(folder, "groups", "as in tiny-doctor")  # the other set says otherwise of the same photographs
    folder = make()
    change_rows(folder, lambda rows: {s: [{**row, "duplicate_group": ""} for row in part] for s, part in rows.items()})
    assert found(folder, "groups", "one duplicate_group for all rows of the same image_sha256")


def test_class_names_out_of_order_are_found(make):
    folder = make(shard_bytes=10**9, with_card=True)

    def rename(table: pa.Table) -> pa.Table:
        features = datasets.Features.from_arrow_schema(table.schema)
        features["label"] = datasets.ClassLabel(names=features["label"].names[::-1])
        return table.cast(features.arrow_schema)

    for split in ("train", "test"):
        change_shard(shards_of(folder, split=split)[0], rename)
    assert found(folder, "shards", "label", "class names in order, each once, none empty")
    assert found(folder, "rows", "the class folder in its path")
    assert found(folder, "card", "dataset_info[0].features[3].dtype.class_label.names.0")


@pytest.mark.parametrize(
    ("old", "new", "contract", "place"),
    [
        (
            "- config_name: other\n  data_files",
            "- config_name: another\n  data_files",
            "front matter",
            "configs[other]",
        ),
        ("  default: true\n", "", "front matter", "configs[tiny-doctor].default"),
        ("path: other/test-*", "path: other/train-*", "front matter", "configs[other].data_files[1].path"),
        ("  - name: flags\n    list: string", "  - name: flags\n    list: int64", "card", "features[11].list"),
        ("'1': papule", "'1': macule", "card", "class_label.names.1"),
        ("num_examples: 19", "num_examples: 20", "card", "dataset_info[0].splits[0].num_examples"),
        ("size_categories:\n- n<1K", "size_categories:\n- 1K<n<10K", "card", "size_categories[0]"),
        ("license: other", "license: mit", "card", "license"),
    ],
)
def test_yaml_that_disagrees_with_the_shards_is_found(make, old, new, contract, place):
    folder = make(with_card=True)
    change_text(folder / "README.md", old, new)
    assert [each for each in found(folder, contract) if place in each.place]


def test_a_readme_without_yaml_or_with_a_bomb_in_it_is_one_fault(make):
    folder = make()
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    for text, seen in (("no card", "no YAML between two lines of ---"), (f"---\n{bomb}---\n", "it holds an alias")):
        (folder / "README.md").write_text(text)
        (fault,) = found(folder, "front matter", seen)
        assert fault.file == "README.md"
    (folder / "README.md").unlink()
    assert found(folder, "front matter", "no such file")


def test_a_wrong_number_anywhere_in_the_card_is_found(make):
    folder = make(with_card=True)
    text = (folder / "README.md").read_text(encoding="utf-8")
    change_text(
        folder / "README.md",
        "| truncated | cut off at the limit of tokens | 6 |",
        "| truncated | cut off at the limit of tokens | 5 |",
    )
    (fault,) = faults(folder, with_card=True)
    assert fault.place == f"line {text[: text.index('| truncated |')].count(chr(10)) + 1}"
    assert fault.seen == "'| truncated | cut off at the limit of tokens | 5 | 23.1 |'"
    assert fault.allowed == "'| truncated | cut off at the limit of tokens | 6 | 23.1 |'"


@pytest.mark.parametrize(
    ("change", "contract", "words"),
    [
        (lambda each: each["build"]["rows"].update(n_rows=25), "counts", "build.rows.n_rows"),
        (lambda each: each["build"]["rows"]["n_left_out"].update(refused=2), "counts", "n_left_out"),
        (lambda each: each["build"].update(rows_sha256="0" * 64), "counts", "rows_sha256"),
        (lambda each: each["build"]["splits"].update(n_groups=4), "counts", "build.splits.n_groups"),
        (lambda each: each["build"]["splits"]["n_clean"].update(train=15), "provenance", "n_clean"),
        (lambda each: each["build"].update(seed="one"), "provenance", "build.seed"),
        (lambda each: each["build"].pop("splits"), "provenance", "build.splits"),
        (lambda each: each["build"].update(with_images=True), "shards", "column image"),
        (lambda each: each.update(is_primary=False), "provenance", "true in exactly one set"),
        (lambda each: each.update(set_name="x"), "provenance", "set_name"),
        (lambda each: each["run"].pop("model"), "provenance", "run.model"),
        (lambda each: each["run"].update(model="a model"), "provenance", "run.model: 'a model' / Input should be"),
        (lambda each: each.update(summary={"wall_s": "long"}), "provenance", "summary.wall_s"),
        (lambda each: each["run"]["prompt"].update(text="Say hello."), "provenance", "run.prompt.sha256"),
        (lambda each: each["run"].update(schema={"name": "derm"}), "shards", "column findings"),
        (lambda each: each.update(summary={"n_ok": 3}), "counts", "summary.n_ok"),
    ],
)
def test_provenance_that_does_not_match_is_found(make, change, contract, words):
    folder = make()
    change_json(folder / "provenance/tiny-doctor.json", change)
    assert found(folder, contract, words)


def test_provenance_that_is_no_json_is_found_and_the_other_set_is_still_checked(make):
    folder = make()
    (folder / "provenance/tiny-doctor.json").write_text("{")
    change_rows(folder, lambda rows: {**rows, "test": rows["test"][::-1]}, "other")
    assert found(folder, "provenance", "provenance/tiny-doctor.json")
    assert found(folder, "rows", "other/test-00000", "rows sorted by image_id")


def test_a_photograph_that_is_described_and_listed_as_left_out_is_found(make):
    folder = make()
    file = folder / "provenance/tiny-doctor.not-described.csv"
    row = pq.read_table(shards_of(folder)[0]).to_pylist()[0]
    file.write_text(file.read_text() + f"{row['image_id']},x,train,papule,failed,no\n")
    write_checksums(folder)
    assert found(folder, "counts", "a photograph that has a description")
    assert found(folder, "counts", "build.rows.n_left_out")


def test_an_embedded_photograph_with_other_bytes_is_found(make):
    folder = make(with_images=True)

    def swap(rows):
        first, second, *rest = rows["train"]
        image = {"bytes": second["image"]["bytes"], "path": first["path"]}
        return {
            **rows,
            "train": [{**first, "image": image}, {**second, "image": {**second["image"], "path": "x"}}, *rest],
        }

    change_rows(folder, swap)
    assert found(folder, "photographs", "bytes with sha256")
    assert found(folder, "photographs", "image.path", "'x'")


def test_a_local_photograph_that_changed_since_it_was_described_is_found(make, photographs):
    folder = make()
    assert "whether the photographs are still those that were described" in check_dataset(folder).not_checked[0]
    (photographs / "train/papule/pap-0.jpg").write_bytes(b"other")
    (photographs / "test/plaque/pla-0.jpg").unlink()
    changed = found(folder, "photographs", images=photographs)
    assert sorted(each.seen for each in changed) == [  # both sets hold the two; each file is read once
        f"'train/papule/pap-0.jpg' with sha256 {hashlib.sha256(b'other').hexdigest()}",
        "no readable 'test/plaque/pla-0.jpg'",
    ]
    zipped = shutil.make_archive(str(folder.parent / "zipped"), "zip", photographs)
    assert found(folder, "photographs", images=Path(zipped)) == changed


def test_a_path_that_leaves_the_photographs_folder_is_never_read(make, photographs):
    folder = make()
    (photographs.parent / "secret.jpg").write_bytes(b"secret")

    def put(rows):
        return {**rows, "train": [{**rows["train"][0], "path": "../secret.jpg"}, *rows["train"][1:]]}

    change_rows(folder, put)
    assert not found(folder, "photographs", "secret", images=photographs)
    assert found(folder, "rows", "'../secret.jpg'", "a relative path below", images=photographs)


@pytest.fixture
def with_findings(make, make_run, photographs, tmp_path):
    def build_it(findings):
        run = make_run("held", change=lambda row: replace(row, findings=findings))
        facts = read_json(run / "run.json")
        write_json(run / "run.json", {**facts, "schema": {"name": "derm", "sha256": load_schema("derm").sha256}})
        build(BuildConfig(images=photographs, runs=(run,), out=tmp_path / "held"), finish=write_card)
        return tmp_path / "held"

    return build_it


def test_findings_of_the_schema_are_sound_and_counted_in_the_card(with_findings):
    folder = with_findings(json.dumps(FINDINGS))
    assert faults(folder, with_card=True) == []
    assert "| lesion\\_type | papule (100 %) | 1 |" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("findings", "place", "allowed"),
    [
        (json.dumps({**FINDINGS, "border": "fuzzy"}), "findings.border", "well defined, poorly defined"),
        (json.dumps({**FINDINGS, "colour": []}), "findings.colour", "a list of 1 to 3"),
        (json.dumps({**FINDINGS, "colour": ["red", "mauve"]}), "findings.colour[1]", "red, pink"),
        (json.dumps({"site": "arm"}), "findings", "an object with lesion_type"),
    ],
)
def test_findings_outside_their_schema_are_found(with_findings, findings, place, allowed):
    folder = with_findings(json.dumps(FINDINGS))
    change_rows(
        folder, lambda rows: {s: [{**row, "findings": findings} for row in part] for s, part in rows.items()}, "held"
    )
    assert len(found(folder, "rows", f", {place}", allowed)) == 26


def test_findings_that_are_no_json_or_missing_without_their_flag_are_found(with_findings):
    folder = with_findings(json.dumps(FINDINGS))

    def put(rows):
        first, second, *rest = rows["train"]
        return {**rows, "train": [{**first, "findings": "{"}, {**second, "findings": ""}, *rest]}

    change_rows(folder, put, "held")
    assert found(folder, "rows", ", findings: '{'", "JSON")
    assert found(folder, "rows", "empty where the flag no_findings is set, and only there")


def test_a_schema_that_nobody_knows_is_said_to_be_unchecked(with_findings):
    folder = with_findings(json.dumps(FINDINGS))
    change_json(folder / "provenance/held.json", lambda each: each["run"]["schema"].update(sha256="0" * 64))
    report = check_dataset(folder)
    assert "this version does not know the schema derm" in report.not_checked[0]
    odd = {"name": "derm", "sha256": "0" * 64, "json_schema": {"type": "object", "properties": {"site": "anything"}}}
    change_json(folder / "provenance/held.json", lambda each: each["run"].update(schema=odd))
    assert "this version does not know the schema derm" in check_dataset(folder).not_checked[0]
    known = {"name": "derm", "sha256": "0" * 64, "json_schema": DERM}
    change_json(folder / "provenance/held.json", lambda each: each["run"].update(schema=known))
    assert check_dataset(folder).not_checked == [
        "whether the photographs are still those that were described: give --images ROOT"
    ]


def test_every_word_of_the_bundled_schema_fits_it_and_nothing_else_does():
    assert misfit(FINDINGS, DERM) == []
    for value in (
        None,
        [],
        "x",
        3,
        {**FINDINGS, "more": 1},
        {**FINDINGS, "site": None},
        {**FINDINGS, "surface": "smooth"},
    ):
        assert misfit(value, DERM)


def test_what_a_strangers_file_holds_is_shown_as_escapes(make):
    folder = make(with_card=True)
    (folder / "evil\u202e\x1b[31m.txt").write_text("x")
    change_text(folder / "README.md", "# Machine descriptions", "# \u202eMachine\x1b[31m descriptions")
    told = "".join(f"{each.file}{each.place}{each.seen}{each.allowed}" for each in faults(folder, with_card=True))
    assert "\\u202e" in told
    assert all(each.isprintable() for each in told)


def test_a_list_of_checksums_that_points_outside_is_not_followed(make, tmp_path):
    folder = make()
    (tmp_path / "outside").write_text("x")
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../outside\nnonsense\n")
    assert [each.seen for each in check_files(folder)] == [f"{'0' * 64}  ../outside", "nonsense"]
