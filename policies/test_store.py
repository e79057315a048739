"""Rules about the store as a whole."""

from __future__ import annotations

from collections import Counter

from mlflow_compliance.api import (
    ArtifactRoot,
    Artifacts,
    EntityRef,
    SchemaState,
    Severity,
    Snapshot,
    Violations,
    as_time,
    policy,
)


@policy(
    "STO001",
    "A file store can be migrated",
    Severity.MEDIUM,
    advice="take the repeated lines out of the metric file, then `mlflow migrate-filestore --source "
    "mlruns --target sqlite:///mlflow.db`",
)
def test_metric_points_are_written_once(store: Snapshot, violations: Violations) -> None:
    """MLflow gives file stores up; `mlflow migrate-filestore` stops at a metric point that a file holds twice."""
    if store.info.backend != "file":
        violations.not_applicable("only a file store writes its metrics into files")
    repeats, clashes = Counter[EntityRef](), Counter[EntityRef]()
    for points in store.repeated_points.values():
        repeats[points.owner] += points.repeats
        clashes[points.owner] += points.clashes
    for owner in sorted(repeats):
        entity = store.runs[owner.key].ref if owner.key in store.runs else owner
        if repeats[owner]:
            violations.add(
                "repeats",
                "metric points written more than once",
                entity=entity,
                observed=f"{repeats[owner]} repeats",
                expected="0",
            )
        if clashes[owner]:
            message = "metric points of one run at one moment and step with several values"
            violations.add("clashes", message, entity=entity, observed=f"{clashes[owner]} more", expected="0")
    for file in store.damaged:
        if file.runs:
            message = "its runs would be left without an experiment"
            entity = EntityRef("experiment", file.experiment_id, file.experiment_id)
            violations.add("without-experiment", message, entity=entity, observed=f"{file.runs} runs", expected="0")


@policy(
    "STO002",
    "Every row's parent is there",
    Severity.HIGH,
    advice='put the missing rows back from a backup of the database, where `sqlite3 backup.db "SELECT '
    '* FROM experiments"` shows them; nothing that hangs on them is moved or deleted here',
)
def test_every_row_has_its_parent(store: Snapshot, violations: Violations) -> None:
    """MLflow shows nobody a run whose experiment has no row, and no clean-up ever takes it: evidence that cannot be
    found.
    """
    if store.info.backend == "file":
        violations.not_applicable("a file store keeps its rows in the folders of those that they belong to")
    if store.schema is None:
        violations.not_evaluated(
            "rows-not-listed", "MLflow's own interface lists no rows whose parent is gone: audit the database"
        )
    for lost in store.lost_rows:
        rows = f"{lost.rows} row{'s' * (lost.rows != 1)}, such as {lost.example}, which names {lost.missing}"
        violations.add(
            f"{lost.table}-without-{lost.parent}",
            f"rows of {lost.table} whose {lost.parent} are not there",
            entity=EntityRef("table", lost.table, lost.table),
            observed=rows,
            expected="every row's parent",
        )


@policy(
    "STO003",
    "The schema is that of the installed MLflow",
    Severity.HIGH,
    advice="take a backup, then `mlflow db upgrade sqlite:///mlflow.db`; where the database is newer, "
    "`pip install -U mlflow`",
)
def test_schema_is_that_of_the_installed_mlflow(store: Snapshot, violations: Violations) -> None:
    """Tables that are not what their revision says make MLflow fail, migrate by itself, or leave out what it does
    not know.
    """
    schema = store.schema
    if schema is None:
        violations.not_applicable("only a database has a schema, and a server's is its own to look after")
    if schema.state is not SchemaState.CURRENT:
        # What is old and whole can be read as it is.
        severity = Severity.LOW if schema.state is SchemaState.OLDER else None
        violations.add(
            schema.state.value,
            f"it {schema.problem}",
            observed=schema.observed,
            expected=schema.expected,
            severity=severity,
        )


@policy(
    "STO005",
    "Every row of a file store can be read",
    Severity.HIGH,
    advice="bring the file back from a backup, `cp -p BACKUP FILE`, or write it anew as its neighbours are",
)
def test_every_row_can_be_read(store: Snapshot, violations: Violations) -> None:
    """MLflow leaves out what it cannot read without a word, or stops at it: either way evidence is lost that is
    still there.
    """
    if store.info.backend != "file":
        violations.not_applicable("only a file store keeps its rows in files")
    for file in store.damaged:
        # It may be just what was logged.
        severity = Severity.LOW if file.code == "empty-value" else None
        entity = EntityRef("file", file.path, file.path)
        violations.add(
            file.code,
            f"it {file.problem}",
            entity=entity,
            observed=file.lost,
            expected="rows that can be read",
            severity=severity,
        )


@policy(
    "STO004",
    "The database is not older than its files",
    Severity.HIGH,
    advice="if the database was restored from a backup, bring back the one that knows these folders; "
    "if their rows were deleted on purpose, `mv` them out of the artifact root; until then "
    "nothing in it is moved or linked",
)
def test_the_database_is_not_older_than_its_files(
    artifact_root: ArtifactRoot, artifacts: Artifacts, violations: Violations
) -> None:
    """Under a database restored from yesterday's backup, today's runs look like files that nobody owns."""
    found = artifacts.outdated.get(artifact_root.path)
    if found:
        number = len(found.folders)
        violations.add(
            "older-than-its-files",
            "it holds folders of runs or models that no row knows and that are newer than the newest row",
            observed=f"{number} folder{'s' * (number != 1)}, such as {artifacts.relative(found.folders[0])}, "
            f"written until {as_time(found.newest)}",
            expected=f"nothing newer than the newest row, which is of {as_time(found.last_row)}",
        )
