"""The one exception that means: a person can fix this."""


class UserError(Exception):
    """A person's mistake: what happened, the value seen, what was allowed, and what to type next.

    The command line prints it in one block without a traceback and exits with 1. A bug raises anything else.
    `fix` is a command or an edit; it is printed on a line of its own, behind "fix:".
    """

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message}\n  fix: {fix}")


def choose(kind: str, name: str, allowed: "dict[str, object] | list[str]") -> None:
    """Raise `UserError` unless `name` is one of `allowed`: unknown KIND 'NAME'; choose one of: …"""
    if name not in allowed:
        raise UserError(f"unknown {kind} '{name}'; choose one of: {', '.join(sorted(allowed))}")
