"""What a session reads: rows without locations, then both of one moment; and what it imports for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import Engine
from stores import Lab

from mlflow_compliance.audit.snapshots import Alone, SnapshotCache
from mlflow_compliance.changes import Change
from mlflow_compliance.production.context import Context
from mlflow_compliance.progress import Silent
from mlflow_compliance.rules.finding import Finding
from mlflow_compliance.rules.fixer import fixer, propose
from mlflow_compliance.snapshot.refs import EntityRef


def test_locations_are_read_with_the_files_and_as_of_then(lab: Lab) -> None:
    experiment = lab.experiment("credit_production")
    lab.run(experiment, files={"a.bin": b"a" * 2000})
    readings, asked = SnapshotCache(Alone()), list[str]()

    def listen(connection: object, cursor: object, statement: str, *rest: object) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        rows = readings.snapshot(lab.store, Silent(), artifacts=False)
        assert rows.artifacts is None
        assert asked
        assert not [
            statement
            for statement in asked
            if "artifact_uri" in statement or "logged_models.artifact_location" in statement
        ]
        number = len(asked)
        assert readings.snapshot(lab.store, Silent(), artifacts=False) is rows
        assert len(asked) == number
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    late = lab.run(experiment, files={"b.bin": b"b" * 2000})
    files = readings.snapshot(lab.store, Silent(), artifacts=True)
    assert files.artifacts is not None
    assert not files.artifacts.ownerless, "a run that came later owns its files"
    assert ("run", late) in files.artifacts.locations
    assert files.experiments[experiment].count() == 2
    assert readings.changed_since == rows.taken_at
    assert readings.snapshot(lab.store, Silent(), artifacts=False) is files


def test_a_store_that_stays_as_it_is_has_not_moved(lab: Lab) -> None:
    lab.rich_run(lab.experiment("credit_production"), stage="production")
    readings = SnapshotCache(Alone())
    readings.snapshot(lab.store, Silent(), artifacts=False)
    readings.snapshot(lab.store, Silent(), artifacts=True)
    assert readings.changed_since == 0


def test_fixers_that_depend_on_files_are_not_asked_where_nobody_read_them(lab: Lab) -> None:
    context, asked = Context(lab.read(artifacts=False), lab.settings), list[str]()

    @fixer("OWN001", reads_files=True)
    def blind(finding: Finding, context: Context) -> Iterator[Change]:
        asked.append("blind")
        yield from ()

    @fixer("OWN002")
    def of_rows(finding: Finding, context: Context) -> Iterator[Change]:
        asked.append("of rows")
        yield from ()

    fixers = {"OWN001": blind, "OWN002": of_rows}
    reasons = [
        propose(fixers, Finding(key, EntityRef("store", "store"), "code", "wrong"), context, "")[1] for key in fixers
    ]
    assert asked == ["of rows"]
    assert reasons[0].startswith("depends on files")


def test_a_session_without_policies_imports_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing() -> None:\n    pass\n")
    told = (
        "import sys, pytest; pytest.main(['-q', '-p', 'no:cacheprovider']); print({'mlflow', 'pydantic', "
        "'sqlalchemy', 'rich'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "1 passed" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"
