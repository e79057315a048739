"""The effects of changes on runs: tags, status and end, soft-deletion."""

from __future__ import annotations

from collections import Counter

from mlflow_compliance.changes import DeleteRun, EndRun, ReopenRun, RestoreRun, SetRunTag
from mlflow_compliance.changes.base import still
from mlflow_compliance.changes.made import rows_of
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import ACTIVE, DELETED
from mlflow_compliance.snapshot.tags import PARENT
from mlflow_compliance.store.backends.listing import ClientListing, chunks, pages
from mlflow_compliance.store.write.bulk import (
    deletion_times,
    end_runs,
    one_transaction,
    put_deletion_times,
    status_of,
    tracking_store,
)
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence
from mlflow_compliance.store.write.made import FILES, files_of


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
    lifecycle, status, _ = _status(to, run_id)
    if (lifecycle, status) != (ACTIVE, change.before):
        raise ChangeError(f"run {run_id} is {lifecycle} and {status} by now: run again to plan anew")
    with one_sentence(f"run {run_id} could not be ended"):
        if to.in_tables:  # MLflow's own call fails on a run without a start time
            _set_status(to, run_id, change.status, change.end_time)
        else:
            to.client.set_terminated(run_id, status=change.status, end_time=change.end_time)


@inverse.register(EndRun)
def undo_end_run(change: EndRun, to: OpenStore) -> ReopenRun:
    run_id = to.bind(change.run_id)
    _, _, end = _status(to, run_id)
    return ReopenRun(run_id, change.experiment_id, change.status, change.end_time, change.before, end)


@write.register(ReopenRun)
def reopen_run(change: ReopenRun, to: OpenStore) -> None:
    lifecycle, status, end = _status(to, change.run_id)
    if (lifecycle, status) == (ACTIVE, change.before):
        return
    if (lifecycle, status, end) != (ACTIVE, change.status, change.end_time):
        raise ChangeError(
            f"run {change.run_id} is {lifecycle} and {status} with the end {end} by now, and was set to "
            f"{change.status} with {change.end_time}: it is left as it is"
        )
    with one_sentence(f"run {change.run_id} could not be set back to {change.before}"):
        if to.in_tables:
            _set_status(to, change.run_id, change.before, change.before_end)
        else:
            to.client.update_run(change.run_id, status=change.before)


@inverse.register(ReopenRun)
def undo_reopen_run(change: ReopenRun, to: OpenStore) -> EndRun:
    return EndRun(change.run_id, change.experiment_id, change.status, change.end_time, change.before)


@write.register(RestoreRun)
def restore_run(change: RestoreRun, to: OpenStore) -> None:
    run_id, key = change.run_id, change.experiment_id
    lifecycle, *_ = _status(to, run_id)
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
    run_id, deleted_at, made = change.run_id, None, {}
    with one_sentence(f"run {run_id} could not be read"):
        children = _children(to, run_id)
        made = _held(to, run_id)
        if to.in_tables:
            with one_transaction(tracking_store(to.client)) as session:
                deleted_at = deletion_times(session, [run_id]).get(run_id)
    return DeleteRun(run_id, change.experiment_id, children, deleted_at, tuple(made.items()))


def _children(to: OpenStore, run_id: str) -> tuple[tuple[str, int], ...]:
    """The active runs that name a run as their parent, counted by experiment."""
    found: Counter[str] = Counter()
    experiments = [item.experiment_id for item in pages(to.client.search_experiments, max_results=1000)]
    for chunk in chunks(experiments):
        where = f"tags.`{PARENT}` = '{run_id}'"
        runs = pages(to.client.search_runs, experiment_ids=chunk, filter_string=where, max_results=1000)
        found.update(run.info.experiment_id for run in runs)
    return tuple(sorted(found.items()))


def _held(to: OpenStore, run_id: str) -> dict[str, str]:
    """What a run holds by now, a digest for each part."""
    runs, models = to.store.details([run_id])
    if run_id not in runs:
        return {}
    own = [model for model in models.values() if model.active and model.source_run_id == run_id]
    uris = [runs[run_id].artifact_uri, *(model.artifact_location for model in own)]
    return {**rows_of(runs[run_id], own, {}), FILES: files_of(to.store, [(uri, uri) for uri in uris], {})}


@write.register(DeleteRun)
def delete_run(change: DeleteRun, to: OpenStore) -> None:
    run_id = change.run_id
    lifecycle, *_ = _status(to, run_id)
    if lifecycle != ACTIVE:
        with one_sentence(f"experiment {change.experiment_id} could not be read"):
            if to.client.get_experiment(change.experiment_id).lifecycle_stage == ACTIVE:
                return
        raise ChangeError(f"run {run_id} is {lifecycle} by now: run again to plan anew")
    with one_sentence(f"run {run_id} could not be deleted"):
        now = _held(to, run_id) if change.made else {}
        changed = [name for name, then in change.made if now.get(name) != then]
        changed += ["child runs"] if change.made and _children(to, run_id) != change.children else []
        if changed:
            raise ChangeError(f"run {run_id} got other {', '.join(sorted(changed))} since it was restored: it stays")
        traces = ClientListing(to.client).traces([change.experiment_id])
        if any(run_id in trace.assessed for trace in traces):
            raise ChangeError(
                f"run {run_id} has assessments by now: deleting it deletes them for good, so it is left as it is"
            )
        if not to.in_tables:
            to.client.delete_run(run_id)
            return
        with one_transaction(tracking_store(to.client)) as session:
            to.client.delete_run(run_id)
            put_deletion_times(session, {run_id: change.deleted_at} if change.deleted_at is not None else {})


@inverse.register(DeleteRun)
def undo_delete_run(change: DeleteRun, to: OpenStore) -> RestoreRun:
    return RestoreRun(change.run_id, change.experiment_id)


def _status(to: OpenStore, run_id: str) -> tuple[str, str, int | None]:
    """Lifecycle, status and end of a run now."""
    with one_sentence(f"run {run_id} could not be read"):
        if not to.in_tables:
            info = to.client.get_run(run_id).info
            return info.lifecycle_stage, info.status, info.end_time
        with one_transaction(tracking_store(to.client)) as session:
            found = status_of(session, run_id)
        if found is None:
            raise ChangeError(f"run {run_id} is not there any more: run again to plan anew")
        return found


def _set_status(to: OpenStore, run_id: str, status: str, end_time: int | None) -> None:
    with one_transaction(tracking_store(to.client)) as session:
        end_runs(session, {run_id: (status, end_time)})
