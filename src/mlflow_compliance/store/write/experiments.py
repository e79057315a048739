"""The effects of changes on experiments: tags, name, soft-deletion."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from mlflow_compliance.changes import (
    DeleteExperiment,
    RenameDeletedExperiment,
    RenameExperiment,
    RestoreExperiment,
    SetExperimentTag,
)
from mlflow_compliance.changes.base import still
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import ACTIVE, Experiment
from mlflow_compliance.snapshot.tags import COPY_STATE, RETRACTED
from mlflow_compliance.store.backends.listing import pages
from mlflow_compliance.store.write.bulk import (
    deletion_times,
    one_transaction,
    put_deletion_times,
    rename_row,
    tracking_store,
)
from mlflow_compliance.store.write.compare_copies import written_since_copied
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence


def _now(to: OpenStore, experiment_id: str) -> Any:
    """The experiment as MLflow has it now."""
    with one_sentence(f"experiment {experiment_id} could not be read"):
        return to.client.get_experiment(experiment_id)


def _counted(to: OpenStore, experiment_id: str) -> Experiment:
    """The experiment as it is now with what SQL counts about its runs."""
    with one_sentence(f"experiment {experiment_id} could not be read"):
        found = to.store.backend.counted(experiment_id)
    if found is None:
        raise ChangeError(f"experiment {experiment_id} is not there any more: run again to plan anew")
    return found


@write.register(SetExperimentTag)
def set_experiment_tag(change: SetExperimentTag, to: OpenStore) -> None:
    experiment_id, key = change.experiment_id, change.key
    tags = _now(to, experiment_id).tags
    still(tags.get(key), change.before, f"tag {key} of experiment {experiment_id}")
    if change.value is None:
        with one_sentence(f"tag {key} of experiment {experiment_id} could not be deleted"):
            to.client.delete_experiment_tag(experiment_id, key)
    else:
        with to.naming(f"tag {key} of experiment {experiment_id} could not be set", key, tags):
            to.client.set_experiment_tag(experiment_id, key, to.bind(change.value))


@inverse.register(SetExperimentTag)
def undo_set_experiment_tag(change: SetExperimentTag, to: OpenStore) -> SetExperimentTag:
    return SetExperimentTag(
        change.experiment_id, change.key, change.before, None if change.value is None else to.bind(change.value)
    )


@write.register(RenameExperiment)
def rename_experiment(change: RenameExperiment, to: OpenStore) -> None:
    found = _now(to, change.experiment_id)
    still(found.name, change.before, f"the name of experiment {change.experiment_id}")
    _refuse_taken(to, change)
    with one_sentence(f"experiment {change.experiment_id} could not be renamed"):
        to.client.rename_experiment(change.experiment_id, change.name)


def _refuse_taken(to: OpenStore, change: RenameExperiment | RenameDeletedExperiment) -> None:
    with one_sentence(f"the name {change.name!r} could not be looked for"):
        other = to.client.get_experiment_by_name(change.name)
    if other is not None and other.experiment_id != change.experiment_id:
        deleted = "" if other.lifecycle_stage == ACTIVE else "deleted "
        raise ChangeError(
            f"the name {change.name!r} is taken by {deleted}experiment {other.experiment_id} by now: experiment "
            f"{change.experiment_id} stays {change.before!r}"
        )


@inverse.register(RenameExperiment)
def undo_rename_experiment(change: RenameExperiment, to: OpenStore) -> RenameExperiment:
    return RenameExperiment(change.experiment_id, change.before, change.name)


@write.register(DeleteExperiment)
def delete_experiment(change: DeleteExperiment, to: OpenStore) -> None:
    key = change.experiment_id
    before = _counted(to, key)
    if before.assessed_runs:
        raise ChangeError(f"experiment {key} has assessed runs by now: deleting a run deletes its assessments for good")
    if before.count() != change.runs:
        raise ChangeError(
            f"experiment {key} has {before.count()} runs by now, not {change.runs}: run again to plan anew"
        )
    if change.merged_into and (
        before.traces or before.loose_models or before.dependents or before.count(status="RUNNING")
    ):
        raise ChangeError(
            f"experiment {key} got traces, models, runs at work or the like meanwhile: run again to plan anew"
        )
    with one_sentence(f"experiment {key} could not be deleted"):
        if to.in_tables:
            with one_transaction(tracking_store(to.client)) as session:
                times = deletion_times(session, experiment_id=key)
                to.client.delete_experiment(key)
                put_deletion_times(session, times)
        else:
            to.client.delete_experiment(key)
    after = _counted(to, key)
    try:
        _refuse_what_came_meanwhile(change, to, before, after)
    except ChangeError:
        _restore(to, key, before.deleted_runs)
        raise


def _refuse_what_came_meanwhile(change: DeleteExperiment, to: OpenStore, before: Experiment, after: Experiment) -> None:
    """Asked of the deleted experiment: MLflow logs nothing to a run that is deleted, so what came to one is there
    by now.
    """
    key = change.experiment_id
    if sum(after.runs.values()) > sum(before.runs.values()):
        # Somebody logged a run in the instant between: it must not go with the others.
        raise ChangeError(f"somebody is logging runs to experiment {key}: it was restored; run again when that is done")
    later = written_since_copied(to, key, change.merged_into) if change.merged_into else ""
    if later:
        raise ChangeError(
            f"{later}: experiment {key} was restored; delete that copy, and run again when the logging is done"
        )


@inverse.register(DeleteExperiment)
def undo_delete_experiment(change: DeleteExperiment, to: OpenStore) -> RestoreExperiment:
    before = _counted(to, change.experiment_id)
    counts = tuple((stage, status, number) for (stage, status), number in sorted(before.runs.items()))
    return RestoreExperiment(change.experiment_id, before.deleted_runs, counts, before.name)


@write.register(RestoreExperiment)
def restore_experiment(change: RestoreExperiment, to: OpenStore) -> None:
    found = _counted(to, change.experiment_id)
    why = change.refused(found)
    if why:
        raise ChangeError(why)
    if found.active:
        return
    _restore(to, change.experiment_id, change.deleted_runs)


def _restore(to: OpenStore, experiment_id: str, deleted_runs: Sequence[str]) -> None:
    # One transaction where there are tables: nobody sees the runs that stay deleted come back in between.
    whole = one_transaction(tracking_store(to.client)) if to.in_tables else nullcontext()
    with one_sentence(f"experiment {experiment_id} could not be restored"), whole as session:
        times = deletion_times(session, experiment_id=experiment_id) if session else {}
        to.client.restore_experiment(experiment_id)
        where = f"tags.`{COPY_STATE}` = '{RETRACTED}'"
        retracted = pages(to.client.search_runs, experiment_ids=[experiment_id], filter_string=where, max_results=1000)
        gone = [*deleted_runs, *(run.info.run_id for run in retracted)]
        for run_id in gone:
            to.client.delete_run(run_id)
        if session:
            put_deletion_times(session, {run_id: times[run_id] for run_id in gone if run_id in times})


@inverse.register(RestoreExperiment)
def undo_restore_experiment(change: RestoreExperiment, to: OpenStore) -> DeleteExperiment:
    return DeleteExperiment(change.experiment_id, sum(number for stage, _, number in change.counts if stage == ACTIVE))


@write.register(RenameDeletedExperiment)
def rename_deleted_experiment(change: RenameDeletedExperiment, to: OpenStore) -> None:
    key = change.experiment_id
    found = _counted(to, key)
    still(found.name, change.before, f"the name of experiment {key}")
    if found.active or found.count():
        raise ChangeError(f"experiment {key} or some of its runs are not deleted by now: run again to plan anew")
    _refuse_taken(to, change)
    with one_sentence(f"experiment {key} could not be renamed"):
        if to.in_tables:
            # MLflow renames no deleted experiment, and restoring it would show its runs for a moment.
            with one_transaction(tracking_store(to.client)) as session:
                rename_row(session, key, change.name)
            return
        to.client.restore_experiment(key)
        try:
            to.client.rename_experiment(key, change.name)
        finally:
            to.client.delete_experiment(key)


@inverse.register(RenameDeletedExperiment)
def undo_rename_deleted_experiment(change: RenameDeletedExperiment, to: OpenStore) -> RenameDeletedExperiment:
    return RenameDeletedExperiment(change.experiment_id, change.before, change.name)
