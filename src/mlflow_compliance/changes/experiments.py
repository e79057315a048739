"""Changes of experiments: tags, name, soft-deletion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, experiment_in, still
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import ACTIVE, DELETED, Experiment
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class SetExperimentTag(Change):
    """Set a tag, or delete it where `value` is None; `before` is what it was, None where it was not set."""

    applicability = Applicability.SAFE
    in_total = "tag{s} of experiments set"

    experiment_id: str
    key: str
    value: str | None
    before: str | None

    @property
    def entity(self) -> EntityRef:
        return EntityRef("experiment", self.experiment_id)

    def describe(self) -> str:
        if self.value is None:
            return f"delete tag {self.key} of experiment {self.experiment_id}"
        return f"set tag {self.key} of experiment {self.experiment_id} to {self.value!r}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        experiment = experiment_in(snapshot, self.experiment_id)
        still(experiment.tags.get(self.key), self.before, f"tag {self.key} of experiment {self.experiment_id}")
        tags = {key: value for key, value in experiment.tags.items() if key != self.key}
        if self.value is not None:
            tags[self.key] = self.value
        return snapshot.with_experiment(replace(experiment, tags=tags))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {self.key: self.before}, {self.key: self.value}


@dataclass(frozen=True)
class _Renaming:
    """An experiment, the name that it gets, and the one that it had."""

    experiment_id: str
    name: str
    before: str

    @property
    def entity(self) -> EntityRef:
        return EntityRef("experiment", self.experiment_id, self.before)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"name": self.before}, {"name": self.name}


@dataclass(frozen=True)
class RenameExperiment(_Renaming, Change):
    """Give an experiment another name."""

    applicability = Applicability.REVERSIBLE
    in_total = "experiment{s} renamed"

    def describe(self) -> str:
        return f"rename experiment {self.experiment_id} from {self.before!r} to {self.name!r}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        experiment = experiment_in(snapshot, self.experiment_id)
        still(experiment.name, self.before, f"the name of experiment {self.experiment_id}")
        refuse_taken(self.name, snapshot)
        return snapshot.with_experiment(replace(experiment, name=self.name))


@dataclass(frozen=True)
class DeleteExperiment(Change):
    """Soft-delete an experiment and with it its `runs` active runs; files and rows stay until `mlflow gc`.

    `merged_into` is the experiment that its runs were copied into: nothing may have come to them since.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "experiment{s} retired"

    experiment_id: str
    runs: int
    merged_into: str = ""

    @property
    def entity(self) -> EntityRef:
        return EntityRef("experiment", self.experiment_id)

    def describe(self) -> str:
        return f"soft-delete experiment {self.experiment_id} with its runs (it can be restored)"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        experiment = experiment_in(snapshot, self.experiment_id)
        if experiment.assessed_runs:
            raise ChangeError(
                f"experiment {self.experiment_id} has {experiment.assessed_runs} assessed runs: deleting a run "
                "deletes its assessments for good"
            )
        counts: dict[tuple[str, str], int] = {}
        for (_, status), number in experiment.runs.items():
            counts[DELETED, status] = counts.get((DELETED, status), 0) + number
        runs = {
            key: replace(run, lifecycle=DELETED) if run.experiment_id == self.experiment_id else run
            for key, run in snapshot.runs.items()
        }
        deleted = replace(experiment, lifecycle=DELETED, runs=counts)
        known = deleted.deleted_runs if deleted.keeps_deleted_ids else ()
        deleted = replace(deleted, deleted_runs=known)
        return replace(snapshot.with_experiment(deleted), runs=runs).with_lifecycles(self.experiment_id, DELETED)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"lifecycle_stage": ACTIVE}, {"lifecycle_stage": DELETED}


@dataclass(frozen=True)
class RestoreExperiment(Change):
    """Restore a soft-deleted experiment as it was: MLflow also revives the runs deleted one by one before, so those
    go again. `name` is the one that it was deleted under, empty where nobody asks.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "experiment{s} restored"

    experiment_id: str
    deleted_runs: tuple[str, ...]
    counts: tuple[tuple[str, str, int], ...]
    name: str = ""

    @property
    def entity(self) -> EntityRef:
        return EntityRef("experiment", self.experiment_id)

    def describe(self) -> str:
        return (
            f"restore experiment {self.experiment_id} with its runs, {len(self.deleted_runs)} of them deleted as before"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        experiment = snapshot.experiments.get(self.experiment_id)
        if experiment is None:
            raise ChangeError(f"experiment {self.experiment_id} is not there any more")
        why = self.refused(experiment)
        if why:
            raise ChangeError(why)
        if experiment.active:
            return snapshot
        runs = {
            key: replace(run, lifecycle=DELETED if key in self.deleted_runs else ACTIVE)
            if run.experiment_id == self.experiment_id
            else run
            for key, run in snapshot.runs.items()
        }
        counts = self.counted
        restored = replace(experiment, lifecycle=ACTIVE, runs=counts, deleted_runs=tuple(sorted(self.deleted_runs)))
        after = replace(snapshot.with_experiment(restored), runs=runs)
        return after.with_lifecycles(self.experiment_id, ACTIVE, self.deleted_runs)

    @property
    def counted(self) -> dict[tuple[str, str], int]:
        """(lifecycle, status) -> number of runs, as it will be."""
        return {(stage, status): number for stage, status, number in self.counts}

    def refused(self, found: Experiment) -> str:
        """Why an experiment is not restored as it is now, '' where it is, or was already."""
        what = f"experiment {self.experiment_id}"
        if found.active:
            same = dict(found.runs) == self.counted and set(found.deleted_runs) == set(self.deleted_runs)
            return "" if same else f"{what} is active by now, which somebody restored: it is left as it is"
        if self.name and found.name != self.name:
            return f"{what} is now named {found.name!r} and was deleted as {self.name!r}: it is left as it is"
        if found.count():
            return f"{found.count()} of the runs of {what} were restored by somebody: it is left as it is"
        number = sum(self.counted.values())
        if sum(found.runs.values()) != number:
            return f"{what} has {sum(found.runs.values())} runs by now and had {number}: it is left as it is"
        return ""

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"lifecycle_stage": DELETED}, {"lifecycle_stage": ACTIVE}


@dataclass(frozen=True)
class RenameDeletedExperiment(_Renaming, Change):
    """Give a soft-deleted experiment another name; it and its runs stay deleted."""

    applicability = Applicability.REVERSIBLE
    in_total = "deleted experiment{s} renamed"

    def describe(self) -> str:
        return f"rename the deleted experiment {self.experiment_id} from {self.before!r} to {self.name!r}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        experiment = snapshot.experiments.get(self.experiment_id)
        if experiment is None or experiment.active or experiment.count():
            raise ChangeError(
                f"experiment {self.experiment_id} is not there, or it or some of its runs are not deleted: run again "
                "to plan anew"
            )
        still(experiment.name, self.before, f"the name of experiment {self.experiment_id}")
        refuse_taken(self.name, snapshot)
        return snapshot.with_experiment(replace(experiment, name=self.name))


def refuse_taken(name: str, snapshot: Snapshot) -> None:
    """Raise ChangeError where an experiment has a name already."""
    if any(other.name == name for other in snapshot.experiments.values()):
        raise ChangeError(f"the name {name!r} is taken: MLflow names are unique, deleted experiments included")
