"""The effects of changes on runs: tags, status and end, soft-deletion."""

from __future__ import annotations

from mlflow_compliance.changes import DeleteRun, EndRun, ReopenRun, RestoreRun, SetRunTag
from mlflow_compliance.changes.base import still
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import ACTIVE, DELETED
from mlflow_compliance.store.backends.listing import ClientListing
from mlflow_compliance.store.write.bulk import end_runs, one_transaction, status_of, tracking_store
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence


@write.register(SetRunTag)
def set_run_tag(change: SetRunTag, to: OpenStore) -> None:
    run_id, key = to.bind(change.run_id), change.key
    with one_sentence(f"run {run_id} could not be read"):
        tags = dict(to.client.get_run(run_id).data.tags)
    still(tags.get(key), change.before, f"tag {key} of run {run_id}")
    with to.naming(f"tag {key} of run {run_id} could not be changed", key, tags):
        if change.value is None:
            to.client.delete_tag(run_id, key)
        else:
            to.client.set_tag(run_id, key, to.bind(change.value))


@inverse.register(SetRunTag)
def undo_set_run_tag(change: SetRunTag, to: OpenStore) -> SetRunTag:
    return SetRunTag(
        to.bind(change.run_id), change.key, change.before, None if change.value is None else to.bind(change.value)
    )


@write.register(EndRun)
def end_run(change: EndRun, to: OpenStore) -> None:
    run_id = to.bind(change.run_id)
    lifecycle, status = _status(to, run_id)
    if (lifecycle, status) != (ACTIVE, change.before):
        raise ChangeError(f"run {run_id} is {lifecycle} and {status} by now: run again to plan anew")
    with one_sentence(f"run {run_id} could not be ended"):
        if to.in_tables:  # MLflow's own call fails on a run without a start time
            _set_status(to, run_id, change.status, change.end_time)
        else:
            to.client.set_terminated(run_id, status=change.status, end_time=change.end_time)


@inverse.register(EndRun)
def undo_end_run(change: EndRun, to: OpenStore) -> ReopenRun:
    return ReopenRun(to.bind(change.run_id), change.experiment_id, change.status, change.end_time)


@write.register(ReopenRun)
def reopen_run(change: ReopenRun, to: OpenStore) -> None:
    with one_sentence(f"run {change.run_id} could not be set back to RUNNING"):
        if to.in_tables:
            _set_status(to, change.run_id, "RUNNING", None)
        else:
            to.client.update_run(change.run_id, status="RUNNING")


@inverse.register(ReopenRun)
def undo_reopen_run(change: ReopenRun, to: OpenStore) -> EndRun:
    return EndRun(change.run_id, change.experiment_id, change.status, change.end_time)


@write.register(RestoreRun)
def restore_run(change: RestoreRun, to: OpenStore) -> None:
    run_id, key = change.run_id, change.experiment_id
    lifecycle, _ = _status(to, run_id)
    with one_sentence(f"experiment {key} could not be read"):
        home = to.client.get_experiment(key)
    if (lifecycle, home.lifecycle_stage) != (DELETED, ACTIVE):
        raise ChangeError(
            f"run {run_id} is {lifecycle} and its experiment {home.lifecycle_stage} by now: run again to plan anew"
        )
    with one_sentence(f"run {run_id} could not be restored"):
        to.client.restore_run(run_id)


@inverse.register(RestoreRun)
def undo_restore_run(change: RestoreRun, to: OpenStore) -> DeleteRun:
    return DeleteRun(change.run_id, change.experiment_id)


@write.register(DeleteRun)
def delete_run(change: DeleteRun, to: OpenStore) -> None:
    run_id = change.run_id
    lifecycle, _ = _status(to, run_id)
    if lifecycle != ACTIVE:
        raise ChangeError(f"run {run_id} is {lifecycle} by now: run again to plan anew")
    with one_sentence(f"run {run_id} could not be deleted"):
        traces = ClientListing(to.client).traces([change.experiment_id])
        if any(run_id in trace.assessed for trace in traces):
            raise ChangeError(
                f"run {run_id} has assessments by now: deleting it deletes them for good, so it is left as it is"
            )
        to.client.delete_run(run_id)


@inverse.register(DeleteRun)
def undo_delete_run(change: DeleteRun, to: OpenStore) -> RestoreRun:
    return RestoreRun(change.run_id, change.experiment_id)


def _status(to: OpenStore, run_id: str) -> tuple[str, str]:
    """Lifecycle and status of a run now."""
    with one_sentence(f"run {run_id} could not be read"):
        if not to.in_tables:
            info = to.client.get_run(run_id).info
            return info.lifecycle_stage, info.status
        with one_transaction(tracking_store(to.client)) as session:
            found = status_of(session, run_id)
        if found is None:
            raise ChangeError(f"run {run_id} is not there any more: run again to plan anew")
        return found


def _set_status(to: OpenStore, run_id: str, status: str, end_time: int | None) -> None:
    with one_transaction(tracking_store(to.client)) as session:
        end_runs(session, {run_id: (status, end_time)})
