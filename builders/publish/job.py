"""Publish a folder: look at the repository, send what is new in one commit, read it back, name it, open the door."""

from collections.abc import Callable
from dataclasses import dataclass

from builders.errors import UserError
from builders.join_images import some
from builders.publish.config import PublishConfig, check_wishes
from builders.publish.contents import Contents, read_contents
from builders.publish.patience import patiently
from builders.publish.plan import Plan, check_plan, make_plan
from builders.publish.remote import Remote, Repository, open_repository, read_remote
from builders.publish.settings import check_settings, check_token, create, gate, open_door, set_tag
from builders.publish.upload import commit
from builders.publish.verify import verify


@dataclass(frozen=True, slots=True)
class Published:
    """What was published, where. `n_new_bytes` are those of the files sent; 0 files if all was there already.

    `pull_request` is its page, with `--pr`. `load` is the line of Python that loads it.
    """

    repo_id: str
    repo_type: str
    url: str
    commit: str
    tag: str | None
    pull_request: str | None
    is_private: bool
    n_files_sent: int
    n_files_removed: int
    n_files_kept: int
    n_new_bytes: int
    load: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What `publish` would do. `files` are (what becomes of it, path, bytes to send), in the order of the paths."""

    repo_id: str
    repo_type: str
    is_there: bool
    is_private: bool
    files: tuple[tuple[str, str, int], ...]
    n_new_bytes: int
    n_total_bytes: int


def publish(config: PublishConfig, say: Callable[[str], object] = lambda _: None) -> Published:
    """Publish `config.folder`; the repository is whole-old or whole-new at every moment, whatever happens.

    `say` is told what is waited for. Raises `UserError` on a folder that is damaged or holds images without
    `rights_holder`, on wishes that do not go together, and where the account may not do it.
    """
    contents = _checked_contents(config, say)
    repo = open_repository(config.repo_id, contents.repo_type)
    return patiently(lambda: _attempt(contents, repo, config), repo, say)


def preview(config: PublishConfig, say: Callable[[str], object] = lambda _: None) -> Preview:
    """What `publish` would do with the same `config`; refuses what it would refuse, and changes nothing."""
    contents = _checked_contents(config, say)
    repo = open_repository(config.repo_id, contents.repo_type, anonymous=True)
    return patiently(lambda: _look(contents, repo, config), repo, say)


def _attempt(contents: Contents, repo: Repository, config: PublishConfig) -> Published:
    """One go from the beginning; after a failed one it finds what that has left and does the rest."""
    check_token(repo)
    remote = read_remote(repo)
    plan = _plan(contents, remote, config)
    if remote is None:
        remote = create(repo)
        plan = _plan(contents, remote, config)
    gate(remote, config)
    made, proposal = (remote.head, None) if plan.is_empty else commit(contents, plan, remote, config)
    published = read_remote(repo, proposal or made)
    if published is None:
        raise UserError(f"{repo.id} is gone: somebody removed it while it was being published", "publish again")
    verify(contents, published)
    if config.tag is not None:
        set_tag(repo, config.tag, made)
    open_door(remote, config)
    return Published(
        repo_id=repo.id,
        repo_type=repo.type,
        url=repo.url,
        commit=made,
        tag=config.tag,
        pull_request=f"{repo.url}/discussions/{proposal.rsplit('/', 1)[1]}" if proposal else None,
        is_private=remote.is_private and not config.public,
        n_files_sent=len(plan.upload),
        n_files_removed=len(plan.remove),
        n_files_kept=len(plan.kept),
        n_new_bytes=plan.n_bytes,
        load=_load_line(repo, proposal or config.tag),
    )


def _look(contents: Contents, repo: Repository, config: PublishConfig) -> Preview:
    remote = read_remote(repo)
    plan = _plan(contents, remote, config)
    return Preview(
        repo_id=repo.id,
        repo_type=repo.type,
        is_there=remote is not None,
        is_private=not config.public and (remote is None or remote.is_private),
        files=_fates(plan),
        n_new_bytes=plan.n_bytes,
        n_total_bytes=sum(file.n_bytes for file in contents.files.values()),
    )


def _plan(contents: Contents, remote: Remote | None, config: PublishConfig) -> Plan:
    """What to do to the repository, if it may be done."""
    plan = make_plan(contents, remote)
    check_settings(remote, plan, config)
    if remote is not None:
        check_plan(plan, contents, remote, config.overwrite)
    return plan


def _checked_contents(config: PublishConfig, say: Callable[[str], object]) -> Contents:
    """What the folder holds, if it may be published as it was asked for."""
    check_wishes(config)
    contents = read_contents(config.folder)
    _check_rights(contents, config)
    _check_card(contents, config, say)
    return contents


def _check_card(contents: Contents, config: PublishConfig, say: Callable[[str], object]) -> None:
    """Raise `UserError` where the card sends its readers to another repository; say where it names none."""
    named, again = contents.card_repo_id, f"build it again with --repo {config.repo_id}"
    if named and named != config.repo_id:
        raise UserError(
            f"the card of {contents.folder} tells its readers to load {named}, not {config.repo_id}",
            f"{again}; or publish it as {named}",
        )
    if named == "":
        say(f"its card names no repository and says OWNER/NAME where readers look for {config.repo_id}: {again}")


def _check_rights(contents: Contents, config: PublishConfig) -> None:
    if contents.images and config.rights_holder is None:
        raise UserError(
            f"{contents.folder} holds images, in {len(contents.images)} of its files: {some(list(contents.images))};"
            " to publish them is to pass them on, and most collections do not allow it",
            'build without --with-images; or, if you hold the rights: --i-have-the-rights "YOUR NAME"',
        )


def _fates(plan: Plan) -> tuple[tuple[str, str, int], ...]:
    fates = [("add", file.path, file.n_bytes) for file in plan.add]
    fates += [("replace", file.path, file.n_bytes) for file in plan.replace]
    fates += [("remove", path, 0) for path in plan.remove]
    fates += [("same", file.path, 0) for file in plan.same]
    fates += [("keep", path, 0) for path in plan.kept]
    return tuple(sorted(fates, key=lambda fate: fate[1]))


def _load_line(repo: Repository, revision: str | None) -> str:
    at = "" if revision is None else f", revision={revision!r}"
    if repo.type == "model":
        return f"huggingface_hub.snapshot_download({repo.id!r}{at})"
    return f"datasets.load_dataset({repo.id!r}{at})"
