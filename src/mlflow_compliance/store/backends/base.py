"""What every kind of store can be asked, whatever keeps its rows."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compliance.artifacts import Artifacts
from mlflow_compliance.entities import Experiment, LoggedModel, Run, Snapshot, StoreInfo
from mlflow_compliance.errors import StoreError
from mlflow_compliance.settings import Settings
from mlflow_compliance.store.reading.rows import Rows
from mlflow_compliance.uris import without_secrets


@dataclass(frozen=True)
class Backend(ABC):
    """The rows of one store, behind one tracking URI."""

    uri: str
    settings: Settings

    writes: ClassVar[bool] = False
    """Whether --fix may write to stores of this kind."""
    rows: ClassVar[bool] = True
    """Whether it may write rows: of a file store it only mends metric files, and opening one through MLflow makes folders in it."""

    @property
    def info(self) -> StoreInfo:
        """What the store is, without credentials."""
        return StoreInfo(without_secrets(self.uri).partition("?")[0], self.uri.partition(":")[0].partition("+")[0])

    @property
    def tells_spellings_apart(self) -> bool:
        """Whether `stage` and `Stage` are surely two names to it."""
        return True

    @property
    def home(self) -> str | None:
        """The folder that the store lies in, None where it lies in none on this machine."""
        return None

    def identity(self) -> str:
        """What tells this database from a copy of it, whatever it is called by, and stays when it is moved."""
        return self.info.uri

    def own(self) -> list[str]:
        """Files of the store itself that may lie below an artifact root: never anybody's strays."""
        return []

    @abstractmethod
    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        """The store without its files, and where its rows say that files lie. `also` are run ids to bring in full.

        Raises StoreError where the store is missing, locked, foreign or out of reach.
        """

    def read_metadata(self, also: Collection[str]) -> tuple[Snapshot, Rows | None]:
        """The store for rules that look at no files; Rows are None where not reading them spares work.

        Whoever needs them then calls `read`, for both as of one moment: locations must never be older than the walk that they are for.
        """
        return self.read(also)

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        """Runs in full with the logged models that they wrote, as they are now; ids that are not there are left out."""
        snapshot, _ = self.read(run_ids)
        return {key: run for key, run in snapshot.runs.items() if key in run_ids}, dict(snapshot.logged_models)

    def newest_row(self, before: int) -> int | None:
        """When the newest row that people made before a moment is dated, both in milliseconds; None where that cannot be told."""
        return None

    def reach(self) -> None:  # noqa: B027  a file does not go away
        """Raise StoreError where a server that keeps the rows does not answer."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second repair of this store out, from other machines too where the store can do that. Raises StoreError where one is running."""
        yield

    def keep_what_is_hidden(self, artifacts: Artifacts) -> Artifacts:
        """Artifacts whose ownerless entries are marked where rows may own them that a store of this kind does not show."""
        return artifacts

    def refuse_other_files(self, artifacts: Artifacts) -> None:  # noqa: B027  most kinds know their files by their paths
        """Raise StoreError where the files here are not those that the rows speak of."""

    def counted(self, experiment_id: str) -> Experiment | None:
        """One experiment as it is now, its runs counted; None where it is not there."""
        return self.read_metadata(())[0].experiments.get(experiment_id)

    def refuse_writing(self) -> None:
        """Raise StoreError for a store that this version only audits."""
        if not self.writes:
            raise StoreError(f"--fix does not write to stores of kind {self.info.backend!r}, as {self.info.uri} is: nothing was changed")

    def refuse_other_schema(self) -> None:  # noqa: B027  most kinds have none of their own
        """Raise StoreError where the tables are not those of the installed MLflow."""


def workspace() -> str:
    """The caller's workspace, as MLflow itself takes it from the environment."""
    return os.environ.get("MLFLOW_WORKSPACE") or "default"
