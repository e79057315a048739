"""Stores in PostgreSQL and MariaDB: what is told of one that cannot be read, and what happens when its server goes away in a repair."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import PASSWORD, QUOTED, Server, mariadb_server, postgresql_server
from gates import EVERY_RULE, RULES, Gate, make_messy, told
from places import Guest, Place
from repairs import lines_of, plan_for
from stores import BIG, unlike

from mlflow_compliance.errors import ComplianceError, StoreError
from mlflow_compliance.settings import load_settings
from mlflow_compliance.store.loading import find_production_model, load_production_model
from mlflow_compliance.store.opening import open_store
from mlflow_compliance.store.production_model import UnreachableError

SERVERS: dict[str, Callable[[], Server]] = {"postgresql": postgresql_server, "mariadb": mariadb_server}


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


def test_what_cannot_be_read_is_told_in_one_sentence(server: Server, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = server.database()
    assert "holds no MLflow store" in refused(gate, server.uri(empty))
    assert server.sql(empty, f"SELECT * FROM information_schema.tables WHERE table_schema IN ('public', '{empty}')") == []
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


def fixing(gate: Gate, kill: str, server: Server) -> subprocess.CompletedProcess[str]:
    """A user's own command, in which the server goes away at some call."""
    assert server.process is not None
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KILL_AT": kill,
        "KILL_SERVER": f"{server.process.pid}:{server.deadly}:{server.port}",
    }
    words = [f"--rootdir={gate.folder}", f"-c={gate.folder}/pytest.ini", *map(str, RULES), "--fix", "-p", "killing"]
    return subprocess.run([sys.executable, "-m", "pytest", *words], cwd=gate.folder, env=environment, capture_output=True, text=True)


GONE = {
    "between two changes": "mlflow_compliance.journal:Journal.begin_all:3",
    "within the copy of a run": "mlflow_compliance.store.copying:RunCopier._copy_files:1",
}


@pytest.mark.parametrize(("kind", "moment"), [("postgresql", "within the copy of a run"), ("mariadb", "between two changes")])
def test_the_next_repair_finishes_what_a_lost_server_broke_off(guest_on: Callable[..., Guest], gate: Gate, kind: str, moment: str) -> None:
    server = SERVERS[kind]()
    guest = guest_on(server)
    ids = make_messy(guest)
    guest.rich_run(ids["credit_production"], base_in="0")
    before = guest.everything()
    broken_off = fixing(gate, GONE[moment], server)
    server.stop()
    server.start()
    text = broken_off.stdout + broken_off.stderr
    assert broken_off.returncode == 4
    assert "Traceback" not in text
    assert "went away" in text
    (journal,) = Path(guest.store.folder).glob("[0-9]*.jsonl")
    assert [line["state"] for line in lines_of(journal)[1:]]
    fixed = gate("--fix")
    assert fixed.ret == 0, told(fixed)
    assert "verified: the store, read anew, is what was planned" in told(fixed)
    after = guest.everything()
    copies = [run for run in after.runs.values() if run.tags.get("compliance.copy") == "complete"]
    assert sorted(run.tags["compliance.source_run_id"] for run in copies) == sorted(
        key for key, run in before.runs.items() if run.experiment_id == ids["credit_production"]
    )
    assert plan_for(guest, *EVERY_RULE).steps == ()


def test_one_repair_at_a_time_from_any_machine(server: Server, guest_on: Callable[..., Guest], gate: Gate) -> None:
    """The file lock is that of this machine: here each has a folder of its own, as on two machines."""
    guest = guest_on(server)
    make_messy(guest)
    before = guest.everything()
    other = open_store(guest.uri, guest.settings, str(gate.folder / "another machine"))
    with other.backend.lock():
        busy = gate("--fix")
        assert busy.ret == 4
        assert "is running, perhaps on another machine: wait for it to end" in told(busy)
        assert unlike(before, guest.everything()) == []
        elsewhere = open_store(server.store("/nowhere"), guest.settings, str(gate.folder))
        with elsewhere.backend.lock():
            """Another database of the same server is another store."""
    assert gate("--fix").ret == 0


def test_only_the_callers_workspace_and_only_what_is_meant(server: Server, guest_on: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch) -> None:
    """What another workspace owns is neither looked at nor taken for ownerless; MySQL compares text without regard to case, the rules do not."""
    guest = guest_on(server)
    theirs = guest.experiment("test_theirs")
    run_id = guest.run(theirs, files={"a.bin": BIG})
    guest.stray(theirs + "x", {"left.bin": BIG})
    mine = guest.experiment("other")
    shouted = guest.run(mine, "shouted", stage="PRODUCTION")
    accented = guest.run(mine, "accented", stage="productión")
    server.sql(guest.uri.rpartition("/")[2], f"UPDATE experiments SET workspace = 'theirs' WHERE experiment_id = {theirs}")
    here = guest.read()
    assert (here.info.workspace, set(here.experiments)) == ("default", {"0", mine})
    assert not {shouted, accented, run_id} & here.runs.keys()
    assert here.artifacts is not None
    kept = {Path(path).name: item.keep for path, item in here.artifacts.ownerless.items()}
    assert kept == {theirs: "another workspace of this store owns it", f"{theirs}x": ""}
    monkeypatch.setenv("MLFLOW_WORKSPACE", "theirs")
    assert set(guest.read(artifacts=False).experiments) == {theirs}


def test_an_old_schema_is_audited_and_not_written_to(server: Server, guest_on: Callable[..., Guest], gate: Gate) -> None:
    guest = guest_on(server)
    make_messy(guest)
    name = guest.uri.rpartition("/")[2]
    # As it was before logged models and datasets had what they have now.
    server.sql(name, "UPDATE alembic_version SET version_num = '4465047574b1'", "DROP TABLE logged_model_metrics", "DROP TABLE assessments")
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
