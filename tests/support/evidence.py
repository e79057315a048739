"""What a store holds, by the tests' own code: every row of every table, every file with its bytes and mode."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

WRITING = "last_update_time"
"""The one column that says when a row was written to."""


def rows_of(database: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """Table -> its rows, and how often each is there."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: Counter(connection.execute(f"SELECT {_columns(connection, name)} FROM {name}")) for name in names}


def _columns(connection: sqlite3.Connection, table: str) -> str:
    found = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")]
    return ", ".join(f'"{column}"' for column in found if column != WRITING)


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Path of every file and folder -> the SHA-256 of its bytes ('' of a folder) and its mode."""
    found = {}
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(above, name)
            digest = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = (digest, path.lstat().st_mode)
    return found


def lost(before: dict[str, Counter[Any]], after: dict[str, Counter[Any]]) -> dict[str, Counter[Any]]:
    """Table -> the rows that are not there any more, or say something else."""
    return {name: gone for name, rows in before.items() if (gone := rows - after.get(name, Counter()))}


def differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What stands under the same name as something else, or is not there any more."""
    return {name: (item, after.get(name)) for name, item in before.items() if after.get(name) != item}
