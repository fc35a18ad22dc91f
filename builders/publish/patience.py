"""What to do when the Hub, or the way to it, fails: try the whole attempt again, or say what a person can do.

An attempt reads the repository first and sends only what is missing, so trying again is the same as resuming.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx2
from huggingface_hub.errors import BadRequestError, GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers

from builders.check.fault import visible
from builders.errors import UserError
from builders.publish.remote import Repository
from builders.publish.upload import TransferError

T = TypeVar("T")
ATTEMPTS = 6
FIRST_WAIT_S = 0.5  # doubled each time, where the Hub does not say how long
LONGEST_WAIT_S = 600.0  # the Hub counts requests in windows of 300 s
_MEANWHILE = (409, 412)  # somebody else committed: read the repository again and compare anew
_WHOLE = "the repository is as it was, or complete"
_PASSING = (408, 429, 500, 502, 503, 504, *_MEANWHILE)


def patiently(attempt: Callable[[], T], repo: Repository, say: Callable[[str], object]) -> T:
    """The attempt's result, after as many attempts as it takes, at most `ATTEMPTS`; else a `UserError`."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except (HfHubHTTPError, httpx2.TransportError, ConnectionError, RuntimeError, ValueError) as error:
            cause = _cause(error)
            if cause is None:
                raise
            wait_s = _wait_s(cause, number)
            if wait_s is None or number == ATTEMPTS:
                raise _in_words(cause, repo, number) from error
            say(f"{_what(cause)}; trying again in {wait_s:.1f} s ({number} of {ATTEMPTS - 1})")
            time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _cause(error: Exception) -> Exception | None:
    """The failure of the Hub or the network in an exception of the client; None if it is a bug of ours.

    An LFS upload wraps it in a `RuntimeError`, a refused card in a `ValueError`; a proxy's page instead of an answer is
    a `JSONDecodeError`; Xet's own, after some minutes of its own patience, is a `TransferError`.
    """
    known = (HfHubHTTPError, httpx2.TransportError, ConnectionError, json.JSONDecodeError)
    if isinstance(error, known):
        return error
    wrapped = error.__cause__
    if isinstance(error, ValueError) and isinstance(wrapped, BadRequestError):
        return error  # it tells what is wrong with the card
    return wrapped if isinstance(wrapped, known) else None


def _wait_s(cause: Exception, number: int) -> float | None:
    """Seconds until the next attempt; None where there is no use in one."""
    by_default = FIRST_WAIT_S * 2 ** (number - 1)
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        if status not in _PASSING:
            return None
        asked = _asked_wait_s(cause)
        return by_default if asked is None else (asked if asked <= LONGEST_WAIT_S else None)
    if isinstance(cause, OfflineModeIsEnabled):
        return None
    passing = (httpx2.TransportError, ConnectionError, json.JSONDecodeError)
    return by_default if isinstance(cause, passing) else None


def _asked_wait_s(error: HfHubHTTPError) -> float | None:
    """How long the Hub asks to wait: its rate limit's reset, or `Retry-After` in seconds or as a date."""
    limit = parse_ratelimit_headers(error.response.headers)
    if error.response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0
    stated = error.response.headers.get("Retry-After", "").strip()
    if stated.isdigit():
        return float(stated)
    try:
        return max(0.0, (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a time zone
        return None


def _what(cause: Exception) -> str:
    """What happened, in a few words."""
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        if status in _MEANWHILE:
            return "somebody else committed to the repository meanwhile"
        return "the Hub limits how fast it may be asked" if status == 429 else f"the Hub failed with {status}"
    if isinstance(cause, json.JSONDecodeError):
        return "the Hub answered with something else than JSON"
    if isinstance(cause, TransferError):
        return "the files could not be sent over Xet"
    return f"the Hub cannot be reached ({type(cause).__name__})"


def _in_words(cause: Exception, repo: Repository, n_attempts: int) -> UserError:
    """What a person is told when there is no use in trying on."""
    resume = "type the same command again: what was sent is not sent twice"
    if isinstance(cause, OfflineModeIsEnabled):
        return UserError("HF_HUB_OFFLINE is set, so nothing can be published", "unset HF_HUB_OFFLINE")
    if isinstance(cause, HfHubHTTPError):
        return _http_in_words(cause, repo, n_attempts, resume)
    if isinstance(cause, ValueError) and not isinstance(cause, json.JSONDecodeError):
        told = f": {_told(cause.__cause__)}" if isinstance(cause.__cause__, HfHubHTTPError) else ""
        words = " ".join(str(cause).split()).rstrip(".")
        return UserError(f"the Hub refuses the card: {words}{told}", "build the dataset again; nothing was published")
    return UserError(f"{_what(cause)}, {n_attempts} times: {repo.api.endpoint}: {cause}; {_WHOLE}", resume)


def _http_in_words(error: HfHubHTTPError, repo: Repository, n_attempts: int, resume: str) -> UserError:
    status, told = error.response.status_code, _told(error)
    if status == 401 and not isinstance(error, GatedRepoError):
        return UserError("the Hub does not accept this access token", "hf auth login --force   (or set HF_TOKEN anew)")
    if status in (401, 403, 404):
        return UserError(
            f"this account may not do this with {repo.id}: {told}",
            f"a token with the right to write for {repo.id.split('/')[0]}, an own repository, or --pr",
        )
    if status == 429:
        asked = _asked_wait_s(error)
        after = "" if asked is None else f" and asks to wait {asked:.0f} s"
        return UserError(f"the Hub limits how fast it may be asked{after}; {_WHOLE}", f"later, {resume}")
    if status in _PASSING:
        return UserError(f"{_what(error)}, {n_attempts} times; {_WHOLE}", resume)
    return UserError(f"the Hub refuses with {status}: {told}; {_WHOLE}")


def _told(error: HfHubHTTPError) -> str:
    """The Hub's own words, in one line."""
    return visible(" ".join((error.server_message or f"status {error.response.status_code}").split()))
