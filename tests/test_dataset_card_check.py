import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from builders.audit.config import AuditConfig
from builders.audit.job import run_audit
from builders.build import BuildConfig, build
from builders.check import check_dataset
from builders.dataset_folder import write_checksums
from builders.files import read_json, write_json
from builders.sample import write_sample
from dataset_card.audit_section import FINDINGS, audit_notes, audit_table, findings
from dataset_card.card import write_card
from dataset_card.check_card import check_card
from dataset_card.check_command import check
from dataset_card.choices import CARD_VERSION, CardChoices
from dataset_card.croissant import croissant
from dataset_card.facts import gather

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Where the datasets are kept that the tests of this module copy: building one takes longer than most tests."""
    return tmp_path_factory.mktemp("built")


@pytest.fixture(params=[False, True], ids=["text only", "with images"])
def dataset(request, built, photographs, make_run, tmp_path):
    kept = built / str(request.param)
    if not kept.exists():
        runs = (make_run(),)
        build(BuildConfig(images=photographs, runs=runs, out=kept, with_images=request.param), finish=write_card)
    return Path(shutil.copytree(kept, tmp_path / "dataset"))


def validated(folder):
    """croissant.json as MLCommons' own program reads it, and every error and warning that it has."""
    import mlcroissant

    read = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    return read, read.metadata.ctx.issues.errors | read.metadata.ctx.issues.warnings


@pytest.mark.filterwarnings("ignore")  # rdflib and pandas, which it reads with, deprecate what it calls
def test_croissant_is_valid_and_its_records_are_the_rows(dataset):
    read, complaints = validated(dataset)
    assert complaints == set()
    by_id = {row["image_id"]: row for row in pq.read_table(dataset / "tiny-doctor").to_pylist()}
    records = list(read.records("tiny-doctor-rows"))
    assert len(records) == 26
    for record in records:
        told = {name.partition("/")[2]: value for name, value in record.items()}
        row = by_id[told["image_id"].decode()]
        assert told["split"].decode() == row["path"].partition("/")[0]
        assert told["description"].decode() == row["description"]
        assert (told["label"], told["n_output_tokens"]) == (row["label"], row["n_output_tokens"])
        assert [flag.decode() for flag in told["flags"] or []] == row["flags"]
        assert ("image" in told) == ("image" in row)


@pytest.mark.filterwarnings("ignore")
def test_croissant_of_a_published_dataset_names_the_repository_and_is_valid(dataset):
    write_card(dataset, CardChoices(repo_id="me/set"))
    _, complaints = validated(dataset)
    assert complaints == set()
    told = read_json(dataset / "croissant.json")
    assert told["url"] == told["distribution"][0]["contentUrl"] == "https://huggingface.co/datasets/me/set"
    assert told["distribution"][1]["containedIn"] == {"@id": "repo"}


def test_croissant_tells_what_responsible_use_needs(dataset):
    told = croissant(gather(dataset, CardChoices()))
    keys = {key.removeprefix("rai:") for key in told if key.startswith("rai:")}
    assert keys >= {
        "dataCollection",
        "dataCollectionType",
        "dataAnnotationProtocol",
        "machineAnnotationTools",
        "dataBiases",
        "dataLimitations",
        "personalSensitiveInformation",
        "dataUseCases",
        "dataSocialImpact",
        "dataReleaseMaintenancePlan",
    }
    assert "tiny-doctor: 1 photographs of the source have no row" in told["rai:dataCollectionMissingData"]
    assert "example/tiny-doctor at revision 0123456789abcdef" in told["rai:machineAnnotationTools"][0]
    assert told["datePublished"] == "2026-01-02"
    shard = told["distribution"][1]
    assert shard["contentSize"] == f"{(dataset / shard['contentUrl']).stat().st_size} B"


@pytest.mark.parametrize(
    ("change", "place", "allowed"),
    [
        (lambda told: told["distribution"][1].update(sha256="0" * 64), "distribution[1].sha256", "'"),
        (lambda told: told.update(license="cc0-1.0"), "license", "'not-yet-decided'"),
        (lambda told: told["recordSet"][0]["field"].pop(), "recordSet[0].field", "["),
        (lambda told: told.pop("rai:dataBiases"), "rai:dataBiases", "['Machine-written"),
    ],
)
def test_croissant_that_disagrees_with_the_shards_is_found(dataset, change, place, allowed):
    told = read_json(dataset / "croissant.json")
    change(told)
    write_json(dataset / "croissant.json", told)
    (fault,), _ = check_card(dataset)
    assert (fault.file, fault.place) == ("croissant.json", place)
    assert fault.allowed.startswith(allowed)


def test_croissant_that_is_missing_or_no_json_is_one_fault(dataset):
    (dataset / "croissant.json").write_text("{")
    assert [each.seen.partition(":")[0] for each in check_card(dataset)[0]] == ["cannot be read"]
    (dataset / "croissant.json").unlink()
    assert [each.seen for each in check_card(dataset)[0]] == ["no such file"]


def test_a_plot_with_other_numbers_or_pixels_is_found(dataset):
    file = dataset / "assets" / "classes.png"
    whole = file.read_bytes()
    with Image.open(file) as image:
        image.load()
        about = dict(image.info)
        drawn = image.convert("RGB")
    from PIL.PngImagePlugin import PngInfo

    def save(numbers, picture):
        info = PngInfo()
        info.add_itxt("vl-dermnet", json.dumps(numbers))
        info.add_text("Software", about["Software"])
        picture.save(file, pnginfo=info)

    numbers = json.loads(about["vl-dermnet"])
    numbers["rows"][1][1][0] += 1
    save(numbers, drawn)
    (fault,), _ = check_card(dataset)
    assert (fault.file, fault.place, fault.seen, fault.allowed) == ("assets/classes.png", "rows[1][1][0]", "7", "6")
    drawn.putpixel((800, 200), (255, 0, 0))
    save(json.loads(about["vl-dermnet"]), drawn)
    (fault,), _ = check_card(dataset)
    assert fault.seen == "other pixels"
    for damaged, seen in ((whole[:40], "not a PNG"), (b"", "not a PNG")):
        file.write_bytes(damaged)
        (fault,), _ = check_card(dataset)
        assert seen in fault.seen
    Image.new("RGB", (4, 4)).save(file)
    assert [each.seen for each in check_card(dataset)[0]] == ["a PNG without its numbers in it"]
    file.unlink()
    assert [each.seen for each in check_card(dataset)[0]] == ["no such file"]


def test_lines_that_were_added_removed_or_changed_are_all_found(dataset):
    readme = dataset / "README.md"
    text = readme.read_text(encoding="utf-8")
    changed = text.replace("reviewed by no clinician", "reviewed by a clinician").replace(
        "## Uses\n", "## Uses\n\nAny.\n"
    )
    readme.write_text(changed.replace("- **Flag:**", "- **Mark:**"), encoding="utf-8")
    faults, not_checked = check_card(dataset)
    assert not_checked == []
    assert any(each.seen.startswith("'> **Written by machines and reviewed by a clinician") for each in faults)
    assert sorted(each.seen for each in faults if each.allowed == "no line") == ["''", "'Any.'"]
    assert any("**Mark:**" in each.seen and "**Flag:**" in each.allowed for each in faults)
    lines = readme.read_text(encoding="utf-8").split("\n")
    for each in faults:
        if each.place.startswith("line ") and each.seen != "no line":
            assert lines[int(each.place.removeprefix("line ")) - 1].startswith(each.seen[1:-1].rstrip("…"))


def test_a_card_of_another_version_is_compared_but_not_word_for_word(dataset):
    readme = dataset / "README.md"
    text = readme.read_text(encoding="utf-8").replace(
        f"<!-- vl-dermnet card {CARD_VERSION} ", "<!-- vl-dermnet card 1 "
    )
    readme.write_text(
        text.replace("num_examples: 19", "num_examples: 18").replace("## Uses", "## Use"), encoding="utf-8"
    )
    faults, not_checked = check_card(dataset)
    assert [each.place for each in faults] == ["dataset_info[0].splits[0].num_examples"]
    assert not_checked == [f"the text of README.md: version 1 of the card wrote it, this is version {CARD_VERSION}"]


def test_a_readme_that_is_no_card_is_one_fault(dataset):
    (dataset / "README.md").write_text("---\nconfigs: []\n---\n")
    faults, _ = check_card(dataset)
    assert [(each.seen, each.allowed) for each in faults] == [
        ("a last line that is not this program's", "the card that `vl-dermnet build` writes")
    ]


@pytest.fixture
def run_check():
    """A function that types `check …` and gives exit code, stdout and stderr."""
    app = typer.Typer()
    app.command()(check)

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout, result.stderr

    return run


def test_the_command_ends_with_0_and_says_what_it_could_not_check(dataset, photographs, run_check):
    code, out, err = run_check(dataset)
    assert (code, out) == (0, "1 description set, 26 rows, no faults\n")
    has_images = "image" in pq.read_schema(next(dataset.glob("*/test-*"))).names
    assert err == (
        ""
        if has_images
        else ("not checked: whether the photographs are still those that were described: give --images ROOT\n")
    )
    assert run_check(dataset, "--images", photographs) == (0, out, "")


def test_the_command_ends_with_1_and_lists_every_fault(dataset, run_check):
    (dataset / "notes.txt").write_text("mine")
    text = (dataset / "README.md").read_text(encoding="utf-8")
    (dataset / "README.md").write_text(text.replace("| Left out |", "| Lost |"), encoding="utf-8")
    code, out, _ = run_check(dataset)
    assert code == 1
    assert "notes.txt\n  seen:    a file that the checksums do not list\n" in out
    assert "  seen:    '| Lost | Photographs |'\n  allowed: '| Left out | Photographs |'\n" in out
    assert out.endswith("1 description set, 26 rows, 3 faults\n")
    code, out, _ = run_check(dataset, "--json")
    told = json.loads(out)
    assert (code, told["is_sound"], len(told["faults"])) == (1, False, 3)
    assert told["faults"][0].keys() == {"contract", "file", "place", "seen", "allowed"}


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """Where the one dataset with an audit is kept, that the tests below copy."""
    return tmp_path_factory.mktemp("audits") / "dataset"


@pytest.fixture
def audited(audits, make_run, tmp_path):
    """A dataset of rendered photographs with their audit in it, as `build --audit` copies it."""
    if not audits.exists():
        photographs, audit = tmp_path / "rendered", tmp_path / "audit"
        write_sample(photographs, n_images=40, seed=0, broken=True)
        run_audit(AuditConfig(images=str(photographs), out=audit, n_workers=0))

        def finish(folder):
            (folder / "audit").mkdir()
            for file in [audit / "audit.json", *audit.glob("*.parquet")]:
                (folder / "audit" / file.name).write_bytes(file.read_bytes())
            write_card(folder)

        config = BuildConfig(images=photographs, runs=(make_run(images=photographs),), out=audits)
        build(config, finish=finish)
    return Path(shutil.copytree(audits, tmp_path / "audited"))


def test_what_the_audit_found_stands_in_the_card(audited):
    text = (audited / "README.md").read_text()
    told = read_json(audited / "audit" / "audit.json")
    by_name = told["file_names"]["lookup"]["test"]["accuracy"]
    assert told["contents"]["n_refused"] > 0 < told["byte_copies"]["n_surplus"]
    for row in (
        f"| files | {told['contents']['n_files']} |",
        f"| files that cannot be decoded | {told['contents']['n_refused']} |",
        f"| files that repeat another to the byte | {told['byte_copies']['n_surplus']} |",
        f"| labels that the file name alone gives away, test, % | {100 * by_name:.2f} |",
    ):
        assert row in text
    assert "- Not run: features, because no --features FILE was given." in text
    assert "--audit AUDIT" in text
    assert check_dataset(audited, None, check_card).faults == []


def test_an_audit_that_says_otherwise_than_the_card_is_found(audited):
    told = read_json(audited / "audit" / "audit.json")
    told["byte_copies"]["n_surplus"] = 1234
    write_json(audited / "audit" / "audit.json", told)
    (fault,), _ = check_card(audited)
    assert fault.seen.startswith("'| files that repeat another to the byte |")
    assert fault.allowed == "'| files that repeat another to the byte | 1,234 |'"


@pytest.mark.parametrize("told", [[1], {"byte_copies": [], "dermnet": "x", "not_run": [1]}])
def test_an_audit_of_another_form_is_a_card_that_says_otherwise(audited, told):
    write_json(audited / "audit" / "audit.json", told)
    assert check_card(audited)[0]
    assert audit_notes(told) == []


def test_the_audits_page_with_its_pictures_is_not_let_through(audited):
    (audited / "audit" / "audit.html").write_text("<img>")
    write_checksums(audited)
    (fault,) = check_dataset(audited).faults
    assert (fault.file, fault.allowed) == ("audit/audit.html", "audit/audit.json and audit/*.parquet")


def test_every_finding_of_the_card_is_a_key_of_the_audit(shared_data, tmp_path):
    index = shared_data / "dermnet_index"
    config = AuditConfig(
        images=str(index / "index.csv"),
        copies=index / "surplus_copies.csv",
        features=index / "features_pca50.npz",
        known=index / "index.csv",
        known_column="label",
        out=tmp_path / "audit",
    )
    run_audit(config)
    told = read_json(tmp_path / "audit" / "audit.json")
    not_run = {"contents.n_tiny", "marks.marks", "splits.n_clean.*"}  # they need the photographs
    assert {key for key, words in FINDINGS.items() if not list(findings(told, key, words))} == not_run
    table = audit_table(told)
    for row in (
        "| files that repeat another to the byte | 1,257 |",
        "| of these in train | 664 |",
        "| file names under several labels | 433 |",
        "| labels that the file name alone gives away, test, % | 96.03 |",
        "| byte copies with the same name and label in train, test | 270 |",
        "| byte copies whose name is in train under other labels only, test | 127 |",
    ):
        assert row in table


def test_the_audits_of_photographs_have_the_other_keys_too(audited):
    told = read_json(audited / "audit" / "audit.json")
    needing_more = {key for key in FINDINGS if key.startswith(("features.", "known_groups."))}
    assert {key for key, words in FINDINGS.items() if not list(findings(told, key, words))} == needing_more
