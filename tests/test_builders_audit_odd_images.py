"""audit: images of every odd kind are looked at like any other, and none stops it."""

import struct

import numpy as np
import pytest
from PIL import Image

from builders.audit.config import AuditConfig
from builders.audit.job import run_audit

# Turned by 90°, and made by a program whose name is a fraction: Pillow cannot write that again.
ODD_EXIF = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIIHHIIIII", 2, 0x0112, 3, 1, 6, 0x0131, 5, 1, 38, 0, 3, 2)
N_ALIKE = 32  # of one size: enough for the search for watermarks to look at them


@pytest.fixture
def odd_images(tmp_path):
    root = tmp_path / "odd"
    rng = np.random.default_rng(0)
    folders = [root / split / label for split in ("train", "test") for label in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    kinds = {
        "blank.jpg": Image.new("RGB", (80, 60), "white"),
        "black.png": Image.new("L", (80, 60), 0),
        "clear.png": Image.new("RGBA", (80, 60), (0, 0, 0, 0)),
        "one.png": Image.new("RGB", (1, 1), "red"),
        "thin.png": Image.new("RGB", (2, 900), "red"),
        "bits.png": Image.new("1", (80, 60)),
        "print.jpg": Image.fromarray(rng.integers(0, 255, (60, 80, 4), dtype=np.uint8), "CMYK"),
        "deep.png": Image.fromarray(rng.integers(0, 65535, (60, 80), dtype=np.uint16)),
        "palette.png": Image.fromarray(rng.integers(0, 255, (60, 80, 4), dtype=np.uint8), "RGBA").quantize(16),
    }
    for place, (name, image) in enumerate(kinds.items()):
        image.save(folders[place % 4] / name)
    kinds["print.jpg"].convert("RGB").save(folders[3] / "odd-exif.jpg", exif=ODD_EXIF)
    frames = [Image.new("L", (80, 60), 7), Image.new("L", (80, 60), 99)]
    frames[0].save(folders[0] / "moving.gif", save_all=True, append_images=frames[1:])
    for number in range(N_ALIKE):  # blank, of one size, and each of other bytes
        Image.new("RGB", (64, 48), (200, 150, 100 + number)).save(folders[number % 4] / f"plain-{number}.png")
    return root


def test_no_kind_of_image_stops_an_audit_or_is_taken_for_a_copy_of_another(odd_images, tmp_path):
    found, _ = run_audit(AuditConfig(images=str(odd_images), out=tmp_path / "audit"))
    assert found.contents.n_files == 11 + N_ALIKE
    assert found.contents.n_refused == 0
    assert found.groups.n_groups == 0
    assert (tmp_path / "audit" / "audit.html").is_file()
