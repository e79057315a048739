"""What a store holds, by the tests' own code: every row of every table, every file with its bytes, mode and time."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

WRITING = "last_update_time"
"""The one column that says when a row was written to."""


def rows_of(database: Path | str) -> dict[str, Counter[tuple[Any, ...]]]:
    """Table -> its rows, and how often each is there; of a file of SQLite, or of a database by its URI."""
    uri = database if isinstance(database, str) else f"sqlite:///file:{database}?mode=ro&uri=true"
    engine = create_engine(uri, poolclass=NullPool)
    quoted = engine.dialect.identifier_preparer.quote
    found = {}
    with engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            names = [column["name"] for column in inspect(connection).get_columns(table)]
            columns = ", ".join(quoted(name) for name in names if name != WRITING)
            rows = connection.exec_driver_sql(f"SELECT {columns} FROM {quoted(table)}")
            found[table] = Counter(tuple(map(_plain, row)) for row in rows)
    engine.dispose()
    return found


def _plain(value: object) -> Hashable:
    return value if isinstance(value, Hashable) else repr(value)


def files_of(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Path of every file and folder -> the SHA-256 of its bytes and when they were written ('' and 0 of a folder), and
    its mode.
    """
    found = {}
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(above, name)
            facts, own = path.lstat(), path.is_file()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if own else ""
            found[str(path.relative_to(folder))] = (digest, facts.st_mode, facts.st_mtime_ns if own else 0)
    return found


def new_paths(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is there now and was not, but for what lies in a quarantine."""
    return sorted(path for path in after.keys() - before.keys() if ".quarantine" not in path.split(os.sep))


def lost(before: dict[str, Counter[Any]], after: dict[str, Counter[Any]]) -> dict[str, Counter[Any]]:
    """Table -> the rows that are not there any more, or say something else."""
    return {name: gone for name, rows in before.items() if (gone := rows - after.get(name, Counter()))}


def differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What stands under the same name as something else, or is not there any more."""
    return {name: (item, after.get(name)) for name, item in before.items() if after.get(name) != item}
