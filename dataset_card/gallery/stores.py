"""Where a gallery's texts and thumbnails go: into the page itself, or into files beside it that it asks for."""

import hashlib
import re
from base64 import b64encode
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, UnidentifiedImageError

from builders.files import write_atomic
from builders.foreign_text import script_json
from builders.thumbnail import Thumbnail

_OURS = re.compile(r"(?:rows|texts-\d+)-[0-9a-f]{16}\.js|thumbnails/[0-9a-f]{2}/[0-9a-f]{16}-\d+\.jpg")


class Store(Protocol):
    """What a gallery is written into; `thumbnails` maps a photograph's sha256 to its thumbnail's width and height."""

    thumbnails: dict[str, tuple[int, int]]
    folder_name: str

    def holds_thumbnail(self, sha256: str) -> bool:
        """Whether the thumbnail of these bytes is there already."""
        ...

    def keep_thumbnail(self, sha256: str, thumbnail: Thumbnail) -> None:
        """Keep the thumbnail of a photograph with these bytes."""
        ...

    def keep(self, kind: str, value: Any) -> str:
        """Keep some rows; the name under which the page asks for them."""
        ...

    def inline(self) -> dict[str, Any]:
        """What the page itself has to hold, by name."""
        ...

    def finish(self, page: str) -> None:
        """Write the page, last of all, and remove what only an older gallery needed."""
        ...

    def n_bytes(self) -> int:
        """The gallery's size."""
        ...


class OnePage:
    """Everything in one file: it can be sent and moved as it is."""

    def __init__(self, out: Path, thumbnail_px: int) -> None:
        self.thumbnails: dict[str, tuple[int, int]] = {}
        self.folder_name = ""
        self._out = out
        self._inline: dict[str, Any] = {}
        self._pictures: dict[str, str] = {}

    def holds_thumbnail(self, sha256: str) -> bool:
        """Never at first: an older page is not read."""
        return sha256 in self.thumbnails

    def keep_thumbnail(self, sha256: str, thumbnail: Thumbnail) -> None:
        """Keep it as base64, for a `data:` address."""
        self.thumbnails[sha256] = (thumbnail.width_px, thumbnail.height_px)
        self._pictures[sha256[:16]] = b64encode(thumbnail.jpeg).decode()

    def keep(self, kind: str, value: Any) -> str:
        """The id of an element of the page."""
        name = f"{kind}-{len(self._inline)}"
        self._inline[name] = value
        return name

    def inline(self) -> dict[str, Any]:
        """All that was kept."""
        return {**self._inline, "pictures": self._pictures}

    def finish(self, page: str) -> None:
        """Write the page; the folder of an older, larger gallery goes."""
        write_atomic(self._out, lambda part: part.write_text(page, encoding="utf-8"))
        _remove_ours(_folder_of(self._out), keep=set())

    def n_bytes(self) -> int:
        """The page's."""
        return self._out.stat().st_size


class Beside:
    """Files in `<stem>_files`, as browsers name it when they save a page: file managers move the two together."""

    def __init__(self, out: Path, thumbnail_px: int) -> None:
        self.thumbnails: dict[str, tuple[int, int]] = {}
        self._out = out
        self._folder = _folder_of(out)
        self.folder_name = self._folder.name
        self._thumbnail_px = thumbnail_px
        self._names: set[str] = set()

    def holds_thumbnail(self, sha256: str) -> bool:
        """Whether an earlier call made it, and it opens."""
        name = self._thumbnail_name(sha256)
        if sha256 not in self.thumbnails:
            try:
                with Image.open(self._folder / name) as image:
                    self.thumbnails[sha256] = image.size
            except (FileNotFoundError, UnidentifiedImageError):
                return False
            self._names.add(name)
        return True

    def keep_thumbnail(self, sha256: str, thumbnail: Thumbnail) -> None:
        """Whole or absent, but not synced to the disk one by one: 20,000 syncs take minutes; what is lost is remade."""
        self.thumbnails[sha256] = (thumbnail.width_px, thumbnail.height_px)
        name = self._thumbnail_name(sha256)
        self._names.add(name)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(thumbnail.jpeg)
        part.replace(path)

    def keep(self, kind: str, value: Any) -> str:
        """The name of a script that hands the rows over."""
        text = script_json(value)
        name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.js"
        self._names.add(name)
        script = f'vlDermnetReceive("{name}",{text})\n'
        write_atomic(self._folder / name, lambda part: part.write_text(script, encoding="utf-8"))
        return name

    def inline(self) -> dict[str, Any]:
        """Nothing: the page asks for all."""
        return {}

    def finish(self, page: str) -> None:
        """Write the page, then remove what no page names any more."""
        write_atomic(self._out, lambda part: part.write_text(page, encoding="utf-8"))
        _remove_ours(self._folder, keep=self._names)

    def n_bytes(self) -> int:
        """The page's and its folder's."""
        return self._out.stat().st_size + sum((self._folder / name).stat().st_size for name in self._names)

    def _thumbnail_name(self, sha256: str) -> str:
        return f"thumbnails/{sha256[:2]}/{sha256[:16]}-{self._thumbnail_px}.jpg"


def _folder_of(out: Path) -> Path:
    return out.with_name(f"{out.stem}_files")


def _remove_ours(folder: Path, keep: set[str]) -> None:
    """Remove a gallery's files but those to keep, and folders that are empty then; other people's files stay."""
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in keep and _OURS.fullmatch(name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
