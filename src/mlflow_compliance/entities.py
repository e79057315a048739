"""The store as an immutable value: a Snapshot and the entities in it.

Times are milliseconds since the epoch, as MLflow keeps them; sizes are bytes. Mappings are never written to after
construction: strict typing keeps the code to that, and every step that changes something builds a new value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mlflow_compliance.snapshot.damage import DamagedFile
from mlflow_compliance.snapshot.presence import Unknown, Why
from mlflow_compliance.snapshot.schema import LostRows, Schema

if TYPE_CHECKING:
    from mlflow_compliance.artifacts import Artifacts
    from mlflow_compliance.evidence import Evidence, Source
    from mlflow_compliance.snapshot.ties import How, Tie

Kept = TypeVar("Kept")

ACTIVE = "active"
DELETED = "deleted"
EXTERNAL = "mlflow.model.isExternal"
"""Tag, 'true', of a logged model that is hosted elsewhere: it says READY and has no files."""
TERMINAL_STATUSES = frozenset({"FINISHED", "FAILED", "KILLED"})

ALWAYS = 2**63 - 1
"""A time after every other."""

NAN = math.nan
"""The one NaN that readers use: tuples compare members by identity first, so two readings of NaN are equal."""


class EntityRef(NamedTuple):
    """What a finding is about. `kind` and `key` are safe in an id; `label` is what people call it and may be hostile."""

    kind: str
    key: str
    label: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """What it is looked up by in `Artifacts.locations`."""
        return self.kind, self.key

    def __str__(self) -> str:
        return f"{self.kind} {self.label or self.key}"


class MetricPoint(NamedTuple):
    """One logged value of a metric; `timestamp` in milliseconds."""

    value: float
    timestamp: int
    step: int


class ModelMetric(NamedTuple):
    """One value of a metric of a logged model, and the dataset that it was measured on where one is named."""

    key: str
    value: float
    timestamp: int
    step: int
    dataset_name: str
    dataset_digest: str


class DatasetInput(NamedTuple):
    """A dataset that a run was given; `tags` holds the context (train, eval) among others, sorted."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None
    profile: str | None
    tags: tuple[tuple[str, str], ...]


class ModelLink(NamedTuple):
    """A logged model that a run read ('input') or wrote ('output')."""

    direction: str
    model_id: str
    step: int


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment and what SQL can count about its runs; the runs themselves are in `Snapshot.runs` where a rule needs them."""

    experiment_id: str
    name: str
    lifecycle: str
    artifact_location: str
    tags: Mapping[str, str]
    runs: Mapping[tuple[str, str], int]
    """(lifecycle, status) -> number of runs."""
    deleted_runs: tuple[str, ...] = ()
    """Ids of the runs that are soft-deleted, sorted: needed to restore the experiment as it was."""
    traces: int = 0
    loose_models: int = 0
    """Active logged models that no run of this experiment wrote: a copy of its runs leaves them behind."""
    assessed_runs: int = 0
    """Runs with assessments that soft-deleting the run would delete for good."""
    belongings: tuple[tuple[str, int], ...] = ()
    """What else is tied to it and not to its runs (issues, review queues, ...), as people call it, and how many: a copy leaves it behind."""

    @property
    def active(self) -> bool:
        return self.lifecycle == ACTIVE

    @property
    def ref(self) -> EntityRef:
        return EntityRef("experiment", self.experiment_id, self.name)

    @property
    def retired_name(self) -> str:
        """The name that frees its own one when it is retired."""
        return f"{self.own_name} (retired {self.experiment_id})"

    @property
    def own_name(self) -> str:
        """Its name without what a retirement adds: after one that was broken off, rules still know it by this."""
        return self.name.removesuffix(f" (retired {self.experiment_id})")

    def count(self, lifecycle: str = ACTIVE, status: str | None = None) -> int:
        """The number of runs of a lifecycle, of one status or of all."""
        return sum(n for (stage, state), n in self.runs.items() if stage == lifecycle and status in (None, state))


def _as_mlflow_orders(point: MetricPoint) -> tuple[int, int, float]:
    return point.step, point.timestamp, 0.0 if math.isnan(point.value) else point.value


AHEAD = 86_400_000
"""Milliseconds that another machine's clock may be ahead of this one's: what is dated later has a wrong date."""


def latest_time(now: int, begun_or_ended: Iterable[int | None], logged: Iterable[int | None]) -> int:
    """The latest of times in rows, in milliseconds; 0 where there is none. A point that is dated after `now` has a wrong date."""
    clocks = [time for time in begun_or_ended if time and time <= now + AHEAD]
    return max([0, *clocks, *(time for time in logged if time and time <= now)])


@dataclass(frozen=True, slots=True)
class Run:
    """A run with everything that MLflow keeps of it."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    lifecycle: str
    start_time: int | None
    end_time: int | None
    """None for a run that has not ended, whatever stands in its row."""
    user: str
    artifact_uri: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, tuple[MetricPoint, ...]]
    """Key -> its whole history, sorted by time, step and value."""
    datasets: tuple[DatasetInput, ...] = ()
    models: tuple[ModelLink, ...] = ()

    @property
    def active(self) -> bool:
        return self.lifecycle == ACTIVE

    @property
    def ref(self) -> EntityRef:
        return EntityRef("run", self.run_id, self.name)

    @property
    def latest(self) -> dict[str, float]:
        """Each metric as MLflow shows it: the point of the highest step, of these the latest, of these the highest (NaN counts as 0)."""
        return {key: max(points, key=_as_mlflow_orders).value for key, points in self.metrics.items() if points}

    def last_known_time(self, now: int) -> int:
        """The latest time that anything in its rows is dated, in milliseconds; 0 where nothing is. What lies after `now` is no time."""
        return latest_time(now, (self.start_time,), (point.timestamp for points in self.metrics.values() for point in points))


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A logged model (MLflow 3), detailed where its run is."""

    model_id: str
    experiment_id: str
    name: str
    lifecycle: str
    status: str
    source_run_id: str | None
    artifact_location: str
    model_type: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[ModelMetric, ...] = ()

    @property
    def active(self) -> bool:
        return self.lifecycle == ACTIVE

    @property
    def external(self) -> bool:
        """Whether it is hosted elsewhere, and has no files."""
        return self.tags.get(EXTERNAL) == "true"

    @property
    def ref(self) -> EntityRef:
        return EntityRef("logged_model", self.model_id, self.name)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model; `location` is where its files lie, `source` what it was registered from."""

    name: str
    version: str
    run_id: str | None
    source: str
    location: str
    status: str
    stage: str
    tags: Mapping[str, str] = field(default_factory=dict)
    experiment_id: str = ""
    """The experiment of its run or logged model; empty where neither is there any more."""
    external: bool = False
    """Whether it is that of a model that is hosted elsewhere: it has no files."""

    @property
    def ref(self) -> EntityRef:
        return EntityRef("model_version", f"{self.name}/{self.version}", f"{self.name} version {self.version}")


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model with its versions (by number) and aliases (alias -> version)."""

    name: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]
    versions: tuple[ModelVersion, ...]

    @property
    def ref(self) -> EntityRef:
        return EntityRef("registered_model", self.name, self.name)

    def version(self, number: str | None) -> ModelVersion | None:
        """The version with a number, None where there is none."""
        return next((version for version in self.versions if version.version == number), None)


class Location(NamedTuple):
    """Where a row says that its files lie, as written in the row."""

    owner: EntityRef
    experiment_id: str
    uri: str


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What the store is: `uri` without credentials, backend ('sqlite', 'file', 'http', ...), schema revision where there is one."""

    uri: str
    backend: str
    schema: str = ""
    workspace: str = ""


class RepeatedPoints(NamedTuple):
    """A metric file of a file store that MLflow's tables cannot take as it is."""

    owner: EntityRef
    metric: str
    repeats: int
    """Points that an earlier line holds already."""
    clashes: int
    """Points of a logged model that differ from an earlier one in their value alone: the tables take one of them."""
    sha256: str
    size: int
    """In bytes, without the repeats."""


@dataclass(frozen=True)
class Snapshot:
    """The store at one moment. Policies look only at this; changes are functions on it."""

    info: StoreInfo
    taken_at: int
    experiments: Mapping[str, Experiment]
    runs: Mapping[str, Run]
    """Only the runs that a rule or a remedy needs in full, by id; the others are counted in their experiment."""
    logged_models: Mapping[str, LoggedModel]
    registered_models: Mapping[str, RegisteredModel]
    artifacts: Artifacts | None = None
    """None where no rule that was collected looks at files."""
    evidence: Evidence | None = None
    """None where no rule that was collected asks what files prove."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Product -> what the settings name for its production run. Built when it is first looked up: only remedies do."""
    repeated_points: Mapping[str, RepeatedPoints] = field(default_factory=dict)
    """Path of a metric file -> the points that it holds more than once. Only a file store can hold such."""
    ties: tuple[Tie, ...] = ()
    """What rows say about who relies on what, as far as remedies ask for it: see `snapshot.reachability`."""
    untold: Mapping[How, str] = field(default_factory=dict)
    """Kinds of ties that this store could not be asked for -> why. Of what they might keep alive nothing is known."""
    datasets: Mapping[str, tuple[DatasetInput, ...]] = field(default_factory=dict)
    """Experiment that others are to be merged into -> the datasets that it has, without tags: MLflow keeps one of a name and digest."""
    damaged: tuple[DamagedFile, ...] = ()
    """Only a file store can have such."""
    schema: Schema | None = None
    """None for a store without tables of its own, and behind a server."""
    lost_rows: tuple[LostRows, ...] = ()
    other_workspaces: tuple[str, ...] = ()
    """Workspaces of this store that hold something and were not read."""

    def remembered(self, name: str, compute: Callable[[], Kept], given: object = None) -> Kept:
        """What follows from this value and from another immutable one that is `given`, computed once: rules ask the same for every entity."""
        known: dict[tuple[str, int], tuple[object, Kept]] = vars(self).setdefault("_remembered", {})
        key = name, id(given)
        if key not in known:
            known[key] = given, compute()  # held as well as its result: its id stands for it as long as it lives
        return known[key][1]

    def last_known_time(self, run: Run) -> int:
        """The latest time that a run's rows are dated, in milliseconds; 0 where none is. Files date nothing: a copy of a store has new ones."""
        return run.last_known_time(self.taken_at)

    def active_experiments(self) -> Iterator[Experiment]:
        """The active experiments, by number where ids are numbers."""
        for key in sorted(self.experiments, key=_numeric):
            if self.experiments[key].active:
                yield self.experiments[key]

    def runs_of(self, experiment_id: str, lifecycle: str = ACTIVE) -> list[Run]:
        """The detailed runs of one experiment, oldest first."""
        return list(self.remembered("runs by experiment", self._runs_by_experiment).get((experiment_id, lifecycle), ()))

    def _runs_by_experiment(self) -> dict[tuple[str, str], list[Run]]:
        found: dict[tuple[str, str], list[Run]] = {}
        for run in sorted(self.runs.values(), key=lambda run: (run.start_time or 0, run.run_id)):
            found.setdefault((run.experiment_id, run.lifecycle), []).append(run)
        return found

    def models_of(self, run_id: str) -> list[LoggedModel]:
        """The active logged models that a run wrote, by id."""
        return sorted(self._models_by_run.get(run_id, ()), key=lambda model: model.model_id)

    @cached_property
    def _models_by_run(self) -> Mapping[str, list[LoggedModel]]:
        found: dict[str, list[LoggedModel]] = {}
        for model in self.logged_models.values():
            if model.active and model.source_run_id is not None:
                found.setdefault(model.source_run_id, []).append(model)
        return found

    def model_folders(self, run: Run) -> list[str]:
        """The folders with an MLmodel that a run logged: its logged models, and what lies among its own artifacts (before MLflow 3)."""
        if self.artifacts is None:
            return []
        places = [self.artifacts.locations.get(item.place) for item in (*(model.ref for model in self.models_of(run.run_id)), run.ref)]
        return [model.path for place in places if place for model in self.artifacts.models_in(place)]

    def unknown_files(self, run: Run) -> Unknown | None:
        """Why not all that a run logged could be looked at, None where it was."""
        if self.artifacts is None:
            return Unknown(Why.NOT_READ, "", "no file was looked at in this session")
        places = (run.ref, *(model.ref for model in self.models_of(run.run_id)))
        return next((self.artifacts.unknown[item.place] for item in places if item.place in self.artifacts.unknown), None)

    def with_experiment(self, experiment: Experiment) -> Snapshot:
        """This snapshot with one experiment put in the place of the one with its id."""
        return replace(self, experiments={**self.experiments, experiment.experiment_id: experiment})

    def with_registered(self, model: RegisteredModel) -> Snapshot:
        """This snapshot with one registered model put in the place of the one with its name."""
        return replace(self, registered_models={**self.registered_models, model.name: model})

    def with_run(self, run: Run) -> Snapshot:
        """This snapshot with one detailed run put in the place of the one with its id."""
        return replace(self, runs={**self.runs, run.run_id: run})


def _numeric(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if key.isdigit() else (1, 0, key)
