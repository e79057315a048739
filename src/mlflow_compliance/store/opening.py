"""Finds out what a tracking URI points to and opens it: for reading without a trace, for writing only when asked."""

from __future__ import annotations

import glob
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_compliance.entities import LoggedModel, Run, Snapshot, StoreInfo
from mlflow_compliance.errors import StoreError, first_line
from mlflow_compliance.progress import Progress, Silent
from mlflow_compliance.settings import Settings
from mlflow_compliance.store.hashing import hash_candidates
from mlflow_compliance.store.inventory import read_artifacts
from mlflow_compliance.store.locations import without_credentials, without_secrets
from mlflow_compliance.store.neighbours import keep_what_neighbours_own
from mlflow_compliance.store.records import read_records
from mlflow_compliance.store.rows import Rows
from mlflow_compliance.store.sqlite import reading, sqlite_path

if TYPE_CHECKING:
    from mlflow_compliance.store.evidence_reading import Workshop


@dataclass(frozen=True)
class Store:
    """One store, as a place to read Snapshots from. `folder` holds its journals and the hashes on record."""

    uri: str
    settings: Settings
    folder: str

    @property
    def info(self) -> StoreInfo:
        scheme = self.uri.partition(":")[0].partition("+")[0] if "://" in self.uri else "file"
        shown = f"sqlite:///{sqlite_path(self.uri)}" if scheme == "sqlite" else without_credentials(self.uri)
        return StoreInfo(shown, scheme)

    def read(self, *, artifacts: bool, also: Collection[str] = (), progress: Progress | None = None) -> Snapshot:
        """The store now; see `read_rows` and `read_files`."""
        progress = progress or Silent()
        snapshot, rows = self.read_rows(also, progress)
        return self.read_files(snapshot, rows, progress) if artifacts else snapshot

    def read_rows(self, also: Collection[str] = (), progress: Progress | None = None) -> tuple[Snapshot, Rows]:
        """The store without its files, and where its rows say that files lie. `also` are run ids to bring in full.

        Raises StoreError where the store is missing, locked, foreign or out of reach.
        """
        progress = progress or Silent()
        progress.start("Reading the store", None)
        try:
            return self._rows(also)
        finally:
            progress.stop()

    def read_files(self, snapshot: Snapshot, rows: Rows, progress: Progress | None = None) -> Snapshot:
        """A snapshot with its artifact side: one walk over the local roots, hashes where files may be duplicates, and evidence for who asks."""
        progress = progress or Silent()
        base = self.settings.base
        found = read_artifacts(
            rows.locations,
            relocate=self.settings.store.resolved_relocate(base),
            roots=self.settings.store.resolved_roots(base),
            ignore=self.settings.store.ignore,
            rules=self.settings.duplicate_rules(),
            file_store=self.info.backend == "file",
            ready_models=rows.ready_models,
            recorded=read_records(self.folder),
            progress=progress,
            own=self._own(),
        )
        if found.ownerless and self.info.backend == "sqlite":
            found = keep_what_neighbours_own(found, sqlite_path(self.uri))
        from mlflow_compliance.store.evidence_reading import with_evidence

        return with_evidence(replace(snapshot, artifacts=hash_candidates(found, progress)), self.workshop, self.uri, progress)

    @cached_property
    def workshop(self) -> Workshop:
        """What was computed from this store's files, and from those that the settings name."""
        from mlflow_compliance.store.evidence_reading import Workshop

        return Workshop(self.settings)

    def _own(self) -> list[str]:
        """Files of the store itself that may lie below an artifact root: never anybody's strays."""
        own = [self.folder, *([str(self.settings.path)] if self.settings.path else [])]
        if self.info.backend == "sqlite":
            database = sqlite_path(self.uri)
            own += [database + ending for ending in ("", "-wal", "-shm", "-journal")]
        return own

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        """Runs in full with the logged models that they wrote, as they are now; ids that are not there are left out."""
        if self.info.backend == "sqlite":
            from mlflow_compliance.store.sql_reading import SqlReader

            with reading(self.uri, self.settings.store.busy_timeout) as connection:
                return SqlReader(connection, _workspace()).details(run_ids)
        snapshot, _ = self._rows(run_ids)
        return {key: run for key, run in snapshot.runs.items() if key in run_ids}, dict(snapshot.logged_models)

    def _rows(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        if self.info.backend == "sqlite":
            from mlflow_compliance.store.sql_reading import SqlReader

            with reading(self.uri, self.settings.store.busy_timeout) as connection:
                reader = SqlReader(connection, _workspace())
                return reader.read(self.info, self.settings, also)
        with self._client_uri() as uri:
            return _through_client(uri, self.info, self.settings, also)

    @contextmanager
    def _client_uri(self) -> Iterator[str]:
        """The URI for MlflowClient. A file store is read from a copy of its rows: opening it in place makes folders in it."""
        if self.info.backend != "file":
            yield self.uri
            return
        folder = self._file_store()
        with tempfile.TemporaryDirectory(prefix="mlflow-compliance-") as copied:
            rows = os.path.join(copied, "mlruns")
            shutil.copytree(folder, rows, symlinks=True, ignore=_artifacts)
            for meta in glob.glob(os.path.join(glob.escape(rows), "*", "*", "meta.yaml")):
                # MLflow takes a run for one only with these folders, and git, say, does not keep empty ones.
                for name in ("artifacts", "metrics", "params", "tags"):
                    os.makedirs(os.path.join(os.path.dirname(meta), name), exist_ok=True)
            yield rows

    def _file_store(self) -> str:
        folder = self.uri.removeprefix("file://")
        if not os.path.isdir(folder):
            raise StoreError(f"there is no file store at {folder}: check the tracking URI (nothing was created)")
        entries = [entry for entry in os.listdir(folder) if os.path.isfile(os.path.join(folder, entry, "meta.yaml"))]
        if not entries:
            raise StoreError(f"the folder {folder} is no MLflow file store (no experiment with a meta.yaml in it): check the tracking URI")
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
            raise StoreError(f"MLflow no longer reads file stores such as {folder} by itself: set MLFLOW_ALLOW_FILE_STORE=true, or migrate it")
        return folder


def _workspace() -> str:
    return os.environ.get("MLFLOW_WORKSPACE") or "default"


def _artifacts(folder: str, names: list[str]) -> set[str]:
    """What is left out of the copy of a file store's rows: the artifacts themselves."""
    here = os.path.join(folder, "meta.yaml")
    return {name for name in names if name == "artifacts" and os.path.exists(here)} | ({".quarantine", ".compliance"} & set(names))


def _through_client(uri: str, info: StoreInfo, settings: Settings, also: Collection[str]) -> tuple[Snapshot, Rows]:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    from mlflow_compliance.store.client_reading import ClientReader

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        return ClientReader(MlflowClient(tracking_uri=uri), file_store=info.backend == "file").read(info, settings, also)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        said = without_secrets(first_line(error), uri)
        raise StoreError(f"the store {info.uri} cannot be read through MLflow: {said}") from error


def open_store(uri: str, settings: Settings, rootdir: str) -> Store:
    """The store behind a tracking URI; it must exist. `rootdir` holds the journals of a store without a folder of its own."""
    if not uri:
        raise StoreError("no store is named: give --tracking-uri, set MLFLOW_TRACKING_URI, or write [store] tracking_uri in compliance.toml")
    try:
        urlsplit(uri)
    except ValueError as error:
        raise StoreError(f"the tracking URI cannot be read as one ({error}): check it") from error
    if uri.startswith(("databricks", "uc:")):
        raise StoreError(f"stores of kind {uri.partition(':')[0]!r} are not supported: only what open-source MLflow serves")
    if uri.startswith("sqlite:"):
        home = os.path.dirname(sqlite_path(uri))
    elif "://" not in uri or uri.startswith("file:"):
        uri = uri if uri.startswith("file:") else "file://" + os.path.abspath(uri)
        home = os.path.dirname(uri.removeprefix("file://"))
    else:
        home = rootdir
    folder = settings.journal.resolved_folder(settings.base) or os.path.join(home, ".compliance")
    return Store(uri, settings, folder)


def refuse_writing(store: Store, snapshot: Snapshot) -> None:
    """Raise StoreError for a store that this version only audits."""
    if store.info.backend != "sqlite":
        raise StoreError(
            f"--fix writes to SQLite stores only in this version, and {store.info.uri} is of kind {store.info.backend!r}: nothing was changed"
        )
    if snapshot.artifacts is not None and snapshot.artifacts.relocated:
        raise StoreError("--fix does not write to a store that is read through [store.relocate]: its rows point elsewhere; nothing was changed")
