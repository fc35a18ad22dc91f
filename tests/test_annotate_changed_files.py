"""annotate: photographs whose bytes change after they were described."""

from PIL import Image

from annotate.job import run
from annotate.status import status_of
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
