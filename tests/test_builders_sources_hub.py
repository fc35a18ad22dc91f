"""Sources on the Hub, against a small stand-in on loopback: one commit for all, read from the cache, mistakes named.

What runs against it runs in a process of its own, because huggingface_hub reads its environment when it is imported.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders.errors import UserError
from builders.index import stale_paths
from builders.schema import IndexRow, image_id_of
from builders.sources import open_source, pinned
from builders.sources.kinds import is_on_hub

OLD, NEW = "a" * 40, "b" * 40  # commits


def photo(shade):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


PHOTOS = {"train/x/a.png": photo(1), "train/y/b.png": photo(2), "test/x/c.png": photo(3)}


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in PHOTOS.items():
            archive.writestr(path, content)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path, content in PHOTOS.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def tables():
    shards = {}
    for split in ("train", "test"):
        chosen = {path: content for path, content in PHOTOS.items() if path.startswith(split)}
        images = [{"bytes": content, "path": path.rpartition("/")[2]} for path, content in chosen.items()]
        table = pa.table({"image": images, "label": [path.split("/")[1] for path in chosen]})
        file = io.BytesIO()
        pq.write_table(table, file)
        shards[f"tables/{split}-00000-of-00001.parquet"] = file.getvalue()
    return shards


class StandIn:
    """So much of the Hub as reading a dataset needs; `repositories` maps id -> commit -> path -> bytes.

    `main` is what a branch means, changed to `main_after` once it was asked. `gated` and `failing` files are refused.
    """

    def __init__(self, repositories):
        self.repositories = repositories
        self.main, self.main_after = OLD, OLD
        self.gated, self.failing = set(), set()
        self.asked = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path):
        """Status, headers, body."""
        self.asked.append(path)
        kind, _, rest = path.removeprefix("/").partition("datasets/")
        owner, name, *words = rest.split("/")
        repository = self.repositories.get(f"{owner}/{name}")
        if repository is None:
            return _error(404, "RepoNotFound")
        if kind == "api/" and words[:1] in ([], ["revision"]):
            revision = unquote(words[1]) if words else "main"
            commit = self.main if revision in ("main", "a/branch") else revision
            self.main = self.main_after
            if commit not in repository:
                return _error(404, "RevisionNotFound")
            return _json({"id": f"{owner}/{name}", "sha": commit, "siblings": []})
        commit = unquote(words[1])
        if commit not in repository:
            return _error(404, "RevisionNotFound")
        if kind == "api/":
            return _json(
                [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in repository[commit].items()
                ]
            )
        if f"{owner}/{name}" in self.gated:
            return _error(403, "GatedRepo")
        file = unquote("/".join(words[2:]))
        if file in self.failing:
            return _error(500, "")
        content = repository[commit].get(file)
        if content is None:
            return _error(404, "EntryNotFound")
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, content

    def _handler(self):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # its name in http.server
                status, headers, body = stand_in.answer(urlsplit(self.path).path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815  # its name in http.server

            def log_message(self, *_):
                """Say nothing."""

        return Handler


def _json(value):
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _error(status, code):
    return status, {"X-Error-Code": code, "X-Error-Message": "no"}, b"{}"


@pytest.fixture
def hub():
    repositories = {
        "me/photos": {OLD: {".gitattributes": b"", "README.md": b"#", **PHOTOS}, NEW: dict.fromkeys(PHOTOS, photo(9))},
        "me/archives": {OLD: {"zip/photos.zip": zipped(), "tar/photos.tar": tarred(), **tables()}},
        "me/gated": {OLD: PHOTOS},
        "me/evil": {OLD: {"../evil.png": b"1"}},
        "me/texts": {OLD: {"texts.csv": b"1"}},
    }
    stand_in = StandIn(repositories)
    stand_in.gated = {"me/gated"}
    yield stand_in
    stand_in.close()


@pytest.fixture
def on_hub(hub, tmp_path):
    """A function that runs Python code in a process that takes the stand-in for the Hub, and gives what it prints."""

    def run(code, *arguments, **environment):
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "0",
        }
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *arguments],
            env=os.environ | settings | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        run.said = ended.stderr
        return ended.stdout

    return run


READ_ALL = """
import sys
from builders.sources import open_source
for address in sys.argv[1:]:
    with open_source(address) as source:
        print({path: source.read(path) for path in source.paths()})
"""

IMPATIENT = """
import time
time.sleep = lambda seconds: None  # huggingface_hub tries five times, and waits longer each time
"""
EXPLAIN = """
import sys
from builders.errors import UserError
from builders.sources import open_source
for address in sys.argv[1:]:
    try:
        with open_source(address) as source:
            paths = list(source.paths())
            for path in paths:
                source.read(path)
        print("read" if paths else "no image")
    except UserError as error:
        print(error)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """This process reads, offline, what the others have fetched."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))


def test_every_kind_of_file_on_the_hub_gives_the_same_photographs(on_hub):
    archives = "hf://datasets/me/archives@main"
    printed = on_hub(
        READ_ALL,
        "hf://datasets/me/photos",
        "hf:/datasets/me/photos@a%2Fbranch",  # as a Path writes it
        f"{archives}/zip",
        f"{archives}/zip/photos.zip",
        f"{archives}/tar",
        f"{archives}/tables",
    )
    in_order = {path: PHOTOS[path] for path in sorted(PHOTOS)}
    assert printed.splitlines() == [repr(in_order)] * 6


def test_images_that_are_files_of_their_own_are_fetched_without_a_word(on_hub):
    on_hub(READ_ALL, "hf://datasets/me/photos")
    assert on_hub.said == ""


def test_a_folder_of_a_dataset_is_a_root_of_its_own(on_hub):
    printed = on_hub(
        READ_ALL, "hf://datasets/me/photos/train/", "hf://datasets/me/archives/tables/test-00000-of-00001.parquet"
    )
    assert printed.splitlines() == [
        repr({"x/a.png": PHOTOS["train/x/a.png"], "y/b.png": PHOTOS["train/y/b.png"]}),
        repr({"test/x/c.png": PHOTOS["test/x/c.png"]}),
    ]


def test_workers_read_the_commit_that_was_there_at_the_beginning(hub, on_hub):
    hub.main_after = NEW
    printed = on_hub(
        "from builders.index import index_images\n"
        "if __name__ == '__main__':\n"
        "    print(*(row.image_sha256 for row in index_images('hf://datasets/me/photos', n_workers=2)))"
    )
    assert printed.split() == [hashlib.sha256(PHOTOS[path]).hexdigest() for path in sorted(PHOTOS)]
    asked_for_main = [path for path in hub.asked if path == "/api/datasets/me/photos"]
    asked_for_files = [path for path in hub.asked if "/tree/" in path]
    assert (len(asked_for_main), len(asked_for_files)) == (1, 1)


def test_what_was_fetched_is_read_offline(hub, on_hub, cache):
    on_hub(READ_ALL, "hf://datasets/me/photos", "hf://datasets/me/archives/tar")
    hub.close()
    assert pinned("hf://datasets/me/photos") == f"hf://datasets/me/photos@{OLD}"
    assert pinned(f"hf://datasets/me/photos@{OLD}/train") == f"hf://datasets/me/photos@{OLD}/train"
    with open_source("hf://datasets/me/photos") as source:
        assert source.name == f"hf://datasets/me/photos@{OLD}"
        assert {path: source.read(path) for path in source.paths()} == PHOTOS
        assert [source.size(path) for path in PHOTOS] == [len(content) for content in PHOTOS.values()]
        assert all(abs(source.modified_ns(path) - time.time_ns()) < 60e9 for path in PHOTOS)
        with pytest.raises(FileNotFoundError):
            source.read("README.txt")
    with open_source(f"hf://datasets/me/archives@{OLD}/tar/photos.tar") as source:
        assert {path: source.read(path) for path in source.paths()} == PHOTOS
    with pytest.raises(UserError, match=r"^HF_HUB_OFFLINE is set, and hf://.*/me/other is not in the cache"):
        pinned("hf://datasets/me/other")
    with pytest.raises(
        UserError, match=r"^HF_HUB_OFFLINE is set, and hf://.*/zip is not in the cache, or not all of it"
    ):
        open_source(f"hf://datasets/me/archives@{OLD}/zip")


def test_only_images_that_came_later_are_stale(hub, on_hub, cache):
    on_hub(READ_ALL, "hf://datasets/me/photos/train")
    made_at_ns = time.time_ns()
    known = [
        IndexRow(image_id_of(path), "", path, "", "", 0, 0, len(content), "", "ok", "")
        for path, content in PHOTOS.items()
    ]
    with open_source(f"hf://datasets/me/photos@{OLD}") as source:
        assert stale_paths(source, sorted(PHOTOS), known, made_at_ns) == ["test/x/c.png"]
    on_hub(READ_ALL, f"hf://datasets/me/photos@{NEW}")
    with open_source(f"hf://datasets/me/photos@{NEW}") as source:
        assert stale_paths(source, sorted(PHOTOS), known, made_at_ns) == sorted(PHOTOS)


def test_mistakes_are_named(on_hub):
    photos = f"hf://datasets/me/photos@{OLD}"
    wanted = {
        "hf://datasets/me/absent": (
            "the Hub has no dataset hf://datasets/me/absent, or this account may not read it"
            " | check the name; hf auth login"
        ),
        "hf://datasets/me/photos@v9": "the Hub has the dataset but not the revision of hf://datasets/me/photos@v9",
        "hf://datasets/me/gated": (
            f"hf://datasets/me/gated@{OLD} is gated | accept its terms on its page on the Hub, then: hf auth login"
        ),
        "hf://datasets/me/evil": (
            f"hf://datasets/me/evil@{OLD} holds the entry '../evil.png', which would leave its root; nothing was read"
        ),
        f"{photos}/nothing": f"there is no file or folder 'nothing' in {photos}/nothing | hf datasets ls me/photos",
        f"{photos}/../x": f"there is no file or folder '../x' in {photos}/../x | hf datasets ls me/photos",
        f"{photos}/README.md": (
            f"cannot read images from {photos}/README.md: it is neither a folder nor a .zip, .parquet or .tar file"
        ),
        "hf://datasets/me/archives": (
            f"hf://datasets/me/archives@{OLD} holds tables/test-00000-of-00001.parquet and tar/photos.tar: which one?"
            f" | hf://datasets/me/archives@{OLD}/tables/test-00000-of-00001.parquet"
        ),
        "hf://datasets/me": (
            "cannot read the address hf://datasets/me: Repository id must be 'namespace/name', got 'me'."
            " | hf://datasets/OWNER/NAME, with @REVISION and /FOLDER behind it where wanted"
        ),
        "hf://me/model": (
            "hf://me/model is the address of a model, not of a dataset"
            " | hf://datasets/OWNER/NAME, with @REVISION and /FOLDER behind it where wanted"
        ),
        "hf://datasets/me/texts": "no image",
    }
    printed = on_hub(EXPLAIN, *wanted).replace("\n  fix: ", " | ")
    assert printed.splitlines() == list(wanted.values())


def test_a_hub_that_fails_is_no_broken_image(hub, on_hub):
    address = f"hf://datasets/me/photos@{OLD}"
    hub.failing = {"test/x/c.png"}
    assert on_hub(IMPATIENT + EXPLAIN, address).startswith(
        f"cannot reach the Hub for {address}: HfHubHTTPError: Server error '500"
    )
    hub.close()
    reached = on_hub(IMPATIENT + EXPLAIN, address, "hf://datasets/me/other").splitlines()[::2]
    assert reached == [
        f"cannot reach the Hub for {address}: ConnectError: [Errno 111] Connection refused",
        "cannot reach the Hub for hf://datasets/me/other: ConnectError: [Errno 111] Connection refused",
    ]


def test_addresses_are_told_from_folders():
    assert is_on_hub("hf://datasets/me/photos")
    assert not is_on_hub("photos/hf://datasets")
