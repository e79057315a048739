"""Repeated metric points of a file store: removed under the journal, then `mlflow migrate-filestore` succeeds;
nothing is lost.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from gates import RULES
from repairs import CHECKOUT, carry_out, findings, lines_of, plan_for
from stores import Lab, differing, there_and_back

from mlflow_compliance.changes import RemoveRepeatedPoints, load
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.storage.metric_files import without_repeats
from mlflow_compliance.store.store import open_store
from mlflow_compliance.store.write.writer import StoreWriter

PUBLIC = CHECKOUT.parent / "shared" / "data" / "stores" / "filestore_credit_risk" / "mlruns"


class Files(Lab):
    """The public file store, copied; the program's view of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mlruns, self.settings = folder, folder / "mlruns", Settings()
        self.uri = str(self.mlruns)
        self.store = open_store(self.uri, self.settings, str(folder))

    def everything(self, *, artifacts: bool = True):  # type: ignore[no-untyped-def]
        return self.read(artifacts=artifacts)

    def points(self) -> Counter[tuple[str, str, tuple[float, ...]]]:
        """(run, metric, point) -> times that it is written."""
        found: Counter[tuple[str, str, tuple[float, ...]]] = Counter()
        for path in self.mlruns.glob("*/*/metrics/*"):
            for line in path.read_text().splitlines():
                found[path.parts[-3], path.name, tuple(map(float, line.split()))] += 1
        return found

    def fix(self, *options: str, kill: str = "") -> int:
        arguments = [
            *map(str, RULES),
            "-q",
            "-p",
            "no:cacheprovider",
            f"--tracking-uri={self.uri}",
            "-k",
            "STO001",
            *options,
        ]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests" / "support"), "KILL_AT": kill}
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], cwd=CHECKOUT, env=environment, capture_output=True
        ).returncode

    def migrate(self) -> subprocess.CompletedProcess[str]:
        target = f"sqlite:///{self.folder}/migrated.db"
        code = "from mlflow.cli import cli; cli()"
        arguments = ["migrate-filestore", "--source", str(self.mlruns), "--target", target]
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=self.folder)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    if not PUBLIC.is_dir():
        pytest.skip("the public stores are not beside this checkout")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    shutil.copytree(PUBLIC, tmp_path / "mlruns")
    return Files(tmp_path)


def contents_of(folder: Path) -> Counter[str]:
    """SHA-256 of every file, and how often it is there."""
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file())


def repeats_of(files: Files) -> list[RemoveRepeatedPoints]:
    return [change for change in plan_for(files, "STO001").changes if isinstance(change, RemoveRepeatedPoints)]


def test_the_public_store_migrates_after_the_repair_and_every_point_is_in_the_tables(files: Files) -> None:
    before, contents = files.points(), contents_of(files.mlruns)
    assert "UNIQUE constraint failed" in (failed := files.migrate()).stdout + failed.stderr
    (files.folder / "migrated.db").unlink(missing_ok=True)
    assert carry_out(files, plan_for(files, "STO001")).differing == []
    after = files.points()
    assert after == Counter(before.keys())
    assert sum(before.values()) > sum(after.values())
    assert not contents.keys() - contents_of(files.folder).keys(), "a content is lost"
    assert plan_for(files, "STO001").steps == ()
    done = files.migrate()
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(sqlite3.connect(files.folder / "migrated.db")) as connection:
        rows = connection.execute("SELECT run_uuid, key, timestamp, value, step FROM metrics").fetchall()
    assert Counter((run, key, (float(time), value, float(step))) for run, key, time, value, step in rows) == after
    # Taken back from the journal alone: every byte and time as it was.
    (journal,) = (files.folder / ".compliance").glob("2*.jsonl")
    undo = [load(line["undo"]) for line in lines_of(journal) if line.get("undo")]
    writer = StoreWriter(files.store, {})
    for change in reversed(undo):
        writer.write(change)
    assert files.points() == before
    assert contents_of(files.mlruns) == contents


def test_the_change_keeps_the_laws_and_refuses_a_file_that_changed(files: Files) -> None:
    changes = repeats_of(files)
    state = {change.path: os.stat(change.path) for change in changes}
    there_and_back(files, *changes)
    assert {path: os.stat(path).st_mtime_ns for path in state} == {path: old.st_mtime_ns for path, old in state.items()}
    with open(changes[0].path, "a") as file:
        file.write("1 2 3\n")
    before = files.read()
    with pytest.raises(ChangeError, match="does not hold the content"):
        StoreWriter(files.store, {}).write(changes[0])
    assert differing(before, files.read()) == []


@pytest.mark.parametrize("moment", ["_put", "refuse_if_changed"])
def test_a_repair_that_is_killed_loses_nothing_and_the_next_one_ends_it(files: Files, moment: str) -> None:
    before, contents = files.points(), contents_of(files.mlruns)
    assert (
        files.fix("--fix", "-p", "killing", kill=f"mlflow_compliance.store.storage.metric_files:{moment}:1")
        == -signal.SIGKILL
    )
    assert files.points() == before
    assert carry_out(files, plan_for(files, "STO001")).differing == []
    assert findings(files, "STO001") == []
    assert files.points() == Counter(before.keys())
    assert not contents.keys() - contents_of(files.folder).keys()
    assert not list(files.mlruns.rglob(".compliance.tmp*"))


def test_repeats_are_told_by_what_mlflow_takes_from_a_line() -> None:
    content = b"5 0.50 0\n5 0.5\n\n6 nan 1\n6 NaN 1\n6 0.5 1\n5 0.5 0 a1\n5 0.5 0 a2\nodd\nodd\n5 0.5 0"
    assert without_repeats(content) == b"5 0.50 0\n\n6 nan 1\n6 0.5 1\n5 0.5 0 a1\n5 0.5 0 a2\nodd\n"


def test_other_changes_of_a_file_store_are_refused_and_values_that_differ_are_for_people(files: Files) -> None:
    (metric,) = list(files.mlruns.glob("*/models/m-*/metrics/auc"))[:1]
    line = metric.read_text().splitlines()[0].split()
    with metric.open("a") as file:
        file.write(" ".join([line[0], "0.125", *line[2:]]) + "\n")
    several = [finding for finding in findings(files, "STO001") if "several values" in finding.message]
    assert [finding.entity.key for finding in several] == [metric.parts[-3]]
    plan = plan_for(files)
    assert {type(change) for change in plan.changes} == {RemoveRepeatedPoints}
    reasons = {refusal.finding.policy: refusal.reason for refusal in plan.unfixed}
    assert "which value counts" in reasons["STO001"]
