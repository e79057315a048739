"""Other MLflow databases near this one and near its roots: what their rows own is not ownerless, though no row of
this store knows it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from mlflow_compliance.errors import StoreError
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import upwards
from mlflow_compliance.store.backends.sql_tables import columns_of, within
from mlflow_compliance.store.backends.sqlite_file import is_sqlite, reading_file
from mlflow_compliance.store.ownership.entries import Entry
from mlflow_compliance.store.storage.locations import local_folder

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("skill_versions", "source"),
)
_ASKED = "SELECT {} FROM {} WHERE {} IN :ids"
_IDS = {"run": ("runs", "run_uuid", "artifact_uri"), "logged model": ("logged_models", "model_id", "artifact_location")}
_ID_ALONE = {"trace": ("trace_info", "request_id")}
_MOST = 1000
"""Files in a folder that are each looked into; of more only those that are called like a database."""
_CALLED = ("db", "sqlite", "mlflow", "mlruns")


@dataclass
class Database:
    """What an MLflow database says that matters for the files of another store."""

    held: set[str] = field(default_factory=set)
    """Folders below the roots that its rows name, and those on the way there."""
    bearers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Id that an ownerless entry bears -> what row of it has that id, and where that says that its files lie."""
    path: str = ""
    shares: bool = False
    """Whether it has runs or logged models of this store, as a copy of it has."""
    failed: bool = False


def look_into(
    connection: Connection, home: str | None, artifacts: Artifacts, ids: Collection[str], own: Collection[str] = ()
) -> Database | None:
    """What the database behind a connection says; None for one of something else. `own` are ids of this store's
    runs and logged models.
    """
    tables = columns_of(connection)
    if not {"experiments", "runs", "alembic_version"} <= tables.keys():
        return None
    found = Database()
    known = [columns for columns in _IDS.values() if {columns[1], columns[2]} <= tables.get(columns[0], set())]
    found.held = _held(_places(connection, home, tables), artifacts)
    for kind, (table, key, place) in _IDS.items():
        if (table, key, place) in known:
            found.bearers |= {
                str(row[0]): (f"{kind} {row[0]}", row[1] or "")
                for row in within(connection, _ASKED.format(f"{key}, {place}", table, key), ids)
            }
    for kind, (table, key) in _ID_ALONE.items():
        if key in tables.get(table, ()):
            found.bearers |= {
                str(row[0]): (f"{kind} {row[0]}", "") for row in within(connection, _ASKED.format(key, table, key), ids)
            }
    if own:
        rows = (row for table, key, _ in known for row in connection.execute(text(f"SELECT {key} FROM {table}")))  # noqa: S608  constants of ours
        found.shares = any(key in own for (key,) in rows)
    return found


def neighbours_of(
    artifacts: Artifacts, home: str | None, own_files: Collection[str], ids: Collection[str], own: Collection[str]
) -> Iterator[Database]:
    """The MLflow databases in the folder of this one, and in, beside and on the way to its roots."""
    for path in _databases(_folders(artifacts, home), own_files):
        try:
            with reading_file(path, busy_timeout=1.0) as connection:
                found = look_into(connection, os.path.dirname(os.path.realpath(path)), artifacts, ids, own)
        except StoreError:
            found = Database(failed=True)
        if found is not None:
            found.path = path
            yield found


def above(root: str, home: str | None) -> list[str]:
    """A root and the folders that hold it, up to that of its database, or its own alone where it lies elsewhere."""
    found = []
    for folder in upwards(root):
        found.append(folder)
        if folder == home:
            return found
    return found[:2]


def _folders(artifacts: Artifacts, home: str | None) -> set[str]:
    return {
        *([home] if home else []),
        *(folder for root in artifacts.roots if root.path.startswith("/") for folder in above(root.path, home)),
    }


def _databases(folders: set[str], own: Collection[str]) -> Iterator[str]:
    for folder in sorted(folders):
        try:
            with os.scandir(folder) as found:
                paths = sorted(entry.path for entry in found if entry.is_file())
        except OSError:
            continue
        if len(paths) > _MOST:
            paths = [path for path in paths if any(word in os.path.basename(path).lower() for word in _CALLED)]
        yield from (path for path in paths if is_sqlite(path) and not _is_any(path, own))


def _is_any(path: str, others: Collection[str]) -> bool:
    return any(os.path.exists(other) and os.path.samefile(path, other) for other in others)


def _places(connection: Connection, home: str | None, tables: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The local folders that the rows name."""
    for table, column in _PLACES:
        if column in tables.get(table, ()):
            for (uri,) in connection.execute(text(f"SELECT {column} FROM {table}")):  # noqa: S608  constants of ours
                place = local_folder(uri, home) if uri else None
                if place:
                    yield place


def _held(places: Iterable[str], artifacts: Artifacts) -> set[str]:
    """The rows' own folders below a root of this store, and every folder on the way to one."""
    found: set[str] = set()
    for place in places:
        root = artifacts.root_of(place)
        # The folder of a run or model is the one above its `artifacts`; that one is on the way.
        path = place
        while root and path not in found and path != root.path:
            found.add(path)
            path = os.path.dirname(path)
    return found


def leads_to(uri: str, home: str | None, entry: Entry) -> bool:
    """Whether a row's place is the entry, or lies in it."""
    place = local_folder(uri, home) if uri else None
    return place is not None and f"{place}/".startswith(f"{entry.item.path}/")
