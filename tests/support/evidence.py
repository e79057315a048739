"""What a store holds, by the tests' own code: every row of every table, every file with its bytes, mode and time."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

WRITING = "last_update_time"
"""The one column that says when a row was written to."""


def rows_of(
    database: Path | str, without: Collection[str] = (), where: Mapping[str, str] | None = None
) -> dict[str, Counter[tuple[Any, ...]]]:
    """Table -> its rows, and how often each is there, `without` some columns, of all tables or of those with a
    condition in `where`; of a file of SQLite, or of a database by its URI.
    """
    uri = database if isinstance(database, str) else f"sqlite:///file:{database}?mode=ro&uri=true"
    engine = create_engine(uri, poolclass=NullPool)
    quoted = engine.dialect.identifier_preparer.quote
    found = {}
    with engine.connect() as connection:
        for table in where or inspect(connection).get_table_names():
            names = [column["name"] for column in inspect(connection).get_columns(table)]
            columns = ", ".join(quoted(name) for name in names if name not in (WRITING, *without))
            rows = connection.exec_driver_sql(
                f"SELECT {columns} FROM {quoted(table)} WHERE {(where or {}).get(table, '1 = 1')}"
            )
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


STANDING = {
    "experiments": "1",
    "experiment_tags": "1",
    "runs": "lifecycle_stage = 'active'",
    "tags": "run_uuid IN (SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active')",
    "logged_models": "lifecycle_stage <> 'deleted'",
    "registered_models": "1",
    "registered_model_aliases": "1",
    "model_versions": "1",
}
"""Table -> which of its rows a user sees without asking for what is deleted."""


def standing_in(database: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """Table -> the rows that stand in it; experiments are all of them, deleted ones too."""
    return rows_of(database, where=STANDING)


def contents_of(folder: Path) -> set[str]:
    """The SHA-256 of every file below a folder."""
    return {digest for digest, *_ in files_of(folder).values() if digest}
