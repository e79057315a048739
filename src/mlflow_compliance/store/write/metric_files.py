"""The effects of changes on a file store's metric files: repeats of a point go, and the file as it was is kept."""

from __future__ import annotations

from mlflow_compliance.changes import JOURNAL, RemoveRepeatedPoints, RestoreMetricFile
from mlflow_compliance.store.storage import metric_files
from mlflow_compliance.store.write.effects import OpenStore, inverse, write


@write.register(RemoveRepeatedPoints)
def remove_repeated_points(change: RemoveRepeatedPoints, to: OpenStore) -> None:
    metric_files.remove_repeats(
        change.path, change.sha256, metric_files.kept_at(to.store.folder, to.bind(JOURNAL), change.sha256)
    )


@inverse.register(RemoveRepeatedPoints)
def undo_remove_repeated_points(change: RemoveRepeatedPoints, to: OpenStore) -> RestoreMetricFile:
    before, after = metric_files.state_of(change.path)
    return RestoreMetricFile(
        change.path,
        change.owner_kind,
        change.key,
        change.metric,
        change.repeats,
        journal=to.bind(JOURNAL),
        sha256=change.sha256,
        before=before,
        now=after,
        after=change.size,
    )


@write.register(RestoreMetricFile)
def restore_metric_file(change: RestoreMetricFile, to: OpenStore) -> None:
    metric_files.restore_metric_file(
        change.path, change.now, change.sha256, metric_files.kept_at(to.store.folder, change.journal, change.sha256)
    )


@inverse.register(RestoreMetricFile)
def undo_restore_metric_file(change: RestoreMetricFile, to: OpenStore) -> RemoveRepeatedPoints:
    return RemoveRepeatedPoints(
        change.path, change.owner_kind, change.key, change.metric, change.repeats, change.sha256, change.after
    )
