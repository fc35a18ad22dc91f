"""The database on disk behind `build`: a full disk is told, and memory stays what it is however many rows there are."""

import sqlite3
import subprocess
import sys

import pytest

from builders.errors import UserError
from builders.scratch import CACHE_BYTES, scratch


def test_a_full_disk_is_an_error_that_says_where_else_to_put_temporary_files():
    def fill() -> None:
        with scratch() as store:
            store.do("PRAGMA max_page_count = 10")
            store.do("CREATE TABLE text (text TEXT)")
            store.put("text", (("x" * 1000,) for _ in range(1000)), 1)

    with pytest.raises(UserError, match="no space for temporary files") as told:
        fill()
    assert "SQLITE_TMPDIR" in str(told.value)


def test_another_error_of_the_database_is_not_called_a_full_disk():
    with pytest.raises(sqlite3.OperationalError, match="no such table"), scratch() as store:
        store.do("SELECT * FROM absent")


def test_what_is_found_can_be_left_half_read():
    with scratch() as store:
        store.do("CREATE TABLE number (n INTEGER)")
        store.put("number", ((n,) for n in range(100)), 1)
        rows = store.rows("SELECT n FROM number ORDER BY n")
        assert next(rows) == (0,)
    del rows


def test_texts_are_sorted_by_code_point_and_kept_as_they_are():
    texts = ["ß", "Z", "a", "\U0001f600", "é", "a\0b", "\uffff"]
    with scratch() as store:
        store.do("CREATE TABLE text (text TEXT)")
        store.put("text", ((text,) for text in texts), 1)
        assert store.column("SELECT text FROM text ORDER BY text") == sorted(texts)


def test_rows_beyond_the_cache_are_on_disk():
    """Four times the cache, put and read sorted by a process of its own, which grows by the cache and little more."""
    code = f"""
import resource
from builders.scratch import scratch

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

with scratch() as store:
    before = peak()
    store.do("CREATE TABLE text (number INTEGER, text TEXT)")
    store.put("text", ((-n, str(n) * 1000) for n in range({4 * CACHE_BYTES // 5000})), 2)
    n_bytes = sum(len(text) for _, text in store.rows("SELECT * FROM text ORDER BY number"))
    print(n_bytes, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n_bytes, grown = map(int, done.stdout.split())
    assert n_bytes > 3 * CACHE_BYTES
    assert grown < 2 * CACHE_BYTES
