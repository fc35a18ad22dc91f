"""BUILD: source images, records, shards and the dataset folder: the data contract everybody else imports."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builders.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, imported when it is first used: it pulls in `datasets`, which takes a second.

    The file is `loading.py` because a submodule called `load` would shadow the function once imported.
    """
    if name == "load":
        from builders.loading import load

        return load
    raise AttributeError(f"module 'builders' has no attribute '{name}'")
