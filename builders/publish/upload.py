"""One commit, or one pull request, that changes everything at once.

`HfApi.upload_folder` is not used: above 250 files, and after a failed commit of more than 20, it makes several commits
(huggingface_hub/_upload_pipeline.py), so a reader could see half a dataset. `create_commit` makes one, on a parent that
must still be the newest.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from builders.check.fault import visible
from builders.errors import UserError
from builders.publish.config import PublishConfig
from builders.publish.contents import Contents, LocalFile
from builders.publish.plan import Plan, make_plan
from builders.publish.remote import Remote, Repository, read_remote

_OUTSIDE_GIT = (".parquet", ".png", ".safetensors")
_IN_MEMORY_BYTES = 1024 * 1024


class TransferError(ConnectionError):
    """Xet could not send the files, after its own patience; its words are the message."""


def commit(contents: Contents, plan: Plan, remote: Remote, config: PublishConfig) -> tuple[str, str | None]:
    """Send what is new and commit it on `remote.head`; the commit's id, and the pull request's revision if asked for.

    Raises `UserError` where the folder changed meanwhile; nothing is committed then.
    """
    repo = remote.repo
    title = title_of(contents)
    if config.pr:
        proposed = _find_proposal(contents, repo, title)
        if proposed is not None:
            return proposed
    operations = [_addition(file) for file in plan.upload]
    where: dict[str, Any] = {"repo_id": repo.id, "repo_type": repo.type, "create_pr": config.pr}
    _send(repo, operations, where)
    for operation, file in zip(operations, plan.upload, strict=True):
        if operation.upload_info.sha256.hex() != file.sha256:
            raise UserError(f"{file.path} changed while it was being published; nothing was committed", "publish again")
    made = repo.api.create_commit(
        operations=[*operations, *(CommitOperationDelete(path, is_folder=False) for path in plan.remove)],
        commit_message=title,
        commit_description=_description_of(contents, config),
        parent_commit=remote.head,
        **where,
    )
    return made.oid, made.pr_revision if config.pr else None


def _send(repo: Repository, operations: list[CommitOperationAdd], where: dict[str, Any]) -> None:
    """Send the large files. Raises `TransferError` where Xet fails.

    It raises a plain `ConnectionError` where its store fails or refuses, and a plain `RuntimeError` where an answer is
    cut off; LFS wraps the error of its own client in a `RuntimeError`, which is left as it is.
    """
    try:
        repo.api.preupload_lfs_files(additions=operations, free_memory=False, **where)
    except (ConnectionError, RuntimeError) as error:
        if error.__cause__ is not None or type(error) not in (ConnectionError, RuntimeError):
            raise
        raise TransferError(visible(" ".join(str(error).split()))) from error


def title_of(contents: Contents) -> str:
    """The commit's first line; it names the content, so that the same content gives the same line."""
    n_sets = len(contents.set_names)
    what = "model" if contents.repo_type == "model" else f"{n_sets} description set{'s' if n_sets > 1 else ''}"
    return f"vl-dermnet publish: {what} ({contents.digest[:12]})"


def _description_of(contents: Contents, config: PublishConfig) -> str:
    lines = [f"sha256 of SHA256SUMS: {contents.digest}"]
    if contents.set_names:
        lines.insert(0, f"Description sets, the default first: {', '.join(contents.set_names)}")
    if contents.images:
        lines.append(f"Images are published by {config.rights_holder}, who states to hold the rights to them.")
    return "\n\n".join(lines)


def _addition(file: LocalFile) -> CommitOperationAdd:
    """Text is read once, here, so that its hash is that of what is sent; large files are hashed on their way."""
    if isinstance(file.source, Path) and (file.path.endswith(_OUTSIDE_GIT) or file.n_bytes > _IN_MEMORY_BYTES):
        return CommitOperationAdd(file.path, file.source)
    return CommitOperationAdd(file.path, file.read())


def _find_proposal(contents: Contents, repo: Repository, title: str) -> tuple[str, str] | None:
    """An open pull request of this account that proposes just this: left by an attempt whose answer was lost."""
    found = repo.api.get_repo_discussions(
        repo.id,
        repo_type=repo.type,
        author=repo.account["name"],
        discussion_type="pull_request",
        discussion_status="open",
    )
    for each in found:
        revision = f"refs/pr/{each.num}"
        if each.title == title:
            proposed = read_remote(repo, revision)
            if proposed is not None and make_plan(contents, proposed).is_empty:
                return proposed.head, revision
    return None
