"""What every kind of store can be asked, whatever keeps its rows."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from mlflow_compliance.errors import StoreError
from mlflow_compliance.progress import Progress
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.doomed import Doom
from mlflow_compliance.snapshot.entities import (
    Experiment,
    LoggedModel,
    MetricPoint,
    ModelVersion,
    RegisteredModel,
    Run,
    StoreInfo,
)
from mlflow_compliance.snapshot.moved import PlaceInRow
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.ties import How, Tie, ids_in, sources_of
from mlflow_compliance.store.storage.parsing import parse_json


@dataclass(frozen=True)
class Backend(ABC):
    """The rows of one store, behind one tracking URI."""

    uri: str
    settings: Settings

    writes: ClassVar[bool] = False
    """Whether --fix may write to stores of this kind."""
    rows: ClassVar[bool] = True
    """Whether it may write rows: of a file store it only mends metric files, and opening one through MLflow makes
    folders in it.
    """

    keeps_journals: ClassVar[bool] = False
    """Whether a repair keeps its journal in the store too: where the folder of the journals is not beside the store,
    another folder would know nothing of it.
    """

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

    def watch(self, progress: Progress) -> None:  # noqa: B027  most kinds are read at once
        """Show from now on how far a reading is that takes long."""

    def read_metadata(self, also: Collection[str]) -> tuple[Snapshot, Rows | None]:
        """The store for rules that look at no files; Rows are None where not reading them spares work.

        Whoever needs them then calls `read`, for both as of one moment: locations must never be older than the walk
        that they are for.
        """
        return self.read(also)

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        """Runs in full with the logged models that they wrote, as they are now; ids that are not there are left out."""
        snapshot, _ = self.read(run_ids)
        return {key: run for key, run in snapshot.runs.items() if key in run_ids}, dict(snapshot.logged_models)

    def known_traces(self, ids: Collection[str]) -> Collection[str] | None:
        """Those of some ids that are ids of traces, as of now and in any workspace; None where that cannot be told."""
        return None

    def newest_row(self, before: int) -> int | None:
        """When the newest row that people made before a moment is dated, both in milliseconds; None where that
        cannot be told.
        """
        return None

    def reach(self) -> None:  # noqa: B027  a file store does not go away
        """Raise StoreError where a server that keeps the rows does not answer, or a file that does takes no writing."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second repair of this store out, from other machines too where the store can do that. Raises
        StoreError where one is running.
        """
        yield

    def keep_what_is_hidden(self, artifacts: Artifacts) -> Artifacts:
        """Artifacts whose ownerless entries are marked where rows may own them that a store of this kind does not
        show.
        """
        return artifacts

    def refuse_other_files(self, artifacts: Artifacts) -> None:  # noqa: B027  most kinds know their files by their paths
        """Raise StoreError where the files here are not those that the rows speak of."""

    def counted(self, experiment_id: str) -> Experiment | None:
        """One experiment as it is now, its runs counted; None where it is not there."""
        return self.read_metadata(())[0].experiments.get(experiment_id)

    def doomed(self, options: str, older_than: str | None) -> list[Foretold]:
        """What `mlflow gc` with these options would destroy, in each workspace that it goes through. Raises StoreError
        where that cannot be told.
        """
        raise StoreError(
            f"what mlflow gc would destroy is read from the tables of a database, and {self.info.uri} is "
            f"{'a tracking server' if self.info.backend in ('http', 'https') else 'none'}: give the URI of the "
            "database (--tracking-uri)"
        )

    def left_by_repairs(self, homes: Collection[str]) -> Foretold:
        """What lies in experiments that repairs retired, and the copies that repairs took back. Raises StoreError where
        the store has no tables that can be asked.
        """
        raise AssertionError(f"{self.info.uri} was to be refused before: {len(homes)} experiments")

    def refuse_purge(self) -> None:
        """Raise StoreError where the store has no tables of its own that can be asked and written to."""
        raise StoreError(
            f"a purge needs the tables of a database, and {self.info.uri} is "
            f"{'a tracking server' if self.info.backend in ('http', 'https') else 'none'}: give the URI of the "
            "database (--tracking-uri); nothing was changed"
        )

    def refuse_writing(self) -> None:
        """Raise StoreError for a store that this version only audits."""
        if not self.writes:
            raise StoreError(
                f"--fix does not write to stores of kind {self.info.backend!r}, as {self.info.uri} is: nothing "
                "was changed"
            )

    def refuse_other_schema(self) -> None:  # noqa: B027  most kinds have none of their own
        """Raise StoreError where the tables are not those of the installed MLflow."""


def workspace() -> str:
    """The caller's workspace, as MLflow itself takes it from the environment."""
    return os.environ.get("MLFLOW_WORKSPACE") or "default"


class NoFilterError(Exception):
    """What rules need cannot be asked for by filters: all runs must be gone through."""


class Rows(NamedTuple):
    """Every artifact location in the store, deleted rows included, and the ids of the logged models that say READY."""

    locations: tuple[Location, ...]
    ready_models: frozenset[str]
    folders: tuple[Location, ...] = ()
    """Folders that belong to a row and hold no artifacts of their own: those of a file store's rows."""
    elsewhere: tuple[PlaceInRow, ...] = ()
    """What could be rewritten of the places that are read through [store.relocate]; nothing where the rows are not
    read by SQL.
    """
    newest: int = 0
    """The latest time that a run or model is dated, in milliseconds; 0 where none is."""
    deleted_runs: Mapping[str, int] = {}
    """Id of a run that is soft-deleted -> when it was, in milliseconds; 0 where the store does not say."""


class Foretold(NamedTuple):
    """What gc would destroy in one workspace, and the store at that moment."""

    doom: Doom
    snapshot: Snapshot
    rows: Rows


MODEL_HISTORY = "mlflow.log-model.history"
"""Tag in which a run records the models that it logged, before logged models were entities."""
PROMPT_HOMES = "_mlflow_experiment_ids"
"""Tag of a prompt: the experiments that it is linked to."""
IS_PROMPT = "mlflow.prompt.is_prompt"
"""Tag of a registered 'model' that is a prompt: MLflow keeps both in the same tables."""


def model_places(run_id: str, experiment_id: str, uri: str, history: str) -> list[Location]:
    """Where a run's own record says that it logged models (before MLflow 3): there must be something there."""
    try:
        paths = {str(entry["artifact_path"]) for entry in parse_json(history)}
    except (ValueError, TypeError, KeyError):
        return []
    return [
        Location(EntityRef("run_model", f"{run_id}/{path}"), experiment_id, f"{uri}/{path}")
        for path in sorted(paths)
        if path and uri
    ]


def home_of(version: ModelVersion, homes: Mapping[str, str]) -> str:
    """The experiment of a version's source, empty where that is gone."""
    return next((homes[key] for key in sources_of(version) if key in homes), "")


def fresh_since(settings: Settings, now: int) -> int:
    """What is dated later than this shows that something is at work, in milliseconds like `now`."""
    return max(0, int(now - settings.runs.running_max_hours * 3_600_000))


def sorted_points(points: Iterable[MetricPoint]) -> tuple[MetricPoint, ...]:
    """A history in a stable order; NaN, which has no order, goes by its text."""
    return tuple(sorted(points, key=lambda point: (point.timestamp, point.step, str(point.value))))


def traces_of(experiment_id: str) -> EntityRef:
    """The traces of an experiment, as the source of a tie."""
    return EntityRef("traces", experiment_id, f"of experiment {experiment_id}")


def belongs(how: How, kind: str, key: str, name: str, experiment_id: str) -> Tie:
    """The tie of something that people made in an experiment."""
    return Tie(how, EntityRef(kind, key, name), EntityRef("experiment", experiment_id), "", experiment_id)


def version_ties(
    registry: Mapping[str, RegisteredModel],
    homes: Mapping[tuple[str, str], str],
    writers: Mapping[str, str],
    written_in: Mapping[str, str],
) -> Iterator[Tie]:
    """What versions name; `homes` knows the experiments of runs and models, `writers` the run that wrote a model,
    `written_in` where that run is.
    """
    for item in registry.values():
        for version in item.versions:
            for place in itertools.product(("run", "logged_model"), ids_in(version)):
                if place in homes:
                    yield Tie(How.VERSION, version.ref, EntityRef(*place), version.experiment_id, homes[place])
                    run_id = writers.get(place[1], "") if place[0] == "logged_model" else ""
                    if run_id in written_in:
                        yield Tie(
                            How.WRITTEN_BY,
                            EntityRef(*place),
                            EntityRef("run", run_id),
                            homes[place],
                            written_in[run_id],
                        )
