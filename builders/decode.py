"""From a file's bytes to the pixels that every model here sees: one decoder for indexing, describing and training."""

import io
import struct
import warnings
import zlib

from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# What Pillow's decoders were seen to raise on damaged files; their documentation promises only OSError.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError, struct.error, zlib.error)
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_TURNED = {  # EXIF orientation -> what makes the photograph upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HOLD_ORIENTATION = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # where Pillow looks for it


class BadImageError(Exception):
    """These bytes are not a usable image; the message says why, in words for `reason`."""


def decode_rgb(data: bytes) -> tuple[Image.Image, str]:
    """The upright 8-bit RGB image in `data`, decoded to its last pixel, and its format (`JPEG`, …).

    EXIF orientation is applied, as `datasets.Image` does. The first frame stands for an animation, transparency is
    laid on white, 16-bit grey keeps its upper 8 bits. Raises `BadImageError` for anything damaged, foreign, or with
    more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (a decompression bomb), which is noticed before it is decoded.
    """
    if not data:
        raise BadImageError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")  # odd EXIF, odd TIFF tags
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                image.load()
                image_format = str(image.format)
                return _rgb(upright(image)), image_format
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = f"{Image.MAX_IMAGE_PIXELS or 0:,}"
        raise BadImageError(f"too many pixels, a decompression bomb? at most {limit} are decoded") from error
    except UnidentifiedImageError as error:
        raise BadImageError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except DAMAGE as error:
        raise BadImageError(f"damaged: {error}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image as `decode_rgb` gives it; the image itself stays as it is."""
    turned = upright(image)
    return _rgb(image.copy() if turned is image else turned)


def upright(image: Image.Image) -> Image.Image:
    """The pixels of `ImageOps.exif_transpose`; an image that is upright already is given back itself, not a copy.

    That function writes the other EXIF tags again, and raises AttributeError where one has another type than its name
    asks for. The pixels are fine; so a turned image loses its EXIF instead, and nobody turns it once more.
    """
    method = _TURNED.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if method is None:
        return image
    turned = image.transpose(method)
    for key in _HOLD_ORIENTATION:
        turned.info.pop(key, None)
    return turned


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BIT:
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
