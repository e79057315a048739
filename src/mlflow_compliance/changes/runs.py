"""Changes of runs: tags, status and end, soft-deletion."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, experiment_in, run_in, still
from mlflow_compliance.changes.made import Digests, changed_rows
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import ACTIVE, DELETED, Experiment, Run
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.standing import LostParent
from mlflow_compliance.snapshot.tags import PARENT


@dataclass(frozen=True)
class SetRunTag(Change):
    """Set a tag of a run, or delete it where `value` is None; `before` is what it was, None where it was not set."""

    applicability = Applicability.SAFE
    in_total = "tag{s} of runs set"

    run_id: str
    key: str
    value: str | None
    before: str | None

    @property
    def entity(self) -> EntityRef:
        return EntityRef("run", self.run_id)

    def describe(self) -> str:
        return (
            f"delete tag {self.key} of run {self.run_id}"
            if self.value is None
            else f"set tag {self.key} of run {self.run_id} to {self.value!r}"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        run = run_in(snapshot, self.run_id)
        still(run.tags.get(self.key), self.before, f"tag {self.key} of run {self.run_id}")
        tags = {key: value for key, value in run.tags.items() if key != self.key}
        if self.value is not None:
            tags[self.key] = self.value
        return snapshot.with_run(replace(run, tags=tags))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {self.key: self.before}, {self.key: self.value}


def recount(experiment: Experiment, old: tuple[str, str] | None, new: tuple[str, str] | None) -> Experiment:
    """An experiment with one run less of (lifecycle, status) `old` and one more of `new`."""
    counts = dict(experiment.runs)
    if old:
        counts[old] -= 1
        if not counts[old]:
            del counts[old]
    if new:
        counts[new] = counts.get(new, 0) + 1
    return replace(experiment, runs=counts)


@dataclass(frozen=True)
class _OneRun:
    """A run, and the experiment that it is in."""

    run_id: str
    experiment_id: str

    @property
    def entity(self) -> EntityRef:
        return EntityRef("run", self.run_id)


@dataclass(frozen=True)
class EndRun(_OneRun, Change):
    """End a run that is stuck in RUNNING; `end_time` in milliseconds since the epoch."""

    applicability = Applicability.REVERSIBLE
    in_total = "run{s} ended"

    status: str
    end_time: int
    before: str = "RUNNING"

    def describe(self) -> str:
        return f"set run {self.run_id} from {self.before} to {self.status} with its last known time {self.end_time}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        run = run_in(snapshot, self.run_id)
        still((run.lifecycle, run.status), (ACTIVE, self.before), f"what run {self.run_id} is")
        experiment = recount(
            experiment_in(snapshot, run.experiment_id), (run.lifecycle, run.status), (run.lifecycle, self.status)
        )
        return snapshot.with_experiment(experiment).with_run(replace(run, status=self.status, end_time=self.end_time))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"status": self.before, "end_time": None}, {"status": self.status, "end_time": self.end_time}


@dataclass(frozen=True)
class ReopenRun(_OneRun, Change):
    """Set a run that was ended back to RUNNING, as it was `before`; `before_end` is the end that its row named then,
    which one that goes on may name.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "run{s} reopened"

    status: str
    end_time: int
    before: str = "RUNNING"
    before_end: int | None = None

    def describe(self) -> str:
        return f"set run {self.run_id} from {self.status} back to {self.before}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        run = run_in(snapshot, self.run_id)
        if run.status == self.before:
            return snapshot
        if (run.lifecycle, run.status, run.end_time) != (ACTIVE, self.status, self.end_time):
            raise ChangeError(f"run {self.run_id} is {run.lifecycle} and {run.status} by now: it is left as it is")
        experiment = recount(
            experiment_in(snapshot, run.experiment_id), (run.lifecycle, run.status), (run.lifecycle, self.before)
        )
        return snapshot.with_experiment(experiment).with_run(replace(run, status=self.before, end_time=None))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"status": self.status}, {"status": self.before}


@dataclass(frozen=True)
class RestoreRun(_OneRun, Change):
    """Restore a soft-deleted run in an active experiment."""

    applicability = Applicability.REVERSIBLE
    in_total = "run{s} restored"

    def describe(self) -> str:
        return f"restore run {self.run_id} of experiment {self.experiment_id}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        after = _moved(snapshot, self.run_id, DELETED, ACTIVE)
        lost = {key: parent for key, parent in after.lost_parents.items() if key != self.run_id}
        above = after.runs[self.run_id].tags.get(PARENT, "")
        if above in lost:
            children = lost[above].children
            number = children.get(self.experiment_id, 0) + 1
            lost[above] = lost[above]._replace(children=dict(sorted({**children, self.experiment_id: number}.items())))
        return replace(after, lost_parents=lost)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"lifecycle_stage": DELETED}, {"lifecycle_stage": ACTIVE}


@dataclass(frozen=True)
class DeleteRun(_OneRun, Change):
    """Soft-delete a run that a repair restored: only as its inverse.

    `children` are the active runs that named it as their parent, counted by experiment; `deleted_at` is when it had
    been deleted, in milliseconds; `made` is what it held when it was restored, a digest for each part.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "run{s} soft-deleted"

    children: tuple[tuple[str, int], ...] = ()
    deleted_at: int | None = None
    made: Digests = ()

    def describe(self) -> str:
        return f"soft-delete run {self.run_id} of experiment {self.experiment_id} (it can be restored)"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        run = run_in(snapshot, self.run_id)
        if run.lifecycle == DELETED and experiment_in(snapshot, run.experiment_id):
            return snapshot
        changed = changed_rows(self.made, run, snapshot.models_of(self.run_id), {})
        if changed:
            raise ChangeError(
                f"run {self.run_id} got other {', '.join(sorted(changed))} since it was restored: it stays"
            )
        after, above = _moved(snapshot, self.run_id, ACTIVE, DELETED), run.tags.get(PARENT, "")
        lost = dict(after.lost_parents)
        if self.children:
            lost[self.run_id] = LostParent(self.experiment_id, dict(self.children))
        parent = after.runs.get(above)
        if above in lost:
            number = lost[above].children.get(self.experiment_id, 0) - 1
            rest = {key: count for key, count in lost[above].children.items() if key != self.experiment_id}
            rest |= {self.experiment_id: number} if number > 0 else {}
            lost[above] = lost[above]._replace(children=dict(sorted(rest.items())))
            below = (after.runs[key].tags.get(PARENT) for key in lost if key in after.runs)
            if not rest and above not in below:
                del lost[above]
        elif self.children and parent is not None and not parent.active:
            lost[above] = LostParent(parent.experiment_id, {})
        return replace(after, lost_parents=lost)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"lifecycle_stage": ACTIVE}, {"lifecycle_stage": DELETED}


def _moved(snapshot: Snapshot, run_id: str, before: str, after: str) -> Snapshot:
    """A snapshot with a run in another stage of its life."""
    run = run_in(snapshot, run_id)
    if run.lifecycle != before:
        raise ChangeError(f"run {run_id} is {run.lifecycle} already: run again to plan anew")
    experiment = experiment_in(snapshot, run.experiment_id)
    deleted = {*experiment.deleted_runs} - {run_id} | ({run_id} if after == DELETED else set())
    counted = recount(experiment, (before, run.status), (after, run.status))
    moved = snapshot.with_experiment(replace(counted, deleted_runs=tuple(sorted(deleted))))
    return moved.with_run(replace(run, lifecycle=after))


def without_runs(snapshot: Snapshot, runs: Iterable[Run]) -> Snapshot:
    """A snapshot as it is when runs that a repair made are taken back: without them, their models and their files."""
    for run in runs:
        snapshot = snapshot.with_experiment(
            recount(snapshot.experiments[run.experiment_id], (run.lifecycle, run.status), None)
        )
        gone = {model.model_id for model in snapshot.models_of(run.run_id)}
        places = [("run", run.run_id), *(("logged_model", key) for key in sorted(gone))]
        folders = [snapshot.artifacts.locations.get(place) for place in places] if snapshot.artifacts else []
        snapshot = replace(
            snapshot,
            runs={key: value for key, value in snapshot.runs.items() if key != run.run_id},
            logged_models={key: value for key, value in snapshot.logged_models.items() if key not in gone},
        )
        for folder in folders:
            if folder and snapshot.artifacts:
                snapshot = replace(snapshot, artifacts=snapshot.artifacts.without(os.path.dirname(folder)))
    return snapshot
