"""What may go wrong between here and the Hub, in words that say what to do; none of it is the fault of an image."""

from collections.abc import Generator
from contextlib import contextmanager

import httpx2
from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
    XetDownloadError,
)

from builders.errors import UserError

_NOT_CACHED = (CachedRepoTreeNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled, RevisionResolutionError)


@contextmanager
def explained(address: str) -> Generator[None]:
    """Turn what huggingface_hub raises into a `UserError` that names the address.

    An `OSError` must not pass either: a full disk or a dropped connection would be taken for a broken image.
    """
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{address} is gated", "accept its terms on its page on the Hub, then: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"the Hub has the dataset but not the revision of {address}") from error
    except RepositoryNotFoundError as error:  # also what a private one answers to strangers
        raise UserError(
            f"the Hub has no dataset {address}, or this account may not read it", "check the name; hf auth login"
        ) from error
    except _NOT_CACHED as error:
        if is_offline_mode():
            what = f"HF_HUB_OFFLINE is set, and {address} is not in the cache, or not all of it"
            raise UserError(what, "HF_HUB_OFFLINE=0 for one run, to fetch it") from error
        cause = error.__cause__ or error
        raise UserError(f"cannot reach the Hub for {address}: {type(cause).__name__}: {cause}", _AGAIN) from error
    except (HfHubHTTPError, httpx2.HTTPError, XetDownloadError, ConnectionError, RuntimeError) as error:  # Xet's: plain
        raise UserError(f"cannot get {address} from the Hub: {type(error).__name__}: {error}", _AGAIN) from error
    except OSError as error:
        raise UserError(f"cannot keep {address} in the Hub's cache: {error}", "make room, or set HF_HOME") from error


_AGAIN = "type the same command again: what was fetched is kept"
