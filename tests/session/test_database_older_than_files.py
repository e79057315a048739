"""A database restored from an older backup: what today's database owns is told and not touched, and ordinary
orphans are moved as ever.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from subprocess import run

import pytest
from gates import BIG, POLICIES, Gate, state, told
from servers import tracking_server
from stores import Lab

RULES = (POLICIES / "test_artifacts.py", POLICIES / "test_store.py")
FILES = {"report.txt": b"evidence"}


def fresh(lab: Lab, experiment: str, files: Mapping[str, bytes] = FILES, *, end: bool = True, **tags: str) -> str:
    """A run of this very moment."""
    run_id = lab.run(experiment, start=int(time.time() * 1000), status="RUNNING", files=files, **tags)
    if end:
        lab.client.set_terminated(run_id)
    return run_id


def aged(lab: Lab, hours: float) -> None:
    """Make everything in the store older, rows and files alike."""
    gone = int(hours * 3_600_000)
    for table, column in (
        ("runs", "start_time"),
        ("runs", "end_time"),
        ("logged_models", "creation_timestamp_ms"),
        ("experiments", "creation_time"),
    ):
        lab.sql(f"UPDATE {table} SET {column} = {column} - ? WHERE {column} IS NOT NULL", gone)
    for path in (*lab.mlruns.rglob("*"), lab.mlruns):
        facts = path.stat()
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns - gone * 1_000_000))


@pytest.fixture
def yesterday(lab: Lab, gate: Gate) -> tuple[Lab, str]:
    """A store of yesterday with two runs and a model, its database backed up, and the experiment that goes on."""
    key = lab.experiment("churn_models")
    for _ in range(2):
        fresh(lab, key, {**FILES, "data/same.bin": BIG})
    lab.model(key, fresh(lab, key))
    aged(lab, 24)
    shutil.copy(lab.database, lab.folder.parent / "backup.bak")
    gate.settings(lab.uri)
    return lab, key


def restore(lab: Lab) -> None:
    shutil.copy(lab.database, lab.folder.parent / "today.bak")
    shutil.copy(lab.folder.parent / "backup.bak", lab.database)


def test_nothing_is_touched_and_the_right_database_finds_everything(yesterday: tuple[Lab, str], gate: Gate) -> None:
    lab, key = yesterday
    later = [fresh(lab, key) for _ in range(3)]
    model = lab.model(key, later[0])
    lab.run(lab.experiment("new"), start=int(time.time() * 1000), files=FILES)
    restore(lab)
    before = state(lab.mlruns)
    for flags in ((), ("--fix-dry-run",), ("--fix",), ("--fix",)):
        result = gate(*flags, rules=RULES)
        assert result.ret == 1
        text = told(result)
        assert "STO004" in text
        assert "5 folders, such as" in text
        assert "(see STO004)" in text
        assert state(lab.mlruns) == before
    shutil.copy(lab.folder.parent / "today.bak", lab.database)
    result = gate("--fix", rules=RULES)
    assert result.ret == 0, "duplicates are linked again"
    assert "STO004" not in told(result)
    assert (lab.location_of(model) / "MLmodel").is_file()


def touched_by_a_run_at_work(lab: Lab, key: str) -> None:
    """It began before the backup, and the only files that it has are of today."""
    at_work = fresh(lab, key, end=False, files={})
    lab.sql("UPDATE runs SET start_time = start_time - 86400000 WHERE run_uuid = ?", at_work)
    shutil.copy(lab.database, lab.folder.parent / "backup.bak")
    lab.upload(str(lab.folder_of(at_work)), FILES)
    fresh(lab, key)


def dated_in_the_future(lab: Lab, key: str) -> None:
    lab.run(key, start=int(time.time() * 1000) + 10**10)
    shutil.copy(lab.database, lab.folder.parent / "backup.bak")
    fresh(lab, key)


def models_alone(lab: Lab, key: str) -> None:
    lab.model(key, fresh(lab, key, files={}))


def files_that_keep_their_old_times(lab: Lab, key: str) -> None:
    old = lab.folder / "train.csv"
    old.write_bytes(BIG)
    os.utime(old, (10**9, 10**9))
    lab.client.log_artifact(fresh(lab, key, files={}), str(old))


def rows_that_a_repair_made(lab: Lab, key: str) -> None:
    """A first repair of the older database may have built a production run since."""
    fresh(lab, key)
    today = lab.database.read_bytes()
    shutil.copy(lab.folder.parent / "backup.bak", lab.database)
    fresh(lab, key, **{"compliance.built_for": "credit"})
    shutil.copy(lab.database, lab.folder.parent / "backup.bak")
    lab.database.write_bytes(today)


def late_reports(lab: Lab, key: str) -> None:
    """Every old run was given another file today: that makes no clone of the store."""
    fresh(lab, key)
    for item in lab.runs(key):
        lab.upload(item.info.artifact_uri, {"late.txt": b"late"})


@pytest.mark.parametrize(
    "happens",
    [
        touched_by_a_run_at_work,
        dated_in_the_future,
        models_alone,
        files_that_keep_their_old_times,
        rows_that_a_repair_made,
        late_reports,
    ],
)
def test_variants_of_it(yesterday: tuple[Lab, str], gate: Gate, happens: Callable[[Lab, str], None]) -> None:
    lab, key = yesterday
    happens(lab, key)
    restore(lab)
    before = state(lab.mlruns)
    result = gate("--fix", rules=RULES)
    assert "1 folder, such as" in told(result)
    assert state(lab.mlruns) == before


def test_a_backup_from_before_the_first_run(lab: Lab, gate: Gate) -> None:
    gate.settings(lab.uri)
    key = lab.experiment("churn_models")
    shutil.copy(lab.database, lab.folder.parent / "backup.bak")
    for _ in range(3):
        fresh(lab, key)
    restore(lab)
    before = state(lab.mlruns)
    assert "3 folders, such as" in told(gate("--fix", rules=RULES))
    assert state(lab.mlruns) == before


def test_through_a_tracking_server(yesterday: tuple[Lab, str], gate: Gate) -> None:
    lab, key = yesterday
    dated_in_the_future(lab, key)
    restore(lab)
    before = state(lab.mlruns)
    with tracking_server(lab.folder, lab.uri, lab.mlruns) as server:
        gate.settings(server.url)
        result = gate("--fix", rules=RULES)
        assert "1 folder, such as" in told(result)
    assert state(lab.mlruns) == before


def test_files_that_are_older_than_the_database(yesterday: tuple[Lab, str], gate: Gate) -> None:
    """The other way round: rows miss what they wrote, which their own rules tell."""
    lab, key = yesterday
    shutil.copytree(lab.mlruns, lab.folder / "files.bak")
    run_id = fresh(lab, key)
    model = lab.model(key, run_id)
    shutil.rmtree(lab.mlruns)
    (lab.folder / "files.bak").rename(lab.mlruns)
    result = gate(rules=RULES)
    text = told(result)
    assert result.ret == 1
    assert (
        f"logged_model {model}: its artifacts cannot be reached: the folder {lab.location_of(model)} does not "
        "exist here"
    ) in text
    assert "STO004" not in text
    assert "ART002" not in text


def quarantined(lab: Lab) -> set[str]:
    return {path.name for path in (lab.mlruns / ".quarantine").glob("*/*/*")}


def a_clone(lab: Lab, key: str) -> str:
    """All its files are as old as the clone."""
    orphan = fresh(lab, key)
    restore(lab)
    shutil.copytree(lab.mlruns, lab.folder / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(lab.mlruns)
    (lab.folder / "copy").rename(lab.mlruns)
    return orphan


def an_orphan_that_is_older(lab: Lab, key: str) -> str:
    """Its row was taken out by hand, and people went on."""
    orphan = fresh(lab, key)
    restore(lab)
    fresh(lab, key)
    return orphan


def one_of_another_name(lab: Lab, key: str) -> str:
    (lab.mlruns / key / "notes").mkdir()
    (lab.mlruns / key / "notes" / "todo.txt").write_text("later")
    return "notes"


@pytest.mark.parametrize("happens", [a_clone, an_orphan_that_is_older, one_of_another_name])
def test_ordinary_orphans_are_moved(yesterday: tuple[Lab, str], gate: Gate, happens: Callable[[Lab, str], str]) -> None:
    lab, key = yesterday
    orphan = happens(lab, key)
    result = gate("--fix", rules=RULES)
    assert "STO004" not in told(result)
    assert result.ret == 0
    assert orphan in quarantined(lab)


def test_what_mlflow_gc_leaves(yesterday: tuple[Lab, str], gate: Gate) -> None:
    """Empty folders of runs are one line; the models of an experiment that went with them are moved, though nothing
    newer is in the rows.
    """
    lab, key = yesterday
    for _ in range(3):
        lab.client.delete_run(fresh(lab, key))
    gone = lab.experiment("obsolete")
    lab.model(gone, fresh(lab, gone))
    lab.client.delete_experiment(gone)
    run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", lab.uri, "--tracking-uri", lab.uri],
        check=True,
        capture_output=True,
    )
    result = gate(rules=RULES)
    text = told(result)
    assert "3 empty folders in" in text
    assert set(re.findall(r"artifact (\S+): no run, model or experiment owns it; found", text)) == {f"mlruns/{gone}"}
    assert "STO004" not in text
    result = gate("--fix", rules=RULES)
    assert result.ret == 0
    assert "models" in quarantined(lab)
    assert (
        len([path for path in (lab.mlruns / key).iterdir() if path.name != "models" and not any(path.iterdir())]) == 3
    ), "they stay"
