"""The server: its state, what went through it, and what a test may make go wrong."""

import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.hub_server.access import Access
from tests.hub_server.cas.store import Store
from tests.hub_server.faults import Fault
from tests.hub_server.handler import Handler
from tests.hub_server.messages import Call
from tests.hub_server.repos import Repo
from tests.hub_server.repositories import revision_of
from tests.hub_server.storage import Storage


class HubServer(ThreadingHTTPServer):
    """Listens from `with` on. A test looks into `repos`, `calls`, `storage` and `cas`, and calls `fail`.

    `part_bytes` makes LFS uploads above it multipart. Without `knows_grants` and `knows_v2` Xet's store answers 404
    to the newer ways of uploading and asking, so that clients take the older ones.
    """

    daemon_threads = True

    def __init__(self, folder: Path, part_bytes: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cas = Store(folder / "cas")
        self.storage = Storage(folder, self.cas)
        self.access = Access()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.n_in_work = 0
        self.is_idle = threading.Condition()
        self.part_bytes = part_bytes
        self.knows_grants = self.knows_v2 = True

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or dropped is what a test asked for; say nothing."""

    @property
    def url(self) -> str:
        """For `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fail(
        self,
        route: str,
        what: int | str | Callable[[], object],
        first: int = 1,
        times: int = 1,
        headers: dict[str, str] | None = None,
    ) -> None:
        """From now on: `what` at calls `first` to `first + times - 1` of `route`; see `Fault`."""
        self.faults.append(Fault(route, what, first, times, headers or {}))

    def struck(self, route: str) -> Fault | None:
        """Count a call of `route` on every fault; the first one that hits."""
        with self.lock:
            return next(iter([fault for fault in self.faults if fault.strikes(route)]), None)

    def settle(self) -> None:
        """Wait until every call that has arrived is done: the server goes on when its client was killed."""
        with self.is_idle:
            assert self.is_idle.wait_for(lambda: self.n_in_work == 0, timeout=60)

    def forget_contents(self) -> None:
        """Nothing large is here any more: the same files are sent as if they were new. No repository can be read."""
        with self.lock:
            self.cas.clear()
            for path in self.storage.lfs.iterdir():
                path.unlink()

    def dataset(self, repo_id: str) -> Repo:
        """A dataset repository, for a test to look into."""
        return self.repos["dataset", repo_id]

    def read(self, repo_id: str, revision: str = "main", repo_type: str = "dataset") -> dict[str, bytes]:
        """Every file of a repository at a revision, but the Hub's own."""
        repo = self.repos[repo_type, repo_id]
        tree = revision_of(repo, revision).tree
        return {path: self.content(repo, path, revision) for path in sorted(tree) if path != ".gitattributes"}

    def content(self, repo: Repo, path: str, revision: str = "main") -> bytes:
        """One file's bytes, wherever they are."""
        entry = revision_of(repo, revision).tree[path]
        if entry.content is not None:
            return entry.content
        assert entry.sha256 is not None
        return self.storage.path_of(entry.sha256, entry.xet_hash).read_bytes()
