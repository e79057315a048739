"""Takes repairs back and makes them again from what their journals say, and tells by means of its own what a store
holds: rows by SQL, files by a walk.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, create_engine, select
from sqlalchemy.pool import NullPool
from stores import Lab

from mlflow_compliance.changes import JOURNAL, NOW, load
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.write.writer import StoreWriter

RENEWED = {"last_update_time", "last_updated_time", "last_updated_timestamp", "last_updated_timestamp_ms"}
"""Columns with the time of the last change, which nobody can put back."""

Rows = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
Line = Mapping[str, Any]


def undo(lab: Lab, lines: Sequence[Line]) -> list[str]:
    """Apply the inverses of what a journal says was done, backwards; what was left, in a sentence each."""
    done = {line["change"] for line in lines if line.get("state") == "done"}
    writer, left = StoreWriter(lab.store, {}), []
    for line in reversed(lines):
        if line.get("state") == "begin" and line["change"] in done and line["undo"]:
            try:
                writer.write(load(line["undo"]))
            except ChangeError as told:
                left.append(str(told))
    return left


def redo(lab: Lab, lines: Sequence[Line], journal: str = "20250602T000000Z-abcdef") -> list[dict[str, Any]]:
    """Carry out again what a journal says was done, under another journal; its lines, with the inverses of now."""
    done = {line["change"] for line in lines if line.get("state") == "done"}
    writer = StoreWriter(lab.store, {JOURNAL: journal, NOW: "2025-06-02T00:00:00+00:00"})
    found: list[dict[str, Any]] = []
    for line in lines:
        if line.get("state") == "begin" and line["change"] in done:
            change = load(line["do"])
            inverse = writer.inverse(change)
            writer.write(change)
            found += [{**line, "undo": inverse and dumped(inverse)}, {"change": line["change"], "state": "done"}]
    return found


def dumped(change: Any) -> dict[str, Any]:
    from mlflow_compliance.changes import dump

    return dump(change)


def rows_in(uri: str) -> Rows:
    """Table -> key of a row -> the row, of every table of a database, without the times of the last change."""
    engine = create_engine(uri, poolclass=NullPool)
    tables = MetaData()
    tables.reflect(engine)
    found: Rows = {}
    with engine.connect() as connection:
        for table in tables.tables.values():
            names = [column.name for column in table.primary_key] or [column.name for column in table.columns]
            for row in connection.execute(select(table)).mappings():
                kept = {name: value for name, value in row.items() if name not in RENEWED}
                key = tuple(str(row[name]) for name in names)
                found.setdefault(table.name, {})[key] = kept
    engine.dispose()
    return found


def lost_rows(before: Rows, after: Rows) -> list[str]:
    """Where a row that was there is not, or says something else."""
    return [
        f"{table} {key}: {row} is now {after.get(table, {}).get(key)}"
        for table, rows in before.items()
        for key, row in rows.items()
        if after.get(table, {}).get(key) != row
    ]


def files_in(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Path below a folder -> what it holds, its mode and the time of writing; of folders the mode alone. Databases and
    the folder of the journals are left out.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".compliance"]
        for name in folders:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = ("folder", stat.S_IMODE(os.lstat(path).st_mode))
        for name in names:
            path, facts = os.path.join(place, name), os.lstat(os.path.join(place, name))
            if not name.startswith("mlflow.db"):
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                found[os.path.relpath(path, folder)] = (digest, stat.S_IMODE(facts.st_mode), facts.st_mtime_ns)
    return found


def new_paths(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is there now and was not, but for what lies in a quarantine."""
    return sorted(path for path in after.keys() - before.keys() if ".quarantine" not in path.split(os.sep))


def lost_files(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Where a file or folder that was there is not, or is other than it was."""
    return [f"{path}: {facts} is now {after.get(path)}" for path, facts in before.items() if after.get(path) != facts]


def taken_back(lab: Lab) -> list[str]:
    """Ids of the runs that were made and taken back, as MLflow lists them."""
    ids = [item.experiment_id for item in lab.client.search_experiments(view_type=3)]
    where = "tags.`compliance.copy` = 'retracted'"
    found = lab.client.search_runs(ids, filter_string=where, run_view_type=2, max_results=1000)
    return sorted(run.info.run_id for run in found)
