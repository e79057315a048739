"""Stores in PostgreSQL, MariaDB and MySQL: what is told of one that cannot be read, and what happens when its
server goes away in a repair.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import PASSWORD, QUOTED, SERVERS, Server
from evidence import lost, rows_of
from gates import EVERY_RULE, POLICIES, RULES, Gate, make_messy, owned, told
from places import Guest, Place
from repairs import carry_out, lines_of, plan_for, take_back
from stores import BIG, differing

from mlflow_compliance.changes import SetAlias, SetExperimentTag, SetRunTag
from mlflow_compliance.errors import ChangeError, ComplianceError, StoreError
from mlflow_compliance.loader.load import find_production_model, load_production_model
from mlflow_compliance.loader.model import UnreachableError
from mlflow_compliance.production.claims import claims_in
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.schema import load_settings
from mlflow_compliance.store.store import open_store
from mlflow_compliance.store.write.writer import StoreWriter


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    return SERVERS[request.param]()


@pytest.fixture
def guest_on(gate: Gate, tmp_path: Path) -> Callable[..., Guest]:
    """Makes a new store on a server, with settings that name it."""

    def make(server: Server, uri: str = "") -> Guest:
        artifacts = str(tmp_path / "mlruns")
        place = Place(uri or server.store(artifacts), artifacts)
        gate.settings(place.uri)
        return Guest(place, gate.folder, load_settings(gate.folder / "compliance.toml"))

    return make


def refused(gate: Gate, uri: str, *options: str) -> str:
    """The one sentence of a run that cannot read its store."""
    gate.settings()
    result = gate(f"--tracking-uri={uri}", *options)
    text = told(result)
    assert result.ret == 4
    assert PASSWORD not in text
    assert QUOTED not in text
    return text


def test_what_cannot_be_read_is_told_in_one_sentence(
    server: Server, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = server.database()
    assert "holds no MLflow store" in refused(gate, server.uri(empty))
    assert (
        server.sql(empty, f"SELECT * FROM information_schema.tables WHERE table_schema IN ('public', '{empty}')") == []
    )
    assert re.search("does not exist|Unknown database", refused(gate, server.uri("no_such_database")))
    wrong = refused(gate, server.uri(empty, password="wr0ng"))
    assert re.search("password authentication failed|Access denied", wrong)
    assert "wr0ng" not in wrong
    assert f"user '{server.user}'" not in wrong.replace('"', "'")
    assert "refused" in refused(gate, server.uri(empty).replace(str(server.port), "9"))
    tls = "sslmode=require" if server.driver == "postgresql" else "ssl_verify_cert=true&ssl_ca=/no/such/file"
    assert re.search("SSL|No such file", refused(gate, f"{server.uri(empty)}?{tls}"))
    # Drivers that are not installed here.
    for driver, extra in (("postgresql+pg8000", "postgresql"), ("mysql+mysqlconnector", "mysql")):
        assert f"pip install 'pytest-mlflow-compliance[{extra}]'" in refused(gate, f"{driver}://alice:x@127.0.0.1:9/x")


def fixing(gate: Gate, kill: str, server: Server, *command: object) -> subprocess.CompletedProcess[str]:
    """A user's own command, in which the server goes away at some call."""
    assert server.process is not None
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KILL_AT": kill,
        "KILL_SERVER": f"{server.process.pid}:{server.deadly}:{server.port}",
    }
    words = [
        f"--rootdir={gate.folder}",
        f"-c={gate.folder}/pytest.ini",
        *map(str, command),
        "-p",
        "killing",
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=gate.folder, env=environment, capture_output=True, text=True
    )


BETWEEN_CHANGES = "mlflow_compliance.repair.journal:Journal.begin_all:3"
GONE = {"postgresql": "mlflow_compliance.store.write.copies:RunCopier.copy_files:1"}
"""Server -> the moment that it goes away at, where that is not between two changes: this one is within the copy of
a run.
"""


@pytest.mark.parametrize("kind", SERVERS)
def test_the_next_repair_finishes_what_a_lost_server_broke_off(
    guest_on: Callable[..., Guest], gate: Gate, kind: str
) -> None:
    server = SERVERS[kind]()
    guest = guest_on(server)
    ids = make_messy(guest)
    guest.rich_run(ids["credit_production"], base_in="0")
    before = guest.everything()
    command = (*RULES, "--fix", owned(guest.place.artifacts))
    broken_off = fixing(gate, GONE.get(kind, BETWEEN_CHANGES), server, *command)
    server.stop()
    server.start()
    text = broken_off.stdout + broken_off.stderr
    assert broken_off.returncode == 4
    assert "Traceback" not in text
    assert "went away" in text
    (journal,) = Path(guest.store.folder).glob("[0-9]*.jsonl")
    assert [line["state"] for line in lines_of(journal)[1:]]
    fixed = gate("--fix", owned(guest.place.artifacts))
    assert fixed.ret == 0, told(fixed)
    assert "verified: the store, read anew, is what was planned" in told(fixed)
    after = guest.everything()
    copies = [run for run in after.runs.values() if run.tags.get("compliance.copy") == "complete"]
    assert sorted(run.tags["compliance.source_run_id"] for run in copies) == sorted(
        key for key, run in before.runs.items() if run.experiment_id == ids["credit_production"]
    )
    assert plan_for(guest, *EVERY_RULE).steps == ()


@pytest.mark.parametrize("kind", SERVERS)
def test_an_undo_that_a_lost_server_broke_off_is_finished_from_another_folder(
    guest_on: Callable[..., Guest], gate: Gate, kind: str
) -> None:
    """By the journal that the store keeps: neither the first one nor that of the undo lies there."""
    server = SERVERS[kind]()
    guest = guest_on(server)
    make_messy(guest)
    before = rows_of(guest.uri)
    assert gate("--fix", owned(guest.place.artifacts)).ret == 0
    broken_off = fixing(gate, BETWEEN_CHANGES, server, "--fix-undo=last")
    server.stop()
    server.start()
    text = broken_off.stdout + broken_off.stderr
    assert broken_off.returncode == 4
    assert "Traceback" not in text
    assert "the undo stopped after 2 of " in text
    assert "give the same --fix-undo again to finish it" in text
    folder = Path(guest.store.folder)
    folder.rename(folder.with_name("on another machine"))
    undo = gate("--fix-undo=last", rules=())
    assert "verified: the store, read anew, is what was planned" in told(undo)
    assert {name: rows for name, rows in lost(before, rows_of(guest.uri)).items() if name != "alembic_version"} == {}
    folder.with_name("on another machine").rename(folder.with_name("again"))


def test_one_repair_at_a_time_from_any_machine(server: Server, guest_on: Callable[..., Guest], gate: Gate) -> None:
    """The file lock is that of this machine: here each has a folder of its own, as on two machines."""
    guest = guest_on(server)
    make_messy(guest)
    before = guest.everything()
    other = open_store(guest.uri, guest.settings, str(gate.folder / "another machine"))
    with other.backend.lock():
        busy = gate("--fix", owned(guest.place.artifacts))
        assert busy.ret == 4
        assert "is running, perhaps on another machine: wait for it to end" in told(busy)
        assert differing(before, guest.everything()) == []
        elsewhere = open_store(server.store("/nowhere"), guest.settings, str(gate.folder))
        with elsewhere.backend.lock():
            """Another database of the same server is another store."""
    assert gate("--fix", owned(guest.place.artifacts)).ret == 0


IDLE = {
    "postgresql": (
        "ALTER ROLE tester SET idle_session_timeout = 100",
        "ALTER ROLE tester RESET idle_session_timeout",
        "pg_backend_pid()",
    ),
    "mysql+pymysql": ("SET GLOBAL wait_timeout = 1", "SET GLOBAL wait_timeout = DEFAULT", "CONNECTION_ID()"),
}
"""Driver -> what makes a server end idle connections soon, what undoes that, and the number of a connection."""
CONNECTIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity",
    "mysql+pymysql": "SELECT id FROM information_schema.processlist",
}


def test_a_server_that_ends_idle_connections_keeps_the_lock(server: Server, guest_on: Callable[..., Guest]) -> None:
    """A repair may copy files for hours, in which the connection of its lock is not used."""
    backend, (soon, never, number) = guest_on(server).store.backend, IDLE[server.driver]
    server.sql(server.home, soon)
    try:
        with backend.lock(), server.connected(server.home) as another:
            idle = another.exec_driver_sql(f"SELECT {number}").scalar()
            until = time.monotonic() + 60
            while (idle,) in server.sql(server.home, CONNECTIONS[server.driver]):
                assert time.monotonic() < until
                time.sleep(0.1)
            another.invalidate()
            with pytest.raises(StoreError, match="another repair of the store"), backend.lock():
                """Whoever comes second."""
    finally:
        server.sql(server.home, never)


@pytest.mark.parametrize("kind", [name for name in SERVERS if name != "postgresql"])
def test_names_that_the_database_takes_for_one_lose_nothing(guest_on: Callable[..., Guest], kind: str) -> None:
    """MLflow writes a version under the name that it was called with; a tag or alias in another spelling it would
    overwrite.
    """
    guest = guest_on(SERVERS[kind]())
    home = guest.experiment("credit_production", Stage="draft")
    run_id = guest.run(home, "champion", Owner="ann")
    guest.client.create_registered_model("Crédit")
    guest.client.create_model_version("CREDIT", f"runs:/{run_id}/model", run_id, tags={"checked": "yes"})
    guest.client.set_registered_model_alias("credit", "Champion", "1")
    guest.client.set_registered_model_tag("credit", "owner", "ann")
    before = guest.read(artifacts=False)
    assert before.registered_models.keys() == {"Crédit"}
    model = before.registered_models["Crédit"]
    assert (model.tags, model.aliases) == ({"owner": "ann"}, {"Champion": "1"})
    assert [(version.version, version.tags, version.experiment_id) for version in model.versions] == [
        ("1", {"checked": "yes"}, home)
    ]
    writer = StoreWriter(guest.store, {})
    for change in (
        SetExperimentTag(home, "stage", "archived", None),
        SetRunTag(run_id, "ówner", "ben", None),
        SetAlias("Crédit", "champion", "1", None),
    ):
        with pytest.raises(ChangeError, match="takes for the same name and would overwrite; rename it first"):
            writer.write(change)
    writer.write(SetExperimentTag(home, "Stage", "archived", "draft"))
    after = guest.read(artifacts=False)
    assert after.experiments[home].tags == {"Stage": "archived"}
    assert (after.registered_models, after.runs) == (before.registered_models, before.runs)


ALIASES = "table_name = 'registered_model_aliases' AND constraint_type = 'FOREIGN KEY'"


@pytest.mark.parametrize("kind", [name for name in SERVERS if name != "postgresql"])
def test_a_store_that_was_converted_to_another_collation_in_part(guest_on: Callable[..., Guest], kind: str) -> None:
    """Tables that MLflow adds in an upgrade are in the default of the database, which the older ones need not be in."""
    server = SERVERS[kind]()
    guest = guest_on(server)
    name = guest.uri.rpartition("/")[2]
    home = guest.experiment("credit_production")
    run_id = guest.rich_run(home, stage="production")
    model = guest.model(home, run_id)
    guest.client.create_logged_model(home, name="of no run")
    guest.registered("credit", f"models:/{model}", run_id, alias="champion")
    before = guest.everything()
    assert before.experiments[home].loose_models == 2
    ((tie,),) = server.sql(
        name,
        f"SELECT constraint_name FROM information_schema.table_constraints WHERE table_schema = '{name}' AND {ALIASES}",
    )
    server.sql(
        name,
        f"ALTER TABLE registered_model_aliases DROP FOREIGN KEY {tie}, CONVERT TO CHARACTER SET utf8mb4 COLLATE "
        "utf8mb4_unicode_ci",
        "ALTER TABLE logged_models MODIFY source_run_id VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
    )
    assert differing(before, guest.everything()) == []


def test_only_the_callers_workspace_and_only_what_is_meant(
    server: Server, guest_on: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another workspace owns is neither looked at nor taken for ownerless; MySQL compares text without regard to
    case and accents.

    A mark in another case is read, to be told; it counts for nothing. One with an accent is another word.
    """
    guest = guest_on(server)
    theirs = guest.experiment("test_theirs")
    run_id = guest.run(theirs, files={"a.bin": BIG})
    guest.stray(theirs + "x", {"left.bin": BIG})
    mine = guest.experiment("other")
    shouted = guest.run(mine, "shouted", stage="PRODUCTION")
    accented = guest.run(mine, "accented", stage="productión")
    server.sql(
        guest.uri.rpartition("/")[2], f"UPDATE experiments SET workspace = 'theirs' WHERE experiment_id = {theirs}"
    )
    here = guest.read()
    assert (here.info.workspace, set(here.experiments)) == ("default", {"0", mine})
    assert {shouted, accented, run_id} & here.runs.keys() == {shouted}
    assert claims_in(Context(here, guest.settings)) == set()
    assert here.artifacts is not None
    kept = {Path(path).name: item.keep for path, item in here.artifacts.ownerless.items()}
    assert kept.keys() == {f"{theirs}x"}, "what another workspace owns has an owner"
    monkeypatch.setenv("MLFLOW_WORKSPACE", "theirs")
    assert set(guest.read(artifacts=False).experiments) == {theirs}


def test_an_old_schema_is_audited_and_not_written_to(
    server: Server, guest_on: Callable[..., Guest], gate: Gate
) -> None:
    guest = guest_on(server)
    make_messy(guest)
    name = guest.uri.rpartition("/")[2]
    # As it was before logged models and datasets had what they have now.
    server.sql(
        name,
        "UPDATE alembic_version SET version_num = '4465047574b1'",
        "DROP TABLE logged_model_metrics",
        "DROP TABLE assessments",
    )
    before = gate()
    assert before.ret == 1
    assert "EXP001" in told(before)
    fixed = gate("--fix")
    assert fixed.ret == 4
    assert f"run 'mlflow db upgrade {server.uri(name, user='***', password='').replace(':@', '@')}'" in told(fixed)
    assert QUOTED not in told(fixed)
    assert server.sql(name, "SELECT version_num FROM alembic_version") == [("4465047574b1",)]


def test_the_production_model_is_looked_up(server: Server, guest_on: Callable[..., Guest], gate: Gate) -> None:
    guest = guest_on(server)
    run_id = guest.run(guest.experiment("credit_delivery"), "champion", stage="production")
    asked = {"tracking_uri": guest.uri, "config": gate.folder / "compliance.toml"}
    with pytest.raises(ComplianceError, match=run_id):
        find_production_model(**asked)
    with pytest.raises(StoreError, match="holds no MLflow store"):
        find_production_model(**{**asked, "tracking_uri": server.uri(server.database())})
    with pytest.raises(UnreachableError, match=r"cannot be reached \(.*refused"):
        load_production_model(**{**asked, "tracking_uri": guest.uri.replace(f":{server.port}/", ":9/")})


def test_rows_of_a_moved_store_are_rewritten_and_taken_back(
    server: Server, guest_on: Callable[..., Guest], gate: Gate
) -> None:
    guest = guest_on(server)
    key = guest.experiment("work")
    run = guest.rich_run(key)
    guest.registered("scorer", f"models:/{guest.model(key, run)}", run)
    guest.registered("old style", str(guest.folder_of(run) / "model"), run)
    whole = guest.everything()
    database = guest.uri.rpartition("/")[2]
    columns = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))
    for table, column in (*columns, ("model_versions", "source"), ("model_versions", "storage_location")):
        server.sql(
            database, f"UPDATE {table} SET {column} = REPLACE({column}, '{guest.mlruns}', 'file:///C:/old/mlruns')"
        )
    gate.settings(guest.uri, f'\n[store.relocate]\n"file:///C:/old/mlruns" = "{guest.mlruns}"\n')
    moved = Guest(guest.place, gate.folder, load_settings(gate.folder / "compliance.toml"))
    before = moved.everything()
    plan = plan_for(moved, "ART003")
    assert len(plan.changes) == 1
    done = carry_out(moved, plan)
    assert (done.differing, done.outcome.failed) == ([], [])
    after = moved.everything()
    assert after.runs[run].artifact_uri == f"file://{whole.runs[run].artifact_uri}"
    assert after.artifacts is not None
    assert whole.artifacts is not None
    assert after.artifacts.locations == whole.artifacts.locations
    take_back(moved, done.lines)
    assert differing(before, moved.everything()) == []


def test_a_place_that_the_database_would_cut_is_not_written(
    server: Server, guest_on: Callable[..., Guest], gate: Gate
) -> None:
    guest = guest_on(server)
    run = guest.run(guest.experiment("work"), files={"a.bin": BIG})
    long = guest.folder / "/".join(["x" * 100] * 2)
    long.parent.mkdir(parents=True)
    guest.mlruns.rename(long)
    gate.settings(guest.uri, f'\n[store.relocate]\n"{guest.mlruns}" = "{long}"\n')
    moved = Guest(guest.place, gate.folder, load_settings(gate.folder / "compliance.toml"))
    ((_, reason),) = carry_out(moved, plan_for(moved, "ART003")).outcome.failed
    assert "and the database takes 256: give the store a shorter path" in reason
    assert moved.client.get_run(run).info.artifact_uri.startswith(str(guest.mlruns))


def test_srv002_is_not_evaluated_where_no_server_can_be_started(
    server: Server, guest_on: Callable[..., Guest], gate: Gate
) -> None:
    """A server would upgrade and write to the database that it is started on."""
    guest = guest_on(server)
    guest.run(guest.experiment("credit_delivery"), "champion", stage="production")
    asked = gate("--compliance-rules=SRV002", rules=[POLICIES / "test_serving.py"])
    assert asked.ret == 0
    assert "not evaluated: SRV002" in told(asked)
    assert "ask through the server that people use" in told(asked)
