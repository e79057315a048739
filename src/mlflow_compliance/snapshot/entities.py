"""The entities in a Snapshot, as immutable values.

Times are milliseconds since the epoch, as MLflow keeps them; sizes are bytes. Mappings are never written to after
construction: strict typing keeps the code to that, and every step that changes something builds a new value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.tags import COPY_STATE, EXTERNAL, RETIRED_IN, RETRACTED

ACTIVE = "active"
DELETED = "deleted"
DEFAULT = "0"
"""Id of MLflow's Default experiment: where runs go when no experiment is named."""
WORKSPACE = "workspace"
"""What owns the files of another workspace: nothing in them is judged here."""
TERMINAL_STATUSES = frozenset({"FINISHED", "FAILED", "KILLED"})

ALWAYS = 2**63 - 1
"""A time after every other."""

NAN = math.nan
"""The one NaN that readers use: tuples compare members by identity first, so two readings of NaN are equal."""


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
    """An experiment and what SQL can count about its runs; the runs themselves are in `Snapshot.runs` where a rule
    needs them.
    """

    experiment_id: str
    name: str
    lifecycle: str
    artifact_location: str
    tags: Mapping[str, str]
    runs: Mapping[tuple[str, str], int]
    """(lifecycle, status) -> number of runs."""
    deleted_runs: tuple[str, ...] = ()
    """Ids of the runs that are soft-deleted, sorted: needed to restore the experiment as it was. Those of a deleted
    experiment are not read, but for Default, which is restored without them.
    """
    traces: int = 0
    """At least so many where a server was asked and no remedy counts them."""
    loose_models: int = 0
    """Active logged models that no run of this experiment wrote: a copy of its runs leaves them behind."""
    assessed_runs: int = 0
    """Runs with assessments that soft-deleting the run would delete for good."""
    dependents: tuple[tuple[str, int], ...] = ()
    """What else is tied to it and not to its runs (issues, review queues, ...), as people call it, and how many: a
    copy leaves it behind.
    """
    created: int = 0
    """When it was made, in milliseconds; 0 where its row does not say."""

    @property
    def active(self) -> bool:
        return self.lifecycle == ACTIVE

    @property
    def ref(self) -> EntityRef:
        return EntityRef("experiment", self.experiment_id, self.name)

    @property
    def keeps_deleted_ids(self) -> bool:
        """Whether `deleted_runs` are read of it."""
        return self.active or self.experiment_id == DEFAULT

    @property
    def retired(self) -> bool:
        """Whether a repair retired it."""
        return not self.active and RETIRED_IN in self.tags

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
    """The latest of times in rows, in milliseconds; 0 where there is none. A point that is dated after `now` has a
    wrong date.
    """
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
        """Each metric as MLflow shows it: the point of the highest step, of these the latest, of these the highest
        (NaN counts as 0).
        """
        return {key: max(points, key=_as_mlflow_orders).value for key, points in self.metrics.items() if points}

    def last_known_time(self, now: int) -> int:
        """The latest time that anything in its rows is dated, in milliseconds; 0 where nothing is. What lies after
        `now` is no time.
        """
        return latest_time(
            now, (self.start_time,), (point.timestamp for points in self.metrics.values() for point in points)
        )


def is_retracted(lifecycle: str, tags: Mapping[str, str]) -> bool:
    """Whether a run, or a model's run, is a copy that a repair took back: readers pass it over."""
    return lifecycle == DELETED and tags.get(COPY_STATE) == RETRACTED


def is_elsewhere(owner: EntityRef | None) -> bool:
    """Whether files are those of another workspace."""
    return owner is not None and owner.kind == WORKSPACE


def says_external(tags: Mapping[str, str]) -> bool:
    """Whether tags of a logged model say that it is hosted elsewhere; MLflow takes the word in any case."""
    return tags.get(EXTERNAL, "").lower() == "true"


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
        return says_external(self.tags)

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
    run_link: str = ""
    """Where its run is, where that is in another tracking server."""

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


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What the store is: `uri` without credentials, backend ('sqlite', 'file', 'http', ...), schema revision where
    there is one.
    """

    uri: str
    backend: str
    schema: str = ""
    workspace: str = ""

    @property
    def ref(self) -> EntityRef:
        return EntityRef("store", "store", self.uri)


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
