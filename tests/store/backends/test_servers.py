"""Stores behind a tracking server: read as they are, never taken for empty, and every refusal told in one sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from gates import POLICIES, Gate, make_messy, owned, plan_in, state, told
from living import everything_alive
from mlflow.entities import LoggedModelStatus
from packaging.version import Version
from repairs import copied_once
from servers import ADMIN, PASSWORD, Proxy, answer, tracking_server
from serving import Server
from stores import Lab

from mlflow_compliance.snapshot.ties import How
from mlflow_compliance.store.store import open_store

READER = ("reader", "reads:everything")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, empty_store: bytes) -> Iterator[tuple[Server, Lab]]:
    """A server that everybody may ask, and the store behind it; nothing here writes to it."""
    lab = Lab.new(tmp_path_factory.mktemp("behind") / "lab", empty_store, {})
    make_messy(lab)
    with tracking_server(lab.folder.parent, lab.uri, lab.mlruns) as server:
        yield server, lab


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, empty_store: bytes) -> Iterator[tuple[Server, Lab]]:
    """A server with MLflow's basic-auth app: an administrator, a user who may read everything, and one who may not
    read experiment 2.
    """
    lab = Lab.new(tmp_path_factory.mktemp("guarded") / "lab", empty_store, {})
    make_messy(lab)
    with tracking_server(lab.folder.parent, lab.uri, lab.mlruns, users="READ") as server:
        for name in ("reader", "stranger"):
            _as_admin(server, "/api/2.0/mlflow/users/create", username=name, password=READER[1])
        if Version(mlflow.__version__) < Version("3.13"):
            denied = {"username": "stranger", "experiment_id": "2", "permission": "NO_PERMISSIONS"}
            _as_admin(server, "/api/2.0/mlflow/experiments/permissions/create", **denied)
        else:
            denied = {"username": "stranger", "resource_type": "experiment", "resource_id": "2", "permission": "DENY"}
            _as_admin(server, "/api/3.0/mlflow/users/permissions/grant", **denied)
        yield server, lab


def _as_admin(server: Server, path: str, **body: str) -> None:
    answered = requests.post(server.url + path, json=body, auth=(ADMIN, PASSWORD), timeout=30)
    assert answered.ok, answered.text


def refused(gate: Gate, uri: str, *flags: str) -> str:
    """The one sentence of a gate that cannot use its store."""
    gate.settings(uri)
    result = gate(*flags)
    text = told(result)
    assert result.ret == 4, text
    assert "Traceback" not in text
    (line,) = {line for line in text.splitlines() if "tracking server" in line}
    return line


def test_the_same_snapshot_as_by_sql(behind: tuple[Server, Lab]) -> None:
    """With everything that a run may have, and with claims that only a run's tag makes: its neighbours have passed
    by then.
    """
    server, lab = behind
    rich = lab.rich_run("1", "rich", base_in="0")
    claimed = lab.experiment("credit_by_tag")
    for number in range(3):
        lab.run(claimed, f"beside it {number}")
    lab.run(claimed, "says so", stage="production")
    lab.client.delete_run(lab.run(claimed, "gone"))
    model = lab.model("1", rich, "registered")
    lab.registered("scorer", f"models:/{model}", rich, alias="champion")
    everything_alive(lab)
    failed = lab.client.create_logged_model("1", name="failed", source_run_id=rich).model_id
    lab.client.finalize_logged_model(failed, LoggedModelStatus.FAILED)
    lab.sql("UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE name = 'scorer'")
    also = (rich, lab.run("4", "in no rule's scope"))
    by_sql, sql_rows = lab.store.read_rows(also)
    over_http, rows = open_store(server.url, lab.settings, str(lab.folder)).read_rows(also)
    for part in ("experiments", "runs", "logged_models", "registered_models", "ties", "untold", "datasets"):
        assert getattr(by_sql, part) == getattr(over_http, part), part
    assert by_sql.half_made == over_http.half_made
    assert {item.status for item in over_http.half_made} == {"PENDING", "FAILED", "PENDING_REGISTRATION"}
    assert by_sql.open_traces == over_http.open_traces
    assert [item.number for item in over_http.open_traces] == [1]
    assert {tie.how for tie in over_http.ties} == set(How) - {How.PARENT}, "that one only before something is destroyed"
    assert len([run for run in over_http.runs.values() if run.experiment_id == claimed]) == 4, (
        "a rival's runs are all brought in"
    )
    assert sorted(rows.locations) == sorted(sql_rows.locations)
    assert rows.ready_models == sql_rows.ready_models
    assert rows.deleted_runs == dict.fromkeys(sql_rows.deleted_runs, 0), "when, no server tells"
    assert len(rows.deleted_runs) == 3


def test_an_audit_leaves_the_store_behind_the_server_as_it_is(behind: tuple[Server, Lab], gate: Gate) -> None:
    server, lab = behind
    gate.settings(server.url)
    before = state(lab.folder)
    assert gate().ret == 1
    assert gate("--fix-dry-run").ret == 1
    assert state(lab.folder) == before


@pytest.mark.parametrize(
    ("uri", "environment", "said"),
    [
        ("{url}", {}, "it does not accept the credentials (HTTP 401)"),
        (
            "{url}",
            {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": "sesame-wrong"},
            "it does not accept the credentials (HTTP 401)",
        ),
        ("http://admin:sesame-wrong@{host}", {}, "it does not accept the credentials (HTTP 401)"),
        (
            "{url}",
            {"MLFLOW_TRACKING_USERNAME": "stranger", "MLFLOW_TRACKING_PASSWORD": READER[1]},
            "hides experiment 2 from this user",
        ),
    ],
    ids=["no credentials", "wrong password", "wrong password in the URI", "a user who may not read an experiment"],
)
def test_who_may_not_read_all_is_told_so(
    guarded: tuple[Server, Lab],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    environment: dict[str, str],
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server, _ = guarded
    line = refused(gate, uri.format(url=server.url, host=server.url.removeprefix("http://")))
    assert said in line
    assert "sesame" not in line
    assert READER[1] not in line


def test_a_reader_audits_and_may_not_repair(
    guarded: tuple[Server, Lab], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, lab = guarded
    for name, value in zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), READER, strict=True):
        monkeypatch.setenv(name, value)
    gate.settings(server.url)
    before = lab.everything(artifacts=False)
    audited = gate()
    assert audited.ret == 1
    assert "test_experiment" in told(audited)
    served = gate("-k", "SRV002", rules=(POLICIES / "test_serving.py",))
    assert served.ret == 0, told(served)
    fixed = gate("--fix", "-k", "EXP002")
    assert fixed.ret == 1
    assert "the user may not do this (HTTP 403)" in told(fixed)
    assert lab.everything(artifacts=False).experiments == before.experiments


def test_hidden_by_default(tmp_path: Path, empty_store: bytes, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server shows only what was granted, the empty list that it gives is no empty store."""
    lab = Lab.new(tmp_path / "lab", empty_store, {})
    with tracking_server(tmp_path, lab.uri, lab.mlruns, users="NO_PERMISSIONS", cached=0) as server:
        # With its cache of passwords MLflow 3.17.2 answers a token with HTTP 500.
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "sesame-expired")
        line = refused(gate, server.url)
        assert "MLFLOW_TRACKING_TOKEN, which may have expired" in line
        assert "sesame" not in line
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        _as_admin(server, "/api/2.0/mlflow/users/create", username=READER[0], password=READER[1])
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", READER[0])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", READER[1])
        assert "shows this user only experiments that were granted one by one" in refused(gate, server.url)


def test_what_does_not_answer(behind: tuple[Server, Lab], gate: Gate) -> None:
    assert "it does not speak TLS: check whether the tracking URI should begin with http:" in refused(
        gate, behind[0].url.replace("http:", "https:")
    )
    with Proxy(0, lambda _: answer("200 OK", "<html>Welcome</html>")) as page:
        assert "what answers there (HTTP 200 OK) is no MLflow tracking server" in refused(gate, page.url)
    with Proxy(0, lambda _: answer("404 Not Found", "<html>nothing here</html>")) as nothing:
        assert "what answers there (HTTP 404 Not Found) is no MLflow tracking server" in refused(gate, nothing.url)
    line = refused(gate, nothing.url.replace("//", "//ann:sesame@"))
    assert "it does not answer (connection refused)" in line
    assert "sesame" not in line


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_server_that_is_busy_is_asked_again_as_often_as_mlflow_does(
    behind: tuple[Server, Lab], gate: Gate, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    server, _ = behind
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    turned_away = iter([answer(status), answer(status)])
    with Proxy(server.port, lambda _: next(turned_away, None)) as proxy:
        gate.settings(proxy.url)
        assert gate("-k", "EXP002").ret == 1, "two refusals are waited out"
    with Proxy(server.port, lambda _: answer(status)) as proxy:
        line = refused(gate, proxy.url)
        assert proxy.asked == 3
    assert (
        f"{proxy.url} cannot be read: it answers HTTP {status}, also after 2 retries (MLFLOW_HTTP_REQUEST_MAX_RETRIES)"
        in line
    )


def test_a_server_that_goes_away_while_it_is_read(behind: tuple[Server, Lab], gate: Gate) -> None:
    server, _ = behind
    with Proxy(server.port, lambda head: b"" if b"/runs/search" in head else None) as proxy:
        assert "it does not answer (the connection broke off)" in refused(gate, proxy.url)


def test_only_the_callers_workspace(
    tmp_path: Path, empty_store: bytes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab.new(tmp_path / "lab", empty_store, {})
    with tracking_server(tmp_path, lab.uri, lab.mlruns, workspaces=True) as server:
        assert server.post("/api/3.0/mlflow/workspaces", {"name": "team-b"}).ok
        for workspace, name in (("default", "test_of_team_a"), ("team-b", "test_of_team_b")):
            headers = {"X-MLFLOW-WORKSPACE": workspace}
            made = requests.post(
                f"{server.url}/api/2.0/mlflow/experiments/create", json={"name": name}, headers=headers, timeout=30
            ).json()
            run = {"experiment_id": made["experiment_id"], "start_time": 1}
            assert requests.post(f"{server.url}/api/2.0/mlflow/runs/create", json=run, headers=headers, timeout=30).ok
        for workspace, seen, hidden in (("", "team_a", "team_b"), ("team-b", "team_b", "team_a")):
            monkeypatch.setenv("MLFLOW_WORKSPACE", workspace)
            snapshot, _ = open_store(server.url, lab.settings, str(tmp_path)).read_rows()
            assert [item.name for item in snapshot.experiments.values() if "test" in item.name] == [f"test_of_{seen}"]
            assert len(snapshot.runs) == 1
            gate.settings(server.url)
            audited = gate("-k", "EXP002")
            assert seen in told(audited)
            assert hidden not in told(audited)
        monkeypatch.setenv("MLFLOW_WORKSPACE", "team-c")
        assert "team-c" in refused(gate, server.url)


def test_other_files_than_the_server_sees_are_not_touched(
    tmp_path: Path, empty_store: bytes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows name folders that are there on both machines, with other files in them. A second look of a test at
    one machine: the proxy.
    """
    lab = Lab.new(tmp_path / "lab", empty_store, {})
    make_messy(lab)
    with tracking_server(tmp_path, lab.uri, lab.mlruns) as server:
        elsewhere = answer(
            "200 OK", json.dumps({"root_uri": "/", "files": [{"path": "other.bin", "is_dir": False, "file_size": 5}]})
        )
        before = state(lab.folder)
        with Proxy(server.port, lambda head: elsewhere if b"/artifacts/list" in head else None) as proxy:
            assert "these are not the files that it serves" in refused(gate, proxy.url, "--fix")
        assert state(lab.folder) == before


def test_a_server_that_is_killed_in_the_middle_of_a_repair(tmp_path: Path, empty_store: bytes, gate: Gate) -> None:
    """Before each of some changes: the journal says how far it came, and the next repair finishes."""
    lab = Lab.new(tmp_path / "lab", empty_store, {})
    make_messy(lab)
    lab.rich_run("2", "rich", base_in="0")
    everything = lab.everything()
    with tracking_server(tmp_path, lab.uri, lab.mlruns) as server:
        for endpoint, number in (
            (b"/runs/log-batch", 1),
            (b"/experiments/set-experiment-tag", 2),
            (b"/experiments/delete", 1),
        ):
            seen, lock = iter(range(1, 1000)), threading.Lock()

            def kill(
                head: bytes,
                endpoint: bytes = endpoint,
                number: int = number,
                seen: Iterator[int] = seen,
                lock: threading.Lock = lock,
            ) -> bytes | None:
                with lock:
                    if endpoint in head.split(b"\r\n")[0] and next(seen) == number:
                        server.stop()
                return None if server.process else b""

            with Proxy(server.port, kill) as proxy:
                gate.settings(proxy.url)
                result = gate("--fix", owned(lab.mlruns))
            assert server.process is None, f"{endpoint!r} was not asked {number} times"
            text = told(result)
            assert result.ret == 4, text
            assert "Traceback" not in text
            (line,) = {line for line in text.splitlines() if "is gone" in line}
            assert "give the same command again when the server answers" in line
            journal = max((gate.folder / ".compliance").glob("[0-9]*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
            assert [json.loads(text) for text in journal.read_text().splitlines()][-1].get("state") in (
                "begin",
                "failed",
            )
            server.start().wait()
        gate.settings(server.url)
        assert gate("--fix", owned(lab.mlruns)).ret == 0
        again = gate("--fix")
        assert again.ret == 0
        assert plan_in(again)[-1].startswith("0 changes")
    copied_once(everything, lab.everything(), "2")
