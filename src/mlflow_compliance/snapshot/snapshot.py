"""The store at one moment, as an immutable value.

Mappings are never written to after construction: strict typing keeps the code to that, and every step that changes
something builds a new value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mlflow_compliance.snapshot.damage import DamagedFile
from mlflow_compliance.snapshot.entities import (
    ACTIVE,
    DatasetInput,
    Experiment,
    LoggedModel,
    RegisteredModel,
    RepeatedPoints,
    Run,
    StoreInfo,
)
from mlflow_compliance.snapshot.files import WRITTEN_BY_MLFLOW
from mlflow_compliance.snapshot.journals import Journals
from mlflow_compliance.snapshot.presence import Unknown, Why
from mlflow_compliance.snapshot.row_facts import RowFacts
from mlflow_compliance.snapshot.schema import LostRows, Schema
from mlflow_compliance.snapshot.standing import LostParent, RowState
from mlflow_compliance.snapshot.tags import COMPLETE, COPY_STATE, SOURCE_RUN

if TYPE_CHECKING:
    from mlflow_compliance.snapshot.artifacts import Artifacts
    from mlflow_compliance.snapshot.evidence import Evidence, Source
    from mlflow_compliance.snapshot.ties import How, Tie
    from mlflow_compliance.snapshot.unfinished import HalfMade, OpenTraces


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
    """What rows say about who relies on what, as far as remedies ask for it: see `production.reachability`."""
    untold: Mapping[How, str] = field(default_factory=dict)
    """Kinds of ties that this store could not be asked for -> why. Of what they might keep alive nothing is known."""
    datasets: Mapping[str, tuple[DatasetInput, ...]] = field(default_factory=dict)
    """Experiment that others are to be merged into -> the datasets that it has, without tags: MLflow keeps one of a
    name and digest.
    """
    damaged: tuple[DamagedFile, ...] = ()
    """Only a file store can have such."""
    schema: Schema | None = None
    """None for a store without tables of its own, and behind a server."""
    lost_rows: tuple[LostRows, ...] = ()
    other_workspaces: tuple[str, ...] = ()
    """Workspaces of this store that hold something and were not read."""
    behind_versions: Mapping[str, RowState] = field(default_factory=dict)
    """Runs and logged models that versions name, as far as they have a row. MLflow shows nobody a deleted logged
    model: only SQL does.
    """
    lost_parents: Mapping[str, LostParent] = field(default_factory=dict)
    """Runs that active runs name as their parent and that are deleted or gone, and those above them that are too."""
    half_made: tuple[HalfMade, ...] = ()
    """By kind and id."""
    open_traces: tuple[OpenTraces, ...] = ()
    """By experiment. Surely there where files are: a database has no index to find them by."""
    row_facts: Mapping[tuple[str, str], RowFacts] = field(default_factory=dict, compare=False)
    """(kind, key) of runs and logged models -> what their rows say: of all that are deleted, and of those that
    retention may cover. Only read where the settings speak of retention.
    """
    counted: bool = True
    """False where runs were asked for by filters, through a server and for rules without files: numbers of runs are not
    to be told then, those that are there are at least so many; nothing is known of parents.
    """
    journals: Journals = field(default_factory=Journals, compare=False)
    """The journals that were found. What keeps them in the store itself is in none of the other fields."""

    def last_known_time(self, run: Run) -> int:
        """The latest time that a run's rows are dated, in milliseconds; 0 where none is. Files date nothing: a copy
        of a store has new ones.
        """
        return run.last_known_time(self.taken_at)

    def active_experiments(self) -> Iterator[Experiment]:
        """The active experiments, by number where ids are numbers."""
        for key in sorted(self.experiments, key=_numeric):
            if self.experiments[key].active:
                yield self.experiments[key]

    def runs_of(self, experiment_id: str, lifecycle: str = ACTIVE) -> list[Run]:
        """The detailed runs of one experiment, oldest first."""
        return list(self._runs_by_experiment.get((experiment_id, lifecycle), ()))

    def whole_copies(self) -> dict[str, str]:
        """Run -> the active run that is a whole copy of it, made by a repair, and stands for it."""
        return {
            run.tags[SOURCE_RUN]: run.run_id
            for run in self.runs.values()
            if run.active and SOURCE_RUN in run.tags and run.tags.get(COPY_STATE) == COMPLETE
        }

    @cached_property
    def _runs_by_experiment(self) -> dict[tuple[str, str], list[Run]]:
        found: dict[tuple[str, str], list[Run]] = {}
        for run in sorted(self.runs.values(), key=lambda run: (run.start_time or 0, run.run_id)):
            found.setdefault((run.experiment_id, run.lifecycle), []).append(run)
        return found

    @property
    def may_lie_elsewhere(self) -> bool:
        """Whether what has no row here may have one in another workspace: a server shows those of one alone."""
        return bool(self.info.workspace) and self.info.backend in ("http", "https")

    def state_of(self, key: str) -> RowState | None:
        """Whether a run or logged model is kept; None where it has no row, or none that rules asked for."""
        if key in self.runs:
            return RowState(self.runs[key].lifecycle, self.runs[key].experiment_id)
        if key in self.logged_models:
            return RowState(self.logged_models[key].lifecycle, self.logged_models[key].experiment_id)
        row = self.row_facts.get(("run", key)) or self.row_facts.get(("logged_model", key))
        return RowState(row.lifecycle, row.experiment_id) if row else self.behind_versions.get(key)

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
        """The folders with an MLmodel that a run logged: its logged models, and what lies among its own artifacts
        (before MLflow 3).
        """
        if self.artifacts is None:
            return []
        models = [model.ref for model in self.models_of(run.run_id) if not model.external or self._has_files(model)]
        places = [self.artifacts.locations.get(item.place) for item in (*models, run.ref)]
        return [model.path for place in places if place for model in self.artifacts.models_in(place)]

    def _has_files(self, model: LoggedModel) -> bool:
        """Whether an external model has files here whatever its tag says: more than what MLflow writes so that it
        can be registered.
        """
        place = self.artifacts.locations.get(model.ref.place) if self.artifacts else None
        found = self.artifacts.under(place) if self.artifacts and place else ()
        return any(path.rpartition("/")[2] not in WRITTEN_BY_MLFLOW for path in found)

    def hosted_elsewhere(self, run: Run) -> bool:
        """Whether the only models that a run wrote are external ones; one that is not READY is none yet."""
        written = [model.external for model in self.models_of(run.run_id) if model.external or model.status == "READY"]
        return bool(written) and all(written) and not self.model_folders(run)

    def unknown_files(self, run: Run) -> Unknown | None:
        """Why not all that a run logged could be looked at, None where it was."""
        if self.artifacts is None:
            return Unknown(Why.NOT_READ, "", "no file was looked at in this session")
        places = (run.ref, *(model.ref for model in self.models_of(run.run_id)))
        return next(
            (self.artifacts.unknown[item.place] for item in places if item.place in self.artifacts.unknown), None
        )

    def with_experiment(self, experiment: Experiment) -> Snapshot:
        """This snapshot with one experiment put in the place of the one with its id."""
        return replace(self, experiments={**self.experiments, experiment.experiment_id: experiment})

    def with_lifecycles(self, experiment_id: str, lifecycle: str, but: Collection[str] = ()) -> Snapshot:
        """This snapshot with what the rows of an experiment's runs say of their lives, as MLflow deletes or restores
        them with it, but for some.
        """
        if not self.row_facts:
            return self
        found = {
            place: replace(row, lifecycle=lifecycle)
            if row.kind == "run" and row.experiment_id == experiment_id and row.key not in but
            else row
            for place, row in self.row_facts.items()
        }
        return replace(self, row_facts=found)

    def with_registered(self, model: RegisteredModel) -> Snapshot:
        """This snapshot with one registered model put in the place of the one with its name."""
        return replace(self, registered_models={**self.registered_models, model.name: model})

    def with_run(self, run: Run) -> Snapshot:
        """This snapshot with one detailed run put in the place of the one with its id."""
        return replace(self, runs={**self.runs, run.run_id: run})


def _numeric(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if key.isdigit() else (1, 0, key)
