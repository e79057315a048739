"""Rules about the store as a whole."""

from __future__ import annotations

from collections import Counter

from mlflow_compliance.api import EntityRef, Severity, Snapshot, Violations, policy


@policy("STO001", "A file store can be migrated", Severity.MEDIUM)
def test_metric_points_are_written_once(store: Snapshot, violations: Violations) -> None:
    """MLflow gives file stores up; `mlflow migrate-filestore` stops at a metric point that a file holds twice."""
    repeats, clashes = Counter[EntityRef](), Counter[EntityRef]()
    for points in store.repeated_points.values():
        repeats[points.owner] += points.repeats
        clashes[points.owner] += points.clashes
    for owner in sorted(repeats):
        entity = store.runs[owner.key].ref if owner.key in store.runs else owner
        if repeats[owner]:
            violations.add("repeats", "metric points written more than once", entity=entity, observed=f"{repeats[owner]} repeats", expected="0")
        if clashes[owner]:
            message = "metric points of one run at one moment and step with several values"
            violations.add("clashes", message, entity=entity, observed=f"{clashes[owner]} more", expected="0")
