"""Stores that are folders of small files, which MLflow gives up: read through MlflowClient, from a copy of their rows."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from mlflow_compliance.entities import Snapshot, StoreInfo
from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.backends.base import Backend
from mlflow_compliance.store.backends.servers import through_client
from mlflow_compliance.store.disk.metric_files import read_repeated
from mlflow_compliance.store.reading.rows import Rows
from mlflow_compliance.uris import without_secrets


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
        with self._copied() as uri:
            snapshot, rows = through_client(uri, self.info, self.settings, also)
        return replace(snapshot, repeated_points=read_repeated(self.folder)), rows

    @contextmanager
    def _copied(self) -> Iterator[str]:
        """A copy of the rows, for MlflowClient: opening a file store in place makes folders in it."""
        folder = self._checked()
        with tempfile.TemporaryDirectory(prefix="mlflow-compliance-") as copied:
            rows = os.path.join(copied, "mlruns")
            shutil.copytree(folder, rows, symlinks=True, ignore=_artifacts)
            for meta in glob.glob(os.path.join(glob.escape(rows), "*", "*", "meta.yaml")):
                # MLflow takes a run for one only with these folders, and git, say, does not keep empty ones.
                for name in ("artifacts", "metrics", "params", "tags"):
                    os.makedirs(os.path.join(os.path.dirname(meta), name), exist_ok=True)
            yield rows

    def _checked(self) -> str:
        folder = self.folder
        if not os.path.isdir(folder):
            raise StoreError(f"there is no file store at {folder}: check the tracking URI (nothing was created)")
        entries = [entry for entry in os.listdir(folder) if os.path.isfile(os.path.join(folder, entry, "meta.yaml"))]
        if not entries:
            raise StoreError(f"the folder {folder} is no MLflow file store (no experiment with a meta.yaml in it): check the tracking URI")
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
            raise StoreError(f"MLflow no longer reads file stores such as {folder} by itself: set MLFLOW_ALLOW_FILE_STORE=true, or migrate it")
        return folder


def _artifacts(folder: str, names: list[str]) -> set[str]:
    """What is left out of the copy of a file store's rows: the artifacts themselves."""
    here = os.path.join(folder, "meta.yaml")
    return {name for name in names if name == "artifacts" and os.path.exists(here)} | ({".quarantine", ".compliance"} & set(names))
