"""decode_rgb: every odd file is either pixels or a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from datasets import Image as DatasetsImage
from PIL import Image, ImageOps

from builders.decode import BadImageError, decode_rgb, upright_rgb


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def photo(width_px: int = 60, height_px: int = 40) -> Image.Image:
    """Red above, blue below: a rotation shows."""
    pixels = np.zeros((height_px, width_px, 3), np.uint8)
    pixels[: height_px // 2, :, 0] = 220
    pixels[height_px // 2 :, :, 2] = 220
    return Image.fromarray(pixels)


def bomb_png(width_px: int, height_px: int) -> bytes:
    """A valid PNG header of any size with next to no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_each_format_becomes_rgb_of_its_size(image_format):
    image, found = decode_rgb(encode(photo(), image_format))
    assert (image.mode, image.size, found) == ("RGB", (60, 40), image_format)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_each_pixel_mode_becomes_rgb(mode):
    source = photo().convert("L").convert("I;16") if mode == "I;16" else photo().convert(mode)
    image, _ = decode_rgb(encode(source, "TIFF" if mode == "CMYK" else "PNG"))
    assert (image.mode, image.size) == ("RGB", (60, 40))


def test_16_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(1, 256).repeat(4, axis=0)
    image, _ = decode_rgb(encode(Image.fromarray(ramp), "PNG"))
    row = np.asarray(image)[0, :, 0].astype(int)
    assert row[0] == 0
    assert row[-1] == 255
    assert np.all(np.diff(row) >= 0)


def test_transparency_lies_on_white():
    image, _ = decode_rgb(encode(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG"))
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied_as_datasets_does():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photo(), "JPEG", exif=exif, quality=95)
    ours, _ = decode_rgb(data)
    theirs = DatasetsImage().decode_example({"bytes": data, "path": None})
    assert ours.size == (40, 60)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_each_exif_orientation_is_applied_once_as_pillow_does(image_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), image_format, exif=exif)
    ours, _ = decode_rgb(data)
    assert np.array_equal(np.asarray(ours), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(ours)), np.asarray(ours))


def test_a_photograph_whose_exif_has_values_of_other_types_is_turned_like_any_other():
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x0131, 5, 1, 38)  # Software, as a fraction
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + struct.pack("<I", 0) + struct.pack("<II", 3, 2)
    data = encode(photo(), "JPEG", exif=b"Exif\0\0" + tiff)
    with pytest.raises(AttributeError), Image.open(io.BytesIO(data)) as image:
        ImageOps.exif_transpose(image)
    assert decode_rgb(data)[0].size == (40, 60)


def test_an_animation_is_its_first_frame():
    frames = [photo(), Image.new("RGB", (60, 40), "green")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image, _ = decode_rgb(data)
    red, _, blue = image.getpixel((5, 5))
    assert red > 150 > blue


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"this is text", "not an image in one of the formats JPEG, PNG, WEBP, BMP, GIF, TIFF"),
        (bomb_png(30_000, 30_000), "too many pixels, a decompression bomb? at most 89,478,485 are decoded"),
        (bomb_png(12_000, 12_000), "too many pixels, a decompression bomb? at most 89,478,485 are decoded"),
    ],
    ids=["empty", "text", "bomb", "smaller bomb"],
)
def test_unusable_bytes_are_refused_with_a_reason(data, reason):
    with pytest.raises(BadImageError) as caught:
        decode_rgb(data)
    assert str(caught.value) == reason


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files_are_refused(image_format, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8))
    data = encode(noise, image_format)
    with pytest.raises(BadImageError):
        decode_rgb(data[: int(len(data) * share)])


def test_random_damage_never_raises_anything_else():
    rng = np.random.default_rng(1)
    for image_format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        clean = np.frombuffer(encode(photo(), image_format), np.uint8)
        for _ in range(60):
            data = clean.copy()
            places = rng.integers(0, len(data), rng.integers(1, 12))
            data[places] = rng.integers(0, 256, len(places))
            try:
                image, _ = decode_rgb(data.tobytes())
            except BadImageError:
                continue
            assert image.mode == "RGB"


def test_an_image_that_was_given_opened_stays_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(encode(photo(), "JPEG", exif=exif))) as image:
        assert upright_rgb(image).size == (40, 60)
        assert (image.size, image.getexif()[0x0112]) == ((60, 40), 6)
