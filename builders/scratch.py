"""A database of SQLite on disk for what does not fit in memory: rows are put in as they come, and read in any order.

It has no name and goes with the process, however that ends: https://www.sqlite.org/inmemorydb.html#temp_db
"""

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from builders.errors import UserError

CACHE_BYTES = 64 * 1024**2


class Scratch:
    """An open database; `with scratch():` makes one.

    Texts are UTF-8 and compared by code point. Statements are SQLite's; what one reads, another must not change.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def do(self, statement: str, *values: Any) -> None:
        """Run one statement, and drop what it answers."""
        self.connection.execute(statement, values)

    def put(self, table: str, rows: Iterable[tuple[Any, ...]], n_columns: int) -> None:
        """Append rows to a table as they are made. Raises `sqlite3.IntegrityError` where a key is there already."""
        places = ", ".join("?" * n_columns)
        self.connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608 - tables are ours

    def rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """What a query finds, read while it is used."""
        return self.connection.execute(query, values)

    def records(self, query: str, *values: Any) -> Iterator[dict[str, Any]]:
        """What a query finds, by the names of its columns."""
        cursor = self.connection.execute(query, values)
        names = [name for name, *_ in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))

    def column(self, query: str, *values: Any) -> list[Any]:
        """The first column of all that a query finds, in memory."""
        return [row[0] for row in self.rows(query, *values)]

    def value(self, query: str, *values: Any) -> Any:
        """The one value that a query finds."""
        (found,) = self.connection.execute(query, values).fetchone()
        return found


@contextmanager
def scratch() -> Generator[Scratch]:
    """A new database, gone at the end. Raises `UserError` where the disk for temporary files is full."""
    connection = sqlite3.connect("", isolation_level=None)
    try:
        # nothing has to survive: no journal, no syncs
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_BYTES // 1024}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA temp_store = FILE")  # sorting spills to disk too
        connection.execute("BEGIN")  # never committed: each statement would be a transaction of its own
        yield Scratch(connection)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            raise
        raise UserError(
            f"no space for temporary files: {error}", "SQLITE_TMPDIR=/another/disk before the same command"
        ) from error
    finally:
        connection.close()
