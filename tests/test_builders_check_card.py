from dataclasses import replace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.build import BuildConfig, build
from builders.dataset_folder import write_checksums
from builders.schema import image_id_of
from tests.damage import change_json, change_rows, change_shard, change_text, faults, found, shards_of

pytestmark = pytest.mark.usefixtures("private_cache")


def test_class_names_out_of_order_are_found(make_two_sets):
    folder = make_two_sets(shard_bytes=10**9, with_card=True)

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
def test_yaml_that_disagrees_with_the_shards_is_found(make_two_sets, old, new, contract, place):
    folder = make_two_sets(with_card=True)
    change_text(folder / "README.md", old, new)
    assert [each for each in found(folder, contract) if place in each.place]


def test_a_readme_without_yaml_or_with_a_bomb_in_it_is_one_fault(make_two_sets):
    folder = make_two_sets()
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    for text, seen in (("no card", "no YAML between two lines of ---"), (f"---\n{bomb}---\n", "it holds an alias")):
        (folder / "README.md").write_text(text)
        (fault,) = found(folder, "front matter", seen)
        assert fault.file == "README.md"
    (folder / "README.md").unlink()
    assert found(folder, "front matter", "no such file")


def test_a_wrong_number_anywhere_in_the_card_is_found(make_two_sets):
    folder = make_two_sets(with_card=True)
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
def test_provenance_that_does_not_match_is_found(make_two_sets, change, contract, words):
    folder = make_two_sets()
    change_json(folder / "provenance/tiny-doctor.json", change)
    assert found(folder, contract, words)


def test_provenance_that_is_no_json_is_found_and_the_other_set_is_still_checked(make_two_sets):
    folder = make_two_sets()
    (folder / "provenance/tiny-doctor.json").write_text("{")
    change_rows(folder, lambda rows: {**rows, "test": rows["test"][::-1]}, "other")
    assert found(folder, "provenance", "provenance/tiny-doctor.json")
    assert found(folder, "rows", "other/test-00000", "rows sorted by image_id")


def test_a_photograph_that_is_described_and_listed_as_left_out_is_found(make_two_sets):
    folder = make_two_sets()
    file = folder / "provenance/tiny-doctor.not-described.csv"
    row = pq.read_table(shards_of(folder)[0]).to_pylist()[0]
    file.write_text(file.read_text() + f"{row['image_id']},x,train,papule,failed,no\n")
    write_checksums(folder)
    assert found(folder, "counts", "a photograph that has a description")
    assert found(folder, "counts", "build.rows.n_left_out")


def test_a_reason_with_a_lone_carriage_return_in_it_is_one_row_of_the_list(photographs, make_run, tmp_path):
    failing = image_id_of("train/papule/pap-3.jpg")

    def fail(description):
        is_it = description.image_id == failing
        return replace(description, status="failed", reason="one\rtwo", description="") if is_it else description

    build(BuildConfig(images=photographs, runs=(make_run(change=fail),), out=tmp_path / "dataset"))
    file = tmp_path / "dataset/provenance/tiny-doctor.not-described.csv"
    assert b'"one\rtwo"\n' in file.read_bytes()
    assert file.read_bytes().count(b"\r") == 1  # lines of their own end in \n
    assert faults(tmp_path / "dataset") == []
