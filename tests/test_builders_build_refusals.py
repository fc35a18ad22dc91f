"""What build refuses, each with the ids or names it is about."""

import json
import shutil
from dataclasses import replace

import pytest
from pydantic import ValidationError

from builders.build import BuildConfig, build
from builders.errors import UserError
from builders.files import read_json
from builders.schema import image_id_of


@pytest.fixture
def out(tmp_path):
    return tmp_path / "dataset"


def id_and_path(path):
    return f"{image_id_of(path)} ({path})"


def test_missing_descriptions_are_named(photographs, make_run, out):
    run = make_run(keep=lambda row: row.label != "papule")
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run,), out=out))
    papules = [f"test/papule/{name}.jpg" for name in ("copy of train", "pap-0", "pap-1")]
    papules += [f"train/papule/pap-{number}.jpg" for number in (0, 1)]
    assert str(error.value) == (
        f"9 of 26 images have no description in {run} yet: {', '.join(map(id_and_path, papules))} and 4 more\n"
        "  fix: vl-dermnet annotate photographs --out run-tiny-doctor --engine scripted"
        "   (continues where it stopped; or build with --allow-partial)"
    )
    summary = build(BuildConfig(images=photographs, runs=(run,), out=out, allow_partial=True))
    assert summary.sets["tiny-doctor"].n_left_out == {"missing": 9, "refused": 1}


def test_an_unfinished_run_is_refused(photographs, make_run, out):
    run = make_run(finished=False)
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run,), out=out))
    assert str(error.value) == (
        f"{run} is not finished: it holds no summary.json\n"
        "  fix: vl-dermnet annotate photographs --out run-tiny-doctor --engine scripted"
        "   (continues where it stopped; or build with --allow-partial)"
    )
    build(BuildConfig(images=photographs, runs=(run,), out=out, allow_partial=True))


def test_descriptions_of_unknown_images_are_refused(photographs, make_run, out):
    def rename(description):
        is_first = description.image_id == image_id_of("train/papule/pap-0.jpg")
        return replace(description, image_id="f" * 16) if is_first else description

    run = make_run(change=rename)
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run,), out=out))
    assert str(error.value) == (
        f"1 descriptions in {run} are of images that its index does not hold: ffffffffffffffff\n"
        "  fix: the folder mixes two runs; annotate into an empty one"
    )


def test_descriptions_of_other_bytes_are_refused(photographs, make_run, out):
    path = "train/papule/pap-0.jpg"

    def confuse(description):
        return replace(description, image_sha256="0" * 64) if description.image_id == image_id_of(path) else description

    run = make_run(change=confuse)
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run,), out=out))
    assert str(error.value) == (
        f"1 descriptions in {run} are of other bytes than its index holds: {id_and_path(path)}\n"
        "  fix: vl-dermnet annotate photographs --out run-tiny-doctor --engine scripted"
        "   (describes changed photographs again)"
    )


@pytest.mark.parametrize("with_images", [False, True])
def test_photographs_that_changed_or_went_are_named(photographs, make_run, out, with_images):
    run = make_run()
    build(BuildConfig(images=photographs, runs=(run,), out=out, with_images=with_images))
    before = (out / "SHA256SUMS").read_bytes()
    (photographs / "train/papule/pap-0.jpg").write_bytes(b"other")
    (photographs / "test/plaque/pla-0.jpg").unlink()
    (photographs / "test/plaque/pla-0.jpg").symlink_to("nowhere")  # listed, and cannot be read
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run,), out=out, with_images=with_images))
    assert (out / "SHA256SUMS").read_bytes() == before
    assert str(error.value) == (
        f"1 of 26 images are not in {photographs}: test/plaque/pla-0.jpg\n"
        f"1 of 26 images in {photographs} have other bytes: train/papule/pap-0.jpg\n"
        "  fix: point to the photographs that were annotated; where they were changed on purpose, annotate them again:"
        " the same command describes only those"
    )


def test_two_runs_of_one_name_are_refused(photographs, make_run, out, tmp_path):
    run = make_run()
    again = shutil.copytree(run, tmp_path / "again")
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run, again), out=out))
    assert str(error.value) == (
        f"{run} and {again} are both called 'tiny-doctor'; each description set needs its own name\n"
        f"  fix: leave one out, or name one: --run tiny-doctor-2='{again}'"
    )


def test_a_run_that_is_given_twice_is_refused_whatever_it_is_called(photographs, make_run, out):
    run = make_run()
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run, run), out=out))
    assert str(error.value) == f"the run {run} is given twice\n  fix: leave one --run out"


def test_runs_of_different_photographs_are_refused(photographs, make_run, out, tmp_path):
    run = make_run()
    changed = shutil.copytree(photographs, tmp_path / "changed")
    path = "train/papule/pap-0.jpg"
    shutil.copy(changed / "train/papule/pap-4.jpg", changed / path)
    other = make_run("other", images=changed)
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run, other), out=out))
    assert str(error.value) == (
        f"{run} and {other} disagree about {id_and_path(path)}: its bytes, its split or its label\n"
        "  fix: annotate both from the same photographs; two versions of a collection make two datasets"
    )


@pytest.mark.parametrize("name", ["data", "../up", "", "a/b", ".hidden", "x" * 97])
def test_a_name_that_cannot_be_a_folder_is_refused(photographs, make_run, out, name):
    run = make_run()
    (run / "run.json").write_text(json.dumps(read_json(run / "run.json") | {"set_name": name}))
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run,), out=out))
    assert str(error.value) == (
        f"'{name}' cannot name a description set: use letters, digits, '.', '_' and '-', at most 96 of them, "
        "and none of assets, audit, data, provenance"
    )


def test_an_unknown_primary_set_is_refused(photographs, make_run, out):
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(make_run(), make_run("b")), out=out, primary="c"))
    assert str(error.value) == "unknown primary description set 'c'; choose one of: b, tiny-doctor"


def test_a_run_without_any_description_is_refused(photographs, make_run, out):
    run = make_run(change=lambda each: replace(each, status="failed", reason="down", description=""))
    with pytest.raises(UserError) as error:
        build(BuildConfig(images=photographs, runs=(run,), out=out))
    assert str(error.value) == f"{run} holds no usable description: 27 images indexed, none described"
    assert not out.exists()


def test_a_config_takes_no_unknown_setting(tmp_path):
    with pytest.raises(ValidationError, match="with_image"):
        BuildConfig(images=tmp_path, runs=(tmp_path,), out=tmp_path, with_image=True)
