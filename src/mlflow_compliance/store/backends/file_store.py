"""Stores that are folders of small files, which MLflow gives up: read through MlflowClient, from a copy of their
rows.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from mlflow_compliance.errors import StoreError, first_line
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.entities import DELETED, StoreInfo
from mlflow_compliance.snapshot.files import JOURNALS, META, QUARANTINE, TRASH
from mlflow_compliance.snapshot.refs import Location
from mlflow_compliance.snapshot.row_facts import RowFacts
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.backends.base import Backend, Rows
from mlflow_compliance.store.backends.file_rows import FileRows, read_file_rows
from mlflow_compliance.store.backends.server import through_client
from mlflow_compliance.store.backends.sqlite_file import meant
from mlflow_compliance.store.storage.metric_files import read_repeated

_SERVER = re.compile(r"[\w.-]+:\d{2,5}")
"""Host and port, as people name a server without http://."""
_TRACE = "trace_info.yaml"
"""The row of a trace."""


@dataclass(frozen=True)
class FileBackend(Backend):
    """A folder of experiments; `uri` begins with file://."""

    writes: ClassVar[bool] = True
    rows: ClassVar[bool] = False

    @property
    def folder(self) -> str:
        return self.uri.removeprefix("file://")

    @property
    def info(self) -> StoreInfo:
        return StoreInfo(without_secrets(self.uri).partition("?")[0], "file")

    @property
    def home(self) -> str:
        return os.path.dirname(self.folder)

    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        folder = self._checked()
        found = read_file_rows(folder)
        with _copied(folder, found) as copied:
            try:
                snapshot, rows = through_client(copied, self.info, self.settings, also)
            except StoreError as error:
                raise StoreError(str(error).replace(copied, folder)) from error
            except (
                Exception
            ) as error:  # MLflow lets errors of any kind through where a file holds what it does not expect
                said = first_line(error).replace(copied, folder)
                raise StoreError(
                    f"the store {self.info.uri} cannot be read through MLflow: {type(error).__name__}: {said}"
                ) from error
        # Its own folder is an experiment's, wherever that keeps its artifacts: its runs' rows lie there.
        homes = {os.path.join(folder, key): item.ref for key, item in snapshot.experiments.items()}
        folders = tuple(Location(owner, "", path) for path, owner in {**homes, **found.owners}.items())
        snapshot = replace(
            snapshot,
            repeated_points=read_repeated(folder),
            damaged=tuple(found.damaged),
            row_facts=_with_deletions(snapshot.row_facts, found) if self.settings.retention.says_anything else {},
        )
        return snapshot, rows._replace(
            folders=folders,
            deleted_runs={key: found.deleted_runs.get(key, at) for key, at in rows.deleted_runs.items()},
        )

    def known_traces(self, ids: Collection[str]) -> Collection[str]:
        homes = (glob.escape(folder) for folder in (self.folder, os.path.join(self.folder, TRASH)))
        rows = (path for home in homes for path in glob.iglob(os.path.join(home, "*", "traces", "*", _TRACE)))
        return {os.path.basename(os.path.dirname(path)) for path in rows} & set(ids)

    def _checked(self) -> str:
        folder = self.folder
        proposed = meant(folder)
        if proposed and not os.path.isdir(folder):
            raise StoreError(f"{folder} is a SQLite database: write {proposed} as the tracking URI")
        if os.path.isfile(folder):
            raise StoreError(f"{folder} is a file, and neither a SQLite database nor a folder: check the tracking URI")
        if not os.path.isdir(folder):
            server = os.path.basename(folder)
            way = f"write http://{server}, if that is a tracking server" if _SERVER.fullmatch(server) else ""
            raise StoreError(
                f"there is no file store at {folder}: {way or 'check the tracking URI'} (nothing was created)"
            )
        entries = [entry for entry in os.listdir(folder) if os.path.isfile(os.path.join(folder, entry, META))]
        if not entries and proposed:
            raise StoreError(f"the store in {folder} is a database: write {proposed} as the tracking URI")
        if not entries:
            raise StoreError(
                f"the folder {folder} is no MLflow file store (no experiment with a meta.yaml in it): check the "
                "tracking URI"
            )
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
            raise StoreError(
                f"MLflow no longer reads file stores such as {folder} by itself: set "
                "MLFLOW_ALLOW_FILE_STORE=true, or migrate it"
            )
        return folder


def _with_deletions(known: Mapping[tuple[str, str], RowFacts], found: FileRows) -> dict[tuple[str, str], RowFacts]:
    """What the client said, and what it does not know: the logged models that are deleted, and when runs were."""
    models = {row.ref.place: row for row in found.deleted_models}
    runs = {
        place: replace(row, deleted_at=found.deleted_runs.get(row.key, 0)) if row.lifecycle == DELETED else row
        for place, row in known.items()
    }
    return {**models, **runs}


@contextmanager
def _copied(folder: str, found: FileRows) -> Iterator[str]:
    """A copy of the rows that can be read, for MlflowClient: opening a file store in place makes folders in it."""
    with tempfile.TemporaryDirectory(prefix="mlflow-compliance-") as above:
        rows = os.path.join(above, "mlruns")
        shutil.copytree(folder, rows, symlinks=True, ignore=lambda here, names: _left_out(here, names, found))
        for path, content in found.instead.items():
            with open(os.path.join(rows, os.path.relpath(path, folder)), "wb") as file:
                file.write(content)
        for meta in glob.glob(os.path.join(glob.escape(rows), "*", "*", META)):
            # MLflow takes a run for one only with these folders, and git, say, does not keep empty ones.
            for name in ("artifacts", "metrics", "params", "tags"):
                os.makedirs(os.path.join(os.path.dirname(meta), name), exist_ok=True)
        yield rows


def _left_out(folder: str, names: list[str], found: FileRows) -> set[str]:
    """What the copy of a file store's rows does not have: the artifacts themselves, and what cannot be read."""
    here = os.path.join(folder, META)
    artifacts = {name for name in names if name == "artifacts" and os.path.exists(here)}
    return (
        artifacts
        | ({QUARANTINE, JOURNALS} & set(names))
        | {name for name in names if os.path.join(folder, name) in found.left_out}
    )
