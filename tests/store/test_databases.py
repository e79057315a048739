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
from gates import RULES, Gate, make_messy, told
from places import Guest, Place
from repairs import lines_of

from mlflow_compliance.settings import load_settings

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
    "between two changes": "mlflow_compliance.journal:Journal.begin:4",
    "within the copy of a run": "mlflow_compliance.store.copying:RunCopier._copy_files:1",
}


@pytest.mark.parametrize("moment", GONE)
def test_the_next_repair_finishes_what_a_lost_server_broke_off(server: Server, guest_on: Callable[..., Guest], gate: Gate, moment: str) -> None:
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
    assert "0 changes to 0 entities" in told(gate("--fix-dry-run"))
