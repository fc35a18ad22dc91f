"""What surrounds the commit: the repository itself, who may read it, and its tags."""

from builders.errors import UserError
from builders.publish.config import PublishConfig
from builders.publish.plan import Plan
from builders.publish.remote import Remote, Repository, commit_of, read_remote


def check_token(repo: Repository) -> None:
    """Raise `UserError` where the Hub says that the token can only read; of finer rights only a refusal tells."""
    role = repo.account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError(
            f"the access token of '{repo.account['name']}' may only read",
            "make one with the right to write on https://huggingface.co/settings/tokens, then: hf auth login --force",
        )


def create(repo: Repository) -> Remote:
    """A new repository, private until all of it is there and read back."""
    repo.api.create_repo(repo.id, repo_type=repo.type, visibility="private", exist_ok=True)
    made = read_remote(repo)
    if made is None:
        raise UserError(f"{repo.id} exists, and this account may not see it", "publish under another name")
    return made


def check_settings(remote: Remote | None, plan: Plan, config: PublishConfig) -> None:
    """Raise `UserError` where something would become public, stay closed or get a name against the wish."""
    if remote is None:
        if config.pr:
            raise UserError(
                f"there is no repository {config.repo_id} to propose a pull request to, or this account may not see it",
                "publish without --pr first, or check the name",
            )
        return
    if not remote.is_private and not config.public:
        raise UserError(
            f"{config.repo_id} is public, so everybody can read at once what is published there",
            "add --public if that is meant, else choose another repository",
        )
    if config.pr and config.public and remote.is_private:
        raise UserError(f"{config.repo_id} is private, and --pr cannot make it public", "leave out --public")
    if config.tag is not None:
        tagged = commit_of(remote.repo, config.tag)
        if tagged is not None and (tagged != remote.head or not plan.is_empty):
            raise _tag_is_taken(config.repo_id, config.tag, tagged)


def gate(remote: Remote, config: PublishConfig) -> None:
    """Before anything new is in a public repository: let people in only after they have shared their name."""
    if config.gated and not remote.is_private and not remote.is_gated:
        remote.repo.api.update_repo_settings(config.repo_id, repo_type=remote.repo.type, gated="auto")


def open_door(remote: Remote, config: PublishConfig) -> None:
    """After everything was read back: make a private repository public, and gated in the same moment."""
    if config.public and remote.is_private:
        gated = "auto" if config.gated else None
        remote.repo.api.update_repo_settings(
            config.repo_id, repo_type=remote.repo.type, visibility="public", gated=gated
        )


def set_tag(repo: Repository, tag: str, commit: str) -> None:
    """Name the commit; a tag that names it already is left, one that names another is never moved."""
    if commit_of(repo, tag) is None:
        repo.api.create_tag(repo.id, tag=tag, revision=commit, repo_type=repo.type, exist_ok=True)
    tagged = commit_of(repo, tag)
    if tagged != commit:
        raise _tag_is_taken(repo.id, tag, str(tagged))


def _tag_is_taken(repo_id: str, tag: str, tagged: str) -> UserError:
    return UserError(
        f"{repo_id} has a tag '{tag}' already, on commit {tagged[:12]}; tags are never moved", "choose another --tag"
    )
