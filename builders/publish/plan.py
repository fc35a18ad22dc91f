"""How a folder and its repository differ: what a commit would add, replace and remove, and what it keeps."""

from dataclasses import dataclass

from builders.dataset_folder import SPLITS
from builders.errors import UserError
from builders.join_images import some
from builders.publish.contents import Contents, LocalFile
from builders.publish.remote import OF_THE_HUB, Remote


@dataclass(frozen=True, slots=True)
class Plan:
    """What one commit does. `same` is there already; `kept` is somebody else's and stays.

    `not_ours` are those of the paths to replace or remove whose content nobody here wrote, or that were changed since.
    """

    add: tuple[LocalFile, ...]
    replace: tuple[LocalFile, ...]
    remove: tuple[str, ...]
    same: tuple[LocalFile, ...]
    kept: tuple[str, ...]
    not_ours: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the repository holds it all already."""
        return not (self.add or self.replace or self.remove)

    @property
    def upload(self) -> tuple[LocalFile, ...]:
        """Every file that is sent, in the order of the paths."""
        return tuple(sorted((*self.add, *self.replace), key=lambda file: file.path))

    @property
    def n_bytes(self) -> int:
        """Of all files that are sent: over Xet an upper limit, since chunks that the Hub knows are not sent again."""
        return sum(file.n_bytes for file in self.upload)


def make_plan(contents: Contents, remote: Remote | None) -> Plan:
    """Compare; nothing is changed. Without a repository everything is added.

    Only files that an earlier `publish` of a dataset has written, and that nobody has changed since, are removed.
    """
    if remote is None:
        return Plan(tuple(contents.files.values()), (), (), (), (), ())
    wanted = contents.files
    add = tuple(file for path, file in wanted.items() if path not in remote.files)
    same = tuple(file for file in wanted.values() if remote.holds(file))
    done = {file.path for file in (*add, *same)}
    replace = tuple(file for path, file in wanted.items() if path not in done)
    gone = [path for path in sorted(remote.written) if path in remote.files and path not in wanted]
    remove = tuple(gone) if contents.repo_type == "dataset" else ()
    kept = tuple(sorted(path for path in remote.files if path not in {*wanted, *remove, OF_THE_HUB}))
    not_ours = tuple(path for path in (*(file.path for file in replace), *remove) if not remote.is_ours(path))
    return Plan(add, replace, remove, same, kept, not_ours)


def check_plan(plan: Plan, contents: Contents, remote: Remote, overwrite: bool) -> None:
    """Raise `UserError` where the commit would undo somebody else's work, or would mix somebody else's rows in."""
    mixed = [path for path in plan.kept if _is_loaded_with(path, contents)]
    if mixed:
        raise UserError(
            f"{remote.repo.id} holds files that publish did not write, and load_dataset would take them for rows of"
            f" this dataset: {some(mixed)}",
            f"move them to another folder or repository: {remote.repo.url}/tree/main",
        )
    if plan.not_ours and not overwrite:
        raise UserError(
            f"{remote.repo.id} holds other versions of {len(plan.not_ours)} files, and no publish wrote them: "
            f"{some(list(plan.not_ours))}",
            f"save what is worth keeping of them ({remote.repo.url}/tree/main), then add --overwrite;"
            " the repository's history keeps them",
        )


def _is_loaded_with(path: str, contents: Contents) -> bool:
    """Whether a card's pattern `<set>/<split>-*` would catch the path."""
    return any(path.startswith(f"{name}/{split}-") for name in contents.set_names for split in SPLITS)
