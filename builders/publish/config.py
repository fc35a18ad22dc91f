"""What `publish` is asked for, and which wishes do not go together."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from builders.errors import UserError

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PublishConfig(BaseModel):
    """What goes where. A repository that is made is private, unless `public`.

    `folder` is a dataset folder or a model folder, `repo_id` OWNER/NAME. `gated` lets people in one by one, after they
    have shared their name; `pr` proposes instead of committing; `tag` names the commit. `rights_holder` is who states
    to hold the rights to the images in the folder, and is written into the commit. `overwrite` allows to replace
    files that somebody else has put into the repository under a name that is needed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    repo_id: str
    public: bool = False
    gated: bool = False
    pr: bool = False
    tag: str | None = None
    rights_holder: str | None = None
    overwrite: bool = False


def check_wishes(config: PublishConfig) -> None:
    """Raise `UserError` where the wishes cannot all be granted, before anything is read or sent."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(config.repo_id)
    except HFValidationError as error:
        raise UserError(f"'{config.repo_id}' cannot name a repository: {error}") from error
    if config.repo_id.count("/") != 1:
        raise UserError(
            f"'{config.repo_id}' does not say whose repository it is",
            f"OWNER/{config.repo_id}, OWNER being your account",
        )
    if config.gated and not config.public:
        raise UserError(
            "--gated asks people to share their name before they may read a public repository; a private one lets in"
            " nobody but its owners",
            "add --public, or leave out --gated",
        )
    if config.pr and (config.gated or config.tag is not None):
        raise UserError(
            "--pr only proposes a change: it cannot gate or tag the repository",
            "leave out --gated and --tag, and publish with them once the pull request is merged",
        )
    if config.tag is not None and (not _TAG.fullmatch(config.tag) or config.tag in ("main", "HEAD")):
        raise UserError(f"'{config.tag}' cannot be a tag: use letters, digits, '.', '_' and '-', like v1.0")
    if config.rights_holder is not None and not _is_a_name(config.rights_holder):
        raise UserError(
            f"--i-have-the-rights needs the name of a person or institution in one line, not '{config.rights_holder}'",
            '--i-have-the-rights "Dermatology Department, Example Hospital"',
        )


def _is_a_name(text: str) -> bool:
    return text.isprintable() and any(letter.isalpha() for letter in text) and len(text) <= 200
