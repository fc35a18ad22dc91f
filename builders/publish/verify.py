"""Read back what was published: the hashes that the Hub states of large files, every byte of small ones."""

import hashlib

from builders.errors import UserError
from builders.join_images import some
from builders.publish.contents import Contents
from builders.publish.remote import Remote


def verify(contents: Contents, published: Remote) -> None:
    """Raise `UserError` unless every file is there, whole, at the commit `published`."""
    wrong: list[str] = []
    for path, file in contents.files.items():
        there = published.files.get(path)
        if there is None or there.n_bytes != file.n_bytes:
            wrong.append(path)
            continue
        stated = there.sha256 or hashlib.sha256(published.repo.read(path, published.head)).hexdigest()
        if stated != file.sha256:
            wrong.append(path)
    if wrong:
        raise UserError(
            f"commit {published.head} of {published.repo.id} is there, but {len(wrong)} files in it are missing or have"
            f" other bytes than {contents.folder}: {some(wrong)}",
            f"look at {published.repo.url}/commit/{published.head}; a .gitignore there may keep files out."
            " Then publish again",
        )
