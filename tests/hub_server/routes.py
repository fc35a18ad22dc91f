"""Which function answers which path; a fault is told by the name."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.hub_server import accounts, commits, download, lfs, pull_requests, refs, repositories, trees, xet
from tests.hub_server.cas import downloads, uploads
from tests.hub_server.messages import RefusalError, Reply, Request

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

Act = Callable[["HubServer", Request], Reply]

_API = r"/api/(?P<type>dataset|model|space)s/(?P<namespace>[^/]+)/(?P<name>[^/]+)"
_FILES = r"/(?:(?P<type>dataset|space)s/)?(?P<namespace>[^/]+)/(?P<name>[^/]+?)"
_REVISION = r"/(?P<revision>[^/]+)"
_XORB = r"/default/(?P<hash>[0-9a-f]{64})"

# name -> (methods, pattern of the raw path, function)
ROUTES: dict[str, tuple[str, str, Act]] = {
    "whoami": ("GET", r"/api/whoami-v2", accounts.whoami),
    "validate-yaml": ("POST", r"/api/validate-yaml", repositories.validate_yaml),
    "create": ("POST", r"/api/repos/create", repositories.create),
    "delete": ("DELETE", r"/api/repos/delete", repositories.delete),
    "settings": ("PUT", rf"{_API}/settings", repositories.change_settings),
    "auth-check": ("GET", rf"{_API}/auth-check(?P<write>/write)?", repositories.auth_check),
    "preupload": ("POST", rf"{_API}/preupload{_REVISION}", commits.preupload),
    "commit": ("POST", rf"{_API}/commit{_REVISION}", commits.commit),
    "commits": ("GET", rf"{_API}/commits{_REVISION}", refs.list_commits),
    "refs": ("GET", rf"{_API}/refs", refs.list_refs),
    "tag": ("POST", rf"{_API}/tag{_REVISION}", refs.create_tag),
    "delete-tag": ("DELETE", rf"{_API}/tag{_REVISION}", refs.delete_tag),
    "branch": ("POST", rf"{_API}/branch{_REVISION}", refs.create_branch),
    "squash": ("POST", rf"{_API}/super-squash{_REVISION}", refs.squash),
    "discussions": ("GET", rf"{_API}/discussions", pull_requests.list_all),
    "discuss": ("POST", rf"{_API}/discussions", pull_requests.create),
    "discussion": ("GET", rf"{_API}/discussions/(?P<number>\d+)", pull_requests.details),
    "merge": ("POST", rf"{_API}/discussions/(?P<number>\d+)/merge", pull_requests.merge),
    "tree": ("GET", rf"{_API}/tree{_REVISION}(?:/(?P<path>.*))?", trees.list_tree),
    "paths-info": ("POST", rf"{_API}/paths-info{_REVISION}", trees.paths_info),
    "xet-read-token": ("GET", rf"{_API}/xet-(?P<kind>read)-token{_REVISION}", xet.token),
    "xet-write-token": ("GET", rf"{_API}/xet-(?P<kind>write)-token{_REVISION}", xet.token),
    "chunk": ("GET", r"/v1/chunks/(?P<prefix>[^/]+)/(?P<hash>[0-9a-f]{64})", uploads.chunk),
    "xorb-grant": ("POST", rf"/v1/xorb-grants{_XORB}", uploads.grant),
    "xorb-put": ("PUT", r"/xorb-uploads/(?P<grant>[0-9a-f]{32})", uploads.put),
    "xorb-commit": ("POST", rf"/v1/xorb-commits{_XORB}/grant/(?P<grant>[0-9a-f]{{32}})", uploads.commit),
    "xorb-post": ("POST", rf"/v1/xorbs{_XORB}", uploads.post_xorb),
    "shard": ("POST", r"/v(?P<version>[12])/shards", uploads.post_shard),
    "reconstruction": (
        "GET",
        r"/v(?P<version>[12])/reconstructions/(?P<hash>[0-9a-f]{64})",
        downloads.reconstruction,
    ),
    "xorb-get": ("GET", r"/xorb-downloads/(?P<hash>[0-9a-f]{64})", downloads.get_xorb),
    "telemetry": ("POST", r"/v1/telemetry", uploads.telemetry),
    "info": ("GET", rf"{_API}(?:/revision{_REVISION})?", repositories.info),
    "lfs-batch": ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", lfs.batch),
    "lfs-put": ("PUT", r"/lfs/(?P<sha256>[0-9a-f]{64})", lfs.put),
    "lfs-part": ("PUT", r"/lfs/(?P<sha256>[0-9a-f]{64})/(?P<number>\d+)", lfs.put_part),
    "lfs-complete": ("POST", r"/lfs/(?P<sha256>[0-9a-f]{64})/complete", lfs.complete),
    "lfs-verify": ("POST", r"/lfs/verify", lfs.verify),
    "resolve": ("GET HEAD", rf"{_FILES}/resolve{_REVISION}/(?P<path>.+)", download.resolve),
}


def find_route(method: str, path: str) -> tuple[str, Act, dict[str, str | None]]:
    """The route's name and function, and what its pattern caught."""
    for name, (methods, pattern, act) in ROUTES.items():
        found = re.fullmatch(pattern, path) if method in methods.split() else None
        if found:
            return name, act, found.groupdict()
    return "nowhere", _nowhere, {}


def _nowhere(server: "HubServer", request: Request) -> Reply:
    raise RefusalError(404, f"no such route: {request.method} {request.path}")
