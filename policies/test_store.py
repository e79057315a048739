"""Rules about the store as a whole."""

from __future__ import annotations

from mlflow_compliance.api import EntityRef, Severity, Snapshot, Violations, policy


@policy("STO001", "A file store can be migrated", Severity.MEDIUM)
def test_metric_points_are_written_once(store: Snapshot, violations: Violations) -> None:
    """MLflow gives file stores up; `mlflow migrate-filestore` stops at a metric point that a file holds twice."""
    for run_id, extra in sorted(store.repeated_points.items()):
        run = store.runs.get(run_id)
        violations.add(
            "metric points written more than once", entity=run.ref if run else EntityRef("run", run_id), observed=f"{extra} repeats", expected="0"
        )
