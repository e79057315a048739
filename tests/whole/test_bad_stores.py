"""Stores that cannot be audited, or not repaired: one clear sentence, the right exit code, and nothing made or
changed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from evidence import contents_of, differing, files_of, lost, rows_of
from gates import CHECKOUT, RULES, Gate, make_messy, plan_in, state, told
from repairs import chosen, plan_for, remedies
from sqlalchemy import event
from sqlalchemy.engine import Engine
from stores import BIG, Lab

from mlflow_compliance.production.context import Context
from mlflow_compliance.repair.plan import make_plan

PUBLIC = CHECKOUT.parent / "shared" / "data" / "stores" / "sqlite_zoomcamp"


def uri_of(path: Path) -> str:
    return f"sqlite:///{path}"


def _missing(folder: Path) -> Path:
    return folder / "missing.db"


def _below_a_missing_folder(folder: Path) -> Path:
    return folder / "no" / "such" / "mlflow.db"


def _folder(folder: Path) -> Path:
    (folder / "mlflow.db").mkdir()
    return folder / "mlflow.db"


def _empty(folder: Path) -> Path:
    (folder / "mlflow.db").touch()
    return folder / "mlflow.db"


def _text(folder: Path) -> Path:
    (folder / "mlflow.db").write_text("SQLite is what this is not\n" * 100)
    return folder / "mlflow.db"


def _truncated(folder: Path) -> Path:
    path = _foreign(folder)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def _foreign(folder: Path) -> Path:
    path = folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    return path


def _half_a_store(folder: Path) -> Path:
    """The tables are named as MLflow's are, and hold something else."""
    path = folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("experiments", "runs", "tags", "params", "metrics", "experiment_tags"):
            connection.execute(f"CREATE TABLE {table} (name TEXT)")
    return path


def _dangling_link(folder: Path) -> Path:
    (folder / "mlflow.db").symlink_to(folder / "elsewhere.db")
    return folder / "mlflow.db"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "mlflow.db")
    return folder / "mlflow.db"


@pytest.mark.parametrize("flags", [[], ["--fix"]], ids=["gate", "fix"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_missing, "there is no database at {path}: check the tracking URI (nothing was created)"),
        (_below_a_missing_folder, "there is no database at {path}"),
        (_dangling_link, "there is no database at {path}"),
        (_folder, "the database {path} cannot be read: Is a directory"),
        (_empty, "{path} is not a SQLite database: check the tracking URI"),
        (_text, "{path} is not a SQLite database: check the tracking URI"),
        (_pipe, "the database {path} cannot be read: is not a regular file"),
        (_truncated, "the database {path} cannot be read: database disk image is malformed"),
        (_foreign, "the database holds no MLflow store: it has no table"),
        (_half_a_store, "the database {path} has a schema that"),
    ],
)
def test_what_is_no_store_is_told_and_left_alone(
    gate: Gate, tmp_path: Path, make: Callable[[Path], Path], said: str, flags: list[str]
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    path = make(folder)
    gate.settings(uri_of(path))
    before = state(folder)
    result = gate(*flags)
    assert result.ret == 4
    text = told(result)
    assert said.format(path=path) in text
    assert text.count("ERROR: ") == 1
    assert state(folder) == before


@contextmanager
def another_process(path: Path, *statements: str) -> Iterator[None]:
    """Another process that has the database open and has done something in it, until this block ends."""
    code = "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    code += "for statement in sys.argv[2:]: connection.execute(statement)\nprint('done', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), *statements], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"done\n"
        try:
            yield
        finally:
            process.communicate()


@pytest.mark.parametrize("flags", [[], ["--fix"], ["--fix-dry-run"]], ids=["gate", "fix", "dry run"])
def test_a_locked_store(gate: Gate, messy: Lab, flags: list[str]) -> None:
    with another_process(messy.database, "BEGIN EXCLUSIVE"):
        before = state(messy.folder)
        result = gate(*flags)
        assert state(messy.folder) == before
    assert result.ret == 4
    assert f"the database {messy.database} is locked by another process: try again when it is done" in told(result)
    assert gate().ret == 1


def test_a_store_that_somebody_reads_and_writes_is_audited(gate: Gate, messy: Lab) -> None:
    with another_process(messy.database, "BEGIN IMMEDIATE", "SELECT * FROM runs"):
        assert gate().ret == 1


def _impatient(_connection: object, cursor: sqlite3.Cursor, *_: object) -> None:
    cursor.execute("PRAGMA busy_timeout = 1")  # MLflow waits for 20 seconds


def test_a_writer_in_the_way_of_a_repair_is_told_of_and_loses_nothing(gate: Gate, messy: Lab) -> None:
    """The store can be read, and another process writes while the repair wants to."""
    event.listen(Engine, "before_cursor_execute", _impatient)
    try:
        with another_process(messy.database, "BEGIN IMMEDIATE", "SELECT * FROM runs"):
            rows = _rows(messy.database)
            result = gate("--fix", "-k", "is_classified")
    finally:
        event.remove(Engine, "before_cursor_execute", _impatient)
    assert result.ret == 4
    assert "is locked by another process: try again when it is done, or raise [store] busy_timeout" in told(result)
    assert _rows(messy.database) == rows
    assert gate("--fix").ret == 0


def _hot_journal(database: Path, folder: Path) -> Path:
    """A copy of a database as a process that died in the middle of a write leaves it."""
    copied = folder / "mlflow.db"
    spill = (
        "PRAGMA cache_size = 2",
        "PRAGMA cache_spill = 1",
        "BEGIN IMMEDIATE",
        "UPDATE alembic_version SET version_num = 'halfway'",
    )
    bulk = "INSERT INTO experiment_tags SELECT hex(randomblob(100)), hex(randomblob(2000)), 0 FROM runs, runs, runs"
    with another_process(database, *spill, bulk):
        shutil.copy(database, copied)
        shutil.copy(f"{database}-journal", f"{copied}-journal")
    return copied


@pytest.mark.parametrize("flags", [[], ["--fix"]], ids=["gate", "fix"])
def test_a_store_left_in_the_middle_of_a_write(gate: Gate, messy: Lab, tmp_path: Path, flags: list[str]) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    path = _hot_journal(messy.database, folder)
    gate.settings(uri_of(path))
    before = state(folder)
    result = gate(*flags)
    assert result.ret == 4
    assert f"the database {path} was left in the middle of a write (see its -journal file)" in told(result)
    assert state(folder) == before


@pytest.mark.parametrize("beside", ["nothing", "wal and shm", "wal alone", "empty wal"])
def test_a_write_ahead_log_is_read_and_left_as_it_is(gate: Gate, messy: Lab, tmp_path: Path, beside: str) -> None:
    folder = tmp_path / "wal"
    folder.mkdir()
    path = folder / "mlflow.db"
    change = "UPDATE experiments SET name = 'test_in_the_log' WHERE experiment_id = 1"
    with closing(sqlite3.connect(messy.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    logged = another_process(
        messy.database, "SELECT * FROM runs", *([change] if "wal" in beside and beside != "empty wal" else [])
    )
    with logged:
        shutil.copy(messy.database, path)
        if beside == "empty wal":
            (folder / "mlflow.db-wal").touch()
        elif beside != "nothing":
            shutil.copy(f"{messy.database}-wal", f"{path}-wal")
        if beside == "wal and shm":
            shutil.copy(f"{messy.database}-shm", f"{path}-shm")
    gate.settings(uri_of(path))
    before = state(folder)
    result = gate()
    assert result.ret == 1
    assert ("test_in_the_log" in told(result)) == (beside in {"wal and shm", "wal alone"})
    after = state(folder)
    # SQLite's index of the log is shared memory in a file: every reader of a log that is in use writes to it.
    assert (before.pop("mlflow.db-shm", None) is None) == (after.pop("mlflow.db-shm", None) is None)
    assert after == before


@pytest.fixture
def unprivileged(gate: Gate, messy: Lab) -> Iterator[Callable[..., pytest.RunResult]]:
    """Runs the gate in a process for which file modes count, also where the tests run as root."""

    def run(*flags: str) -> pytest.RunResult:
        command = [
            sys.executable,
            "-m",
            "pytest",
            f"--rootdir={gate.folder}",
            f"-c={gate.folder / 'pytest.ini'}",
            *map(str, RULES),
            *flags,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=gate.folder, preexec_fn=_without_the_power_to_pass_modes
        )
        return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0)

    yield run
    for path in (messy.folder, *messy.folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _without_the_power_to_pass_modes() -> None:
    """Root without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH is the owner of its files and no more: modes count
    after the next exec.
    """
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "the capability could not be dropped")


def test_an_unreadable_database(messy: Lab, unprivileged: Callable[..., pytest.RunResult]) -> None:
    messy.database.chmod(0)
    result = unprivileged("--fix")
    assert result.ret == 4
    assert f"the database {messy.database} cannot be read: Permission denied" in told(result)
    assert set(os.listdir(messy.folder)) == {"mlflow.db", "mlruns"}


def test_a_folder_that_cannot_be_written_to_is_audited_and_not_repaired(
    messy: Lab, unprivileged: Callable[..., pytest.RunResult]
) -> None:
    for path in (*messy.folder.rglob("*"), messy.folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state(messy.folder)
    gate = unprivileged("-q")
    assert gate.ret == 1
    assert "6 failed, " in told(gate)
    assert state(messy.folder) == before
    fix = unprivileged("--fix")
    assert fix.ret == 4
    assert "cannot be written (Permission denied): nothing was changed; set [journal] folder to a writable one" in told(
        fix
    )
    assert state(messy.folder) == before


def test_an_undo_that_may_not_write_says_what_is_in_its_way(
    messy: Lab, gate: Gate, unprivileged: Callable[..., pytest.RunResult]
) -> None:
    rows, files = rows_of(messy.database), files_of(messy.mlruns)
    assert gate("--fix").ret == 0
    repaired = rows_of(messy.database), contents_of(messy.mlruns)
    journals = Path(messy.store.folder)
    for path, mode, said in (
        (journals, 0o555, f"no journal can be written in {journals} (Permission denied): nothing was changed"),
        (messy.database, 0o444, f"{messy.database} cannot be written ({messy.database} is read-only here)"),
        (messy.folder, 0o555, f"{messy.database} cannot be written ({messy.folder} is read-only here)"),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        result = unprivileged("--fix-undo=last")
        path.chmod(before)
        assert result.ret == 4
        assert said in told(result)
        assert (rows_of(messy.database), contents_of(messy.mlruns)) == repaired

    folders = [messy.mlruns, *(path for path in messy.mlruns.rglob("*") if path.is_dir())]
    modes = {folder: folder.stat().st_mode for folder in folders}
    for folder in folders:
        folder.chmod(0o555)
    result = unprivileged("--fix-undo=last")
    for folder, mode in modes.items():
        folder.chmod(mode)
    text = told(result)
    assert result.ret == 1
    assert text.count("ermission denied") >= 3
    assert "not taken back: " in text
    assert "verified: the store," not in text
    assert told(gate("--fix-undo=last", rules=())).count("verified: the store, read anew, is what was planned") == 1
    assert lost(rows, rows_of(messy.database)) == {}
    assert differing(files, files_of(messy.mlruns)) == {}


def test_neither_a_repair_nor_an_undo_begins_while_somebody_holds_the_database(messy: Lab, gate: Gate) -> None:
    for command in ((*RULES, "--fix"), ("--fix-undo=last",)):
        before = rows_of(messy.database), contents_of(messy.mlruns)
        with closing(sqlite3.connect(messy.database, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            result = gate(*command, rules=())
        assert result.ret == 4
        assert "is locked by another process: try again when it is done" in told(result)
        assert (rows_of(messy.database), contents_of(messy.mlruns)) == before
        assert gate(*command, rules=()).ret == 0


@pytest.mark.parametrize("call", [2, 9])
def test_an_undo_that_is_interrupted_is_finished_by_the_next_one(
    messy: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    rows, files = rows_of(messy.database), files_of(messy.mlruns)
    assert gate("--fix").ret == 0
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT / "tests" / "support"))
    monkeypatch.setenv("KILL_WITH", "SIGINT")
    monkeypatch.setenv("KILL_AT", f"mlflow_compliance.store.write.writer:StoreWriter.write:{call}")
    result = gate("--fix-undo=last", "-p", "killing", rules=(), process=True)
    assert result.ret == 4
    assert "interrupted: what was done by then stands in its journal" in told(result)
    text = told(gate("--fix-undo=last", rules=()))
    assert "verified: the store, read anew, is what was planned" in text
    assert lost(rows, rows_of(messy.database)) == {}
    assert differing(files, files_of(messy.mlruns)) == {}
    listed = [line for line in told(gate("--fix-journals", rules=())).splitlines() if " changes  " in line]
    assert len(listed) == 3
    assert listed[0].endswith("22 of 22 changes  ended, taken back")
    assert "broken off" in listed[1]


def test_files_that_cannot_be_read_are_told_and_not_repaired(
    messy: Lab, unprivileged: Callable[..., pytest.RunResult]
) -> None:
    (copy := next(messy.mlruns.rglob("shap.bin"))).chmod(0)
    result = unprivileged("-k", "stored_once")
    assert result.ret == 1
    assert "could not be compared" in told(result)
    assert "permission denied" in told(result)
    assert copy.stat().st_size == len(BIG)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    if not PUBLIC.is_dir():
        pytest.skip(f"needs the real stores in {PUBLIC.parent}")
    shutil.copytree(PUBLIC, tmp_path / "old")
    return tmp_path / "old"


def test_a_store_of_an_older_mlflow_is_audited_as_it_is(gate: Gate, old: Path) -> None:
    gate.settings(uri_of(old / "mlflow.db"))
    before = state(old)
    result = gate()
    assert result.ret == 1
    assert "schema 5b0e9adcef9c" in told(result)
    assert state(old) == before


def test_a_store_of_an_older_mlflow_is_not_repaired_and_the_command_is_named(gate: Gate, old: Path) -> None:
    gate.settings(uri_of(old / "mlflow.db"))
    before = state(old)
    result = gate("--fix")
    assert result.ret == 4
    text = told(result)
    assert f"take a backup, then run 'mlflow db upgrade {uri_of(old / 'mlflow.db')}'; nothing was changed" in text
    assert state(old) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("left", [0, 4096, 30_000])
def test_a_full_disk_stops_a_repair_and_loses_nothing(
    gate: Gate, empty_store: bytes, small_disk: Path, left: int
) -> None:
    """However much room is left (in bytes): no traceback, no success, and everything that was there is still there."""
    lab = Lab.new(small_disk / "lab", empty_store, {})
    delivery, production, scratch = (
        lab.experiment(name) for name in ("credit_delivery", "credit_production", "test_experiment")
    )
    lab.run(delivery, "delivery")
    champion = {"model/MLmodel": b"flavors: {f: {data: m.bin}}\n", "model/m.bin": os.urandom(50_000)}
    lab.run(production, "champion", files=champion, stage="production")
    for _ in range(2):
        lab.run(scratch, "try", files={"shap.bin": os.urandom(10) + BIG, "twin.bin": BIG})
    lab.stray("26", {"left.bin": b"left behind" * 200})
    gate.settings(lab.uri)
    contents = _contents(lab.mlruns)
    rows = _rows(lab.database)
    room = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - left))

    result = gate("--fix")
    assert result.ret in {1, 4}
    text = told(result)
    assert "No space left on device" in text or "disk is full" in text or "disk I/O error" in text
    assert set(contents.values()) <= set(_contents(lab.mlruns).values())
    assert rows <= _rows(lab.database)

    # With room again, the next repair makes up for it.
    (small_disk / "ballast").unlink()
    again = gate("--fix")
    assert again.ret == 0
    assert "findings are left for people" not in plan_in(again)[-1]
    assert set(contents.values()) <= set(_contents(lab.mlruns).values())


@pytest.mark.parametrize("left", [0, 20_000])
def test_a_full_disk_stops_an_undo_and_loses_nothing(
    gate: Gate, empty_store: bytes, small_disk: Path, left: int
) -> None:
    lab = Lab.new(small_disk / "lab", empty_store, {})
    make_messy(lab)
    lab.stray("26", {"left.bin": b"left behind" * 200})
    gate.settings(lab.uri)
    rows, files, contents = rows_of(lab.database), files_of(lab.mlruns), contents_of(lab.mlruns)
    assert gate("--fix").ret == 0
    room = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - left))
    result = gate("--fix-undo=last", rules=())
    text = told(result)
    assert result.ret in {1, 4}
    assert "No space left on device" in text or "disk is full" in text or "disk I/O error" in text
    assert not contents - contents_of(lab.mlruns)

    (small_disk / "ballast").unlink()
    assert gate("--fix-undo=last", rules=()).ret == 0
    assert lost(rows, rows_of(lab.database)) == {}
    assert differing(files, files_of(lab.mlruns)) == {}


def test_equal_files_on_a_file_system_that_is_mounted_below_a_root(
    empty_store: bytes, small_disk: Path, tmp_path: Path
) -> None:
    """Told as what cannot be mended before anything is tried."""
    lab = Lab.new(tmp_path / "lab", empty_store, {"store": {"artifact_roots": [str(tmp_path)]}})
    far = lab.experiment("far")
    lab.sql("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", str(small_disk), far)
    for key in ("0", far):
        lab.run(key, files={"data.bin": BIG})
    plan = plan_for(lab, "ART001")
    assert not plan.changes
    assert "insist with --fix-owned-root" in plan.unfixed[0].reason, "the disk does not lie in the folder of the store"
    insisted = replace(lab.store, owned=tuple(root.path for root in lab.read().artifacts.roots))
    plan = make_plan(chosen(["ART001"]), remedies(), Context(insisted.read(artifacts=True), lab.settings))
    assert not plan.changes
    assert [refusal.reason.partition(": ")[0] for refusal in plan.unfixed] == [
        "its copies lie on different file systems, which cannot share bytes"
    ]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _rows(database: Path) -> set[tuple[object, ...]]:
    """What a repair may add to and must not take away: who ran what, with which values."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        queries = (
            "SELECT run_uuid, key, value FROM tags",
            "SELECT run_uuid, name, start_time, end_time FROM runs",
            "SELECT key, value FROM metrics",
        )
        return {row for query in queries for row in connection.execute(query)}


HOSTILE = {
    "ansi": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "markup": "[bold]loud[/bold] [link=http://x]y[/]",
    "newlines": "one\r\ntwo\n\nPASSED [100%]\n",
    "script": "<script>alert(1)</script>",
    "override": "abc\u202egnp.exe\u2066",
    "long": "x" * 250,
    "quotes": "'\"`; DROP TABLE runs; --",
    "percent": "%s %(name)s {0} {name}",
    "nul": "a\\x00b",
    "path": "../../etc",
    "surrogate-like": "\ufffe\U000e0001\U0010ffff",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_are_only_text(gate: Gate, messy: Lab, name: str) -> None:
    """Of experiments, runs, tags and registered models: printed on one line, in the table too, and written through
    `--fix`.
    """
    run = messy.runs("1")[0]
    messy.folder_of(run.info.run_id).mkdir(parents=True)
    messy.client.create_registered_model("plain")
    messy.client.create_model_version("plain", str(messy.folder_of(run.info.run_id)))
    messy.sql("UPDATE experiments SET name = 'test_' || ? WHERE experiment_id = 3", name)
    messy.sql("UPDATE experiments SET name = ? || '_production' WHERE experiment_id = 2", f"credit_{name}")
    messy.sql("UPDATE runs SET name = ?", name)
    messy.sql("UPDATE tags SET value = ? WHERE key = 'mlflow.runName'", name)
    messy.sql("UPDATE registered_models SET name = ?", name)
    messy.sql("UPDATE model_versions SET name = ?", name)
    messy.sql("INSERT INTO experiment_tags (experiment_id, key, value) VALUES (3, ?, ?)", name[:250], name)
    before = state(messy.folder)
    for flags in ([], ["--fix-dry-run"]):
        result = gate("-v", *flags)
        assert result.ret == 1
        _nothing_steers(result, name)
    assert state(messy.folder) == before
    fixed = gate("-v", "--fix")
    assert fixed.ret == 0
    _nothing_steers(fixed, name)
    assert set(os.listdir(messy.folder)) == {"mlflow.db", "mlruns", ".compliance"}


def _nothing_steers(result: pytest.RunResult, name: str) -> None:
    text = told(result)
    assert not {char for char in text if char in "\x1b\x07\r\x00\u202e\u2066\U000e0001"}
    # An id that is read by people and by other programs holds nothing that somebody named.
    ids = [line for line in result.outlines if "::" in line and line.endswith("%]")]
    assert ids
    assert all(name.strip() not in line for line in ids if len(name) > 5)
    if "\n" in name:
        assert "PASSED [100%]" not in [line.strip() for line in result.outlines]
        assert "one\\r\\ntwo\\n\\nPASSED" in text
