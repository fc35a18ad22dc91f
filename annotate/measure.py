"""How large the images of a source are, by the headers of a few hundred of its files; no pixel is decoded."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image
from PIL.ExifTags import Base

from builders.decode import DAMAGE, FORMATS
from builders.index import no_image_error
from builders.schema import image_id_of
from builders.sources import open_source

MAX_MEASURED = 256  # files; the files of least `image_id`, which are spread over all folders
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True, slots=True)
class Measured:
    """What a look at a source tells: `sizes_px` are (width, height) of the upright images that could be opened.

    `n_files` are all that would be described; `n_unreadable` those looked at that have no image's header.
    """

    n_files: int
    n_unreadable: int
    sizes_px: list[tuple[int, int]]


def measure(images: str, limit: int | None) -> Measured:
    """List the source and open the headers of at most `MAX_MEASURED` files.

    Raises `UserError` where the source holds no image file at all.
    """
    with open_source(images) as source:
        paths = sorted(source.paths(), key=image_id_of)[:limit]
        if not paths:
            raise no_image_error(images)
        sizes_px: list[tuple[int, int]] = []
        looked_at = paths[:MAX_MEASURED]
        for path in looked_at:
            try:
                sizes_px.append(upright_size_px(source.read(path)))
            except (*DAMAGE, Image.DecompressionBombWarning, Image.DecompressionBombError):
                continue  # counted below
    return Measured(len(paths), len(looked_at) - len(sizes_px), sizes_px)


def upright_size_px(data: bytes) -> tuple[int, int]:
    """Width and height as `builders.decode.decode_rgb` gives them, from the header alone; raises what Pillow raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")  # odd EXIF, odd TIFF tags
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # A TIFF's size is upright already; without EXIF in its header a PNG would be decoded in search of it.
            has_exif = "exif" in image.info and image.format != "TIFF"
            if has_exif and image.getexif().get(Base.Orientation) in _ON_ITS_SIDE:
                return image.height, image.width
            return image.size
