"""Other MLflow databases beside this one: what their rows own is not ownerless, though no row of this store knows it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, text

from mlflow_compliance.artifacts import Artifacts, Ownerless
from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.backends.base import Backend
from mlflow_compliance.store.backends.by_sql import SqlBackend
from mlflow_compliance.store.reading.locations import Resolver
from mlflow_compliance.store.reading.sqlite import is_sqlite, reading_file
from mlflow_compliance.store.reading.tables import columns_of

_PLACES = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location", "skill_versions": "source"}


def keep_what_neighbours_own(artifacts: Artifacts, backend: Backend) -> Artifacts:
    """Mark ownerless entries that a database in the same folder, or beside a root, may own: they must not be moved."""
    kept = dict(artifacts.ownerless)
    if isinstance(backend, SqlBackend):
        # This store too: only the rows of one workspace were read.
        with backend.reading() as connection:
            kept = _kept(kept, _held(_places(connection), artifacts), "another workspace of this store")
    own = backend.own()
    folders = {*([backend.home] if backend.home else []), *(os.path.dirname(root.path) for root in artifacts.roots)}
    for neighbour in _databases(folders, own):
        try:
            with reading_file(neighbour, busy_timeout=1.0) as connection:
                places = _places(connection)
        except StoreError:
            kept = {path: item._replace(keep=item.keep or f"{neighbour} beside it cannot be read, and may own it") for path, item in kept.items()}
            continue
        kept = _kept(kept, _held(places, artifacts), f"the store in {neighbour}")
    return replace(artifacts, ownerless=kept)


def _kept(items: Mapping[str, Ownerless], held: set[str], owner: str) -> dict[str, Ownerless]:
    return {path: item._replace(keep=f"{owner} owns it") if path in held else item for path, item in items.items()}


def _databases(folders: set[str], own: Collection[str]) -> Iterator[str]:
    for folder in sorted(folders):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith((".db", ".sqlite", ".sqlite3")) and is_sqlite(path) and not _is_any(path, own):
                yield path


def _is_any(path: str, others: Collection[str]) -> bool:
    return any(os.path.exists(other) and os.path.samefile(path, other) for other in others)


def _places(connection: Connection) -> list[str]:
    """The local folders that an MLflow database names; none for a database of something else."""
    resolve = Resolver({})
    found: list[str] = []
    tables = columns_of(connection)
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
