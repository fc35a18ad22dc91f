"""Who asks, and what they may: tokens, namespaces, private and gated repositories."""

from dataclasses import dataclass, field

from tests.hub_server.messages import RefusalError, Request
from tests.hub_server.repos import Repo


@dataclass(frozen=True, slots=True)
class Account:
    """A user behind one token; `role` is the token's: `read` or `write`."""

    name: str
    role: str = "write"
    organisations: tuple[str, ...] = ()

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where this user may create and write."""
        return (self.name, *self.organisations)


ACCOUNTS = {
    "hf_write_of_me": Account("me", organisations=("clinic",)),
    "hf_read_of_me": Account("me", role="read", organisations=("clinic",)),
    "hf_write_of_you": Account("you"),
}


@dataclass(slots=True)
class Access:
    """The rules. `granted` holds (repository id, user) pairs that passed a gate."""

    accounts: dict[str, Account] = field(default_factory=lambda: dict(ACCOUNTS))
    granted: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def account(self, request: Request) -> Account | None:
        """Who asks; None for a stranger. An unknown token is refused wherever it is shown, as the Hub does."""
        if not request.token:
            return None
        if request.token not in self.accounts:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return self.accounts[request.token]

    def check_namespace(self, request: Request, namespace: str) -> Account:
        """Raise unless the asker may create repositories in `namespace`."""
        account = self.account(request)
        if account is None:
            raise RefusalError(401, "Invalid username or password.")
        if account.role != "write" or namespace not in account.namespaces:
            raise RefusalError(403, f'You don\'t have the rights to create a dataset under the namespace "{namespace}"')
        return account

    def check_sees(self, request: Request, repo: Repo | None) -> Repo:
        """Raise unless the asker may know that the repository exists: lists and settings, of gated ones too."""
        account = self.account(request)
        if repo is None or (repo.is_private and (account is None or repo.namespace not in account.namespaces)):
            raise RefusalError(401 if account is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def check_reads(self, request: Request, repo: Repo | None) -> Repo:
        """Raise unless the asker may read the files."""
        repo = self.check_sees(request, repo)
        account = self.account(request)
        inside = account is not None and repo.namespace in account.namespaces
        if repo.gated and not inside and (account is None or (repo.id, account.name) not in self.granted):
            message = f"Access to dataset {repo.id} is restricted."
            raise RefusalError(401 if account is None else 403, message, "GatedRepo")
        return repo

    def check_writes(self, request: Request, repo: Repo | None, pull_request: bool = False) -> Repo:
        """Raise unless the asker may commit; anybody who is somebody may propose a pull request."""
        repo = self.check_sees(request, repo)
        account = self.account(request)
        if account is None:
            raise RefusalError(401, "Invalid username or password.")
        if account.role != "write":
            raise RefusalError(403, "You must use a write token to do this")
        if repo.namespace not in account.namespaces and not pull_request:
            raise RefusalError(403, f"You don't have the required permissions on {repo.id}")
        return repo
