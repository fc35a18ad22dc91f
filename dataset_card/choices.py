"""What no shard can tell and a person decides: name, licence, source, where it is published, whom to write to."""

import re
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builders.card_mark import card_mark, read_card_mark
from builders.errors import UserError

CARD_VERSION = 4  # raised when the same dataset would get another card
PRETTY_NAME = "Machine descriptions of dermatology photographs"
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


class CardLicense(BaseModel):
    """The YAML's `license`, and for `other` its name (lower case, no spaces) and the address of its text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    license: str = "other"
    name: str | None = "not-yet-decided"
    link: str | None = None

    @property
    def is_decided(self) -> bool:
        """Whether anybody has chosen: the default only says that nobody has."""
        return self != CardLicense()


class CardChoices(BaseModel):
    """A person's choices for one card. Raises `UserError` on a repository or licence that the Hub would not take.

    `license` covers the texts, never the photographs. `source` says in one sentence what the photographs are, whose,
    and under which terms. `repo_id` is the Hub repository (`OWNER/NAME`), None while it is not known; `contact` is an
    address for people who want a row removed, None for the dataset page's discussions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretty_name: str = PRETTY_NAME
    license: CardLicense = Field(default_factory=CardLicense)
    source: str | None = None
    repo_id: str | None = None
    contact: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.repo_id is not None and not _REPO_ID.fullmatch(self.repo_id):
            raise UserError(f"'{self.repo_id}' is no repository on the Hub", "--repo OWNER/NAME")
        for name in (self.license.license, self.license.name):
            if name is not None and not _LICENSE.fullmatch(name):
                raise UserError(
                    f"'{name}' is no licence of the Hub: it is written like cc-by-4.0", "--license cc-by-4.0"
                )
        return self


def mark_of(choices: CardChoices) -> str:
    """The last line of a card, from which it can be made again."""
    return card_mark(CARD_VERSION, choices.model_dump())


def read_mark(card: str) -> tuple[int, CardChoices] | None:
    """The version that wrote a card, and the choices in it; None where the card is not one of ours."""
    mark = read_card_mark(card)
    try:
        return None if mark is None else (mark[0], CardChoices.model_validate(mark[1]))
    except (ValueError, UserError):
        return None


def read_choices(dataset: Path) -> CardChoices:
    """The choices in a dataset folder's card, or the defaults where it has none yet."""
    readme = dataset / "README.md"
    mark = read_mark(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    return mark[1] if mark else CardChoices()


def with_changes(
    dataset: Path, license_id: str | None, source: str | None, repo_id: str | None, contact: str | None
) -> CardChoices:
    """The choices that stand in a dataset folder's card, but for those that are given now."""
    changes = {"source": source, "repo_id": repo_id, "contact": contact}
    changed: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if license_id is not None:
        changed["license"] = CardLicense(license=license_id, name=None)
    return CardChoices(**{**dict(read_choices(dataset)), **changed})
