"""Routes of pull requests: open, list, look at, merge."""

from typing import TYPE_CHECKING, Any

from tests.hub_server.messages import RefusalError, Reply, Request, answer
from tests.hub_server.repos import Commit, PullRequest, Repo, now
from tests.hub_server.repositories import repo_of

if TYPE_CHECKING:
    from tests.hub_server.server import HubServer

_PAGE = 10


def open_with(repo: Repo, commit: Commit, title: str, author: str, status: str) -> PullRequest:
    """A new pull request whose branch stands at `commit`."""
    made = PullRequest(len(repo.pull_requests) + 1, title, author, commit.oid, status, now())
    repo.pull_requests.append(made)
    return made


def create(server: "HubServer", request: Request) -> Reply:
    """An empty draft, to be committed to."""
    repo = server.access.check_writes(request, repo_of(server, request), pull_request=True)
    account = server.access.account(request)
    with server.lock:
        made = open_with(repo, repo.head, request.json()["title"], account.name if account else "", "draft")
    return answer({"num": made.number})


def list_all(server: "HubServer", request: Request) -> Reply:
    """Pages of pull requests, by author and status."""
    repo = server.access.check_sees(request, repo_of(server, request))
    asked = request.query
    fitting = [
        each
        for each in repo.pull_requests
        if asked.get("author", each.author) == each.author
        and (asked.get("status", "all") == "all" or (asked["status"] == "open") == (each.status in ("open", "draft")))
    ]
    start = _PAGE * int(asked.get("p", 0))
    page = fitting[start : start + _PAGE]
    return answer(
        {"discussions": [_summary(repo, each) for each in page], "count": len(fitting), "start": start},
    )


def details(server: "HubServer", request: Request) -> Reply:
    """One pull request."""
    repo = server.access.check_sees(request, repo_of(server, request))
    found = _numbered(repo, int(request.parts["number"]))
    more = {"events": [], "filesWithConflicts": False, "changes": {"base": "refs/heads/main"}, "diffUrl": ""}
    return answer({**_summary(repo, found), **more})


def merge(server: "HubServer", request: Request) -> Reply:
    """Let `main` take over what the pull request changed."""
    repo = server.access.check_writes(request, repo_of(server, request))
    found = _numbered(repo, int(request.parts["number"]))
    with server.lock:
        proposed = repo.commits[found.head]
        merged = repo.add(repo.head.oid, proposed.tree, f"{found.title} (#{found.number})", author=found.author)
        repo.branches["main"] = merged.oid
        found.status = "merged"
    return answer({"newStatus": "merged"})


def _numbered(repo: Repo, number: int) -> PullRequest:
    if not 0 < number <= len(repo.pull_requests):
        raise RefusalError(404, f"no discussion {number}")
    return repo.pull_requests[number - 1]


def _summary(repo: Repo, each: PullRequest) -> dict[str, Any]:
    return {
        "num": each.number,
        "title": each.title,
        "author": {"name": each.author},
        "createdAt": each.date,
        "status": each.status,
        "isPullRequest": True,
        "repo": {"name": repo.id, "type": repo.type},
    }
