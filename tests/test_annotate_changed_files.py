"""annotate: photographs whose bytes change after they were described."""

import pytest
from PIL import Image

from annotate.job import run
from annotate.status import status_of
from builders.errors import UserError
from builders.files import read_json
from builders.index import index_images
from builders.run_folder import read_run
from tests.supervised import (
    config,
    make_photos,
    rows_on_disk,
)


def test_a_file_that_was_damaged_after_it_was_described_counts_as_refused(tmp_path):
    folder = make_photos(tmp_path / "photos", 6)
    run(config(folder, tmp_path / "run"))
    victim = folder / "train" / "papule" / "001.png"
    victim.write_bytes(b"no image")
    for n_rows in (7, 7):  # its second row counts, and is not written again
        summary = run(config(folder, tmp_path / "run"))
        assert (summary.n_ok, summary.n_refused, summary.n_failed) == (5, 1, 0)
        assert len(rows_on_disk(tmp_path / "run")) == n_rows
    (row,) = [row for row in read_run(tmp_path / "run").descriptions.values() if row.status == "refused"]
    assert (row.description, row.reason) == ("", "not an image in one of the formats JPEG, PNG, WEBP, BMP, GIF, TIFF")
    victim.write_bytes(b"another file that is no image")
    run(config(folder, tmp_path / "run"))
    found = read_run(tmp_path / "run")
    assert all(found.descriptions[row.image_id].image_sha256 == row.image_sha256 for row in found.index)
    assert status_of(tmp_path / "run").n_refused == 1


def test_a_file_that_changed_and_then_failed_does_not_count_as_described(tmp_path):
    folder = make_photos(tmp_path / "photos", 6)
    run(config(folder, tmp_path / "run", script={}))
    victim = folder / "train" / "papule" / "001.png"
    Image.new("RGB", (9, 9), "red").save(victim)
    (key,) = [row.image_sha256 for row in index_images(folder, 0) if row.path.endswith("001.png")]
    summary = run(config(folder, tmp_path / "run", script={key: {"error": "no luck"}}))
    assert (summary.n_ok, summary.n_failed) == (5, 1)
    assert summary.reasons == {"no luck": 1}
    status = status_of(tmp_path / "run")
    assert (status.n_ok, status.n_to_do) == (5, 1)
    assert run(config(folder, tmp_path / "run", script={})).n_ok == 6


def behind_links(tmp_path, n_photos):
    """Photographs whose bytes lie on another disk, as it were: links into a folder that can go away."""
    store = make_photos(tmp_path / "store", n_photos)
    for file in sorted(store.rglob("*.png")):
        link = tmp_path / "photos" / file.relative_to(store)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return tmp_path / "photos"


def test_descriptions_outlive_a_run_while_some_files_cannot_be_read(tmp_path):
    folder, out = behind_links(tmp_path, 6), tmp_path / "run"
    assert run(config(folder, out, script={})).n_described == 6
    texts = {key: row.description for key, row in read_run(out).descriptions.items()}
    (tmp_path / "store" / "train" / "papule").rename(tmp_path / "away")
    summary = run(config(folder, out, script={}))
    assert (summary.n_ok, summary.n_refused, summary.n_described) == (3, 3, 0)
    (tmp_path / "away").rename(tmp_path / "store" / "train" / "papule")
    summary = run(config(folder, out, script={"": {"kill": True}}))  # an engine that dies if it is asked anything
    assert (summary.n_ok, summary.n_refused, summary.n_described) == (6, 0, 0)
    assert {key: row.description for key, row in read_run(out).descriptions.items()} == texts


def test_a_run_whose_photographs_are_all_out_of_reach_stops_and_changes_nothing(tmp_path):
    folder, out = behind_links(tmp_path, 6), tmp_path / "run"
    run(config(folder, out))
    rows, index = rows_on_disk(out), (out / "index.parquet").read_bytes()
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(UserError) as caught:
        run(config(folder, out))
    assert str(caught.value) == (
        f"none of the 6 photographs in {folder} that could be read before can be read now: train/papule/001.png: "
        "cannot be read: No such file or directory\n  fix: bring their disk back, then type the same command again"
    )
    assert rows_on_disk(out) == rows
    assert (out / "index.parquet").read_bytes() == index
    assert read_json(out / "summary.json")["n_ok"] == 6


def test_a_file_that_is_changed_and_put_back_has_its_description_again(tmp_path):
    folder, out = make_photos(tmp_path / "photos", 6), tmp_path / "run"
    run(config(folder, out))
    victim = folder / "train" / "papule" / "001.png"
    before = victim.read_bytes()
    Image.new("RGB", (9, 9), "red").save(victim)
    assert run(config(folder, out)).n_described == 1
    victim.write_bytes(before)
    assert run(config(folder, out)).n_described == 0
    found = read_run(out)
    assert all(found.descriptions[row.image_id].description.endswith(f"{row.image_sha256[:8]}.") for row in found.index)
