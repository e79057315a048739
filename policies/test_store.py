"""Rules about the store as a whole."""

from __future__ import annotations

from collections import Counter

from mlflow_compliance.api import ArtifactRoot, Artifacts, EntityRef, Severity, Snapshot, Violations, as_time, policy


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


@policy("STO004", "The database is not older than its files", Severity.HIGH)
def test_the_database_is_not_older_than_its_files(artifact_root: ArtifactRoot, artifacts: Artifacts, violations: Violations) -> None:
    """Under a database restored from yesterday's backup, today's runs look like files that nobody owns."""
    found = artifacts.outdated.get(artifact_root.path)
    if found:
        number = len(found.folders)
        violations.add(
            "older-than-its-files",
            "it holds folders of runs or models that no row knows and that are newer than the newest row",
            observed=f"{number} folder{'s' * (number != 1)}, such as {artifacts.relative(found.folders[0])}, written until {as_time(found.newest)}",
            expected=f"nothing newer than the newest row, which is of {as_time(found.last_row)}",
        )
