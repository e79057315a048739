"""Other MLflow databases beside this one: what their rows own is not ownerless, though no row of this store knows it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import inspect, text

from mlflow_compliance.artifacts import Artifacts
from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.locations import Resolver
from mlflow_compliance.store.sqlite import is_sqlite, reading_file

_PLACES = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}


def keep_what_neighbours_own(artifacts: Artifacts, database: str | None) -> Artifacts:
    """Mark ownerless entries that a database in the same folder, or beside a root, may own: they must not be moved.

    `database` is that of the store itself, None where it is in no file on this machine.
    """
    kept = dict(artifacts.ownerless)
    folders = {os.path.dirname(root.path) for root in artifacts.roots} | ({os.path.dirname(database)} if database else set())
    for neighbour in _databases(folders, database):
        try:
            places = _places(neighbour)
        except StoreError:
            kept = {path: item._replace(keep=item.keep or f"{neighbour} beside it cannot be read, and may own it") for path, item in kept.items()}
            continue
        held = _held(places, artifacts)
        owner = "another workspace of this store" if neighbour == database else f"the store in {neighbour}"
        kept = {path: item._replace(keep=f"{owner} owns it") if path in held else item for path, item in kept.items()}
    return replace(artifacts, ownerless=kept)


def _databases(folders: set[str], own: str | None) -> Iterator[str]:
    if own:
        yield own  # only the rows of one workspace were read
    for folder in sorted(folders):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith((".db", ".sqlite", ".sqlite3")) and is_sqlite(path) and not (own and os.path.samefile(path, own)):
                yield path


def _places(database: str) -> list[str]:
    """The local folders that an MLflow database names; none for a database of something else."""
    resolve = Resolver({})
    found: list[str] = []
    with reading_file(database, busy_timeout=1.0) as connection:
        tables: Mapping[str, Sequence[str]] = {
            table: [column["name"] for column in inspect(connection).get_columns(table)] for table in inspect(connection).get_table_names()
        }
        if not {"experiments", "runs", "alembic_version"} <= tables.keys():
            return []
        for table, column in _PLACES.items():
            if column in tables.get(table, ()):
                rows = connection.execute(text(f"SELECT {column} FROM {table}"))  # noqa: S608  constants of ours
                found += [resolve(uri).path for (uri,) in rows if uri]
    return [os.path.realpath(path) for path in found if path]


def _held(places: Sequence[str], artifacts: Artifacts) -> set[str]:
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
