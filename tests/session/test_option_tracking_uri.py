"""--tracking-uri: which store is audited, and that what is secret in its URI is never shown."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gates import Gate, state, told
from stores import Lab

SECRETS = ("s3cr%40et", "s3cr@et", "alice", "t0ken", "q%2Fz9", "q/z9")


@pytest.fixture
def other(make_lab: object, gate: Gate) -> list[Lab]:
    """Three stores that are told apart by an experiment's name."""
    labs = [make_lab() for _ in range(3)]  # type: ignore[operator]
    for number, lab in enumerate(labs):
        lab.experiment(f"test_of_store_{number}")
    return labs


def audited(result: pytest.RunResult) -> list[str]:
    """The numbers of the stores whose experiments a run told of."""
    return sorted(set(re.findall(r"test_of_store_(\d)", told(result))))


def test_it_wins_over_the_environment_and_that_over_the_settings(
    gate: Gate, other: list[Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    flag, environment, settings = (lab.uri for lab in other)
    rule = ("-k", "no_test_experiment")
    gate.settings(settings)
    assert audited(gate(*rule)) == ["2"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert audited(gate(*rule)) == ["1"]
    assert audited(gate(*rule, f"--tracking-uri={flag}")) == ["0"]


def test_a_relative_one_starts_where_the_command_was_given(
    gate: Gate, other: list[Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.settings()
    monkeypatch.chdir(other[1].folder)
    assert audited(gate("-k", "no_test_experiment", "--tracking-uri=sqlite:///mlflow.db")) == ["1"]


def test_without_any_the_sentence_names_all_three_ways(gate: Gate) -> None:
    gate.settings()
    result = gate()
    assert result.ret == 4
    assert "no store is named: give --tracking-uri, set MLFLOW_TRACKING_URI, or write [store] tracking_uri" in told(
        result
    )


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///no/such/place/mlflow.db", "there is no database at"),
        ("sqlite:mlflow.db", "names no database file"),
        ("sqlite://", "names no database file"),
        ("sqlite:///:memory:", "names no database file"),
        ("no_such_folder", "there is no file store at"),
        ("file:no_such_folder", "there is no file store at"),
        ("file:///no/such/folder", "there is no file store at"),
        ("http://[bad", "cannot be read as one"),
        ("databricks://profile", "not supported"),
        ("uc:unity", "not supported"),
        ("http://127.0.0.1:9/", "the tracking server http://127.0.0.1:9/ cannot be read: "),
        ("localhost:5000", "write http://localhost:5000, if that is a tracking server"),
        ("mlflow.internal:8080/", "write http://mlflow.internal:8080, if that is a tracking server"),
        ("postgres://jo@db.internal/mlflow", "begins with 'postgres:': write 'postgresql:' in its place"),
        ("mariadb+pymysql://db.internal/mlflow", "begins with 'mariadb+pymysql:': write 'mysql+pymysql:' in its place"),
        ("sqlite3:///mlflow.db", "begins with 'sqlite3:': write 'sqlite:' in its place"),
        ("s3://bucket/mlruns", "says where artifacts lie, and not which store knows them"),
        ("mlflow-artifacts://host/2", "says where artifacts lie"),
        ("gopher://127.0.0.1/x", "cannot be read through MLflow"),
        ("nonsense://", "cannot be read through MLflow"),
    ],
)
def test_what_is_no_store_is_told_in_one_sentence(gate: Gate, uri: str, said: str) -> None:
    gate.settings()
    before = set(state(gate.folder))
    result = gate(f"--tracking-uri={uri}")
    assert result.ret == 4
    assert said in told(result)
    assert set(state(gate.folder)) == before


class _Refusing(http.server.BaseHTTPRequestHandler):
    """A tracking server that wants other credentials, and repeats what it was asked."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(self.path.encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def refusing() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("way", ["flag", "environment", "settings"])
def test_secrets_of_a_server_are_not_shown(
    gate: Gate, refusing: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    uri = f"http://alice:s3cr%40et@{refusing}/base?key=t0ken&more=q%2Fz9"
    gate.settings(uri if way == "settings" else "")
    if way == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    flags = [f"--tracking-uri={uri}"] if way == "flag" else []
    result = gate("--html=audit.html", "--junitxml=audit.xml", "-vv", "-l", *flags)
    assert result.ret == 4
    text = told(result)
    assert f"the tracking server http://***@{refusing}/base cannot be read: " in text
    _nothing_secret(text, gate.folder, settings=way == "settings")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "mssql+pyodbc"])
def test_secrets_of_a_database_are_not_shown(gate: Gate, scheme: str) -> None:
    """Whether its driver is installed or not."""
    gate.settings()
    result = gate(
        "--html=audit.html",
        "-vv",
        "-l",
        f"--tracking-uri={scheme}://alice:s3cr%40et@127.0.0.1:9/x?key=t0ken&more=q%2Fz9&connect_timeout=1",
    )
    assert result.ret == 4
    text = told(result)
    assert f"the store {scheme}://***@127.0.0.1:9/x cannot be read" in text
    _nothing_secret(text, gate.folder)


def test_the_query_of_a_database_is_not_shown(gate: Gate, messy: Lab) -> None:
    gate.settings()
    result = gate("--fix", "--html=audit.html", f"--tracking-uri={messy.uri}?key=t0ken")
    assert result.ret == 0
    _nothing_secret(told(result), gate.folder)
    _nothing_secret("", messy.folder)


def _nothing_secret(text: str, folder: Path, *, settings: bool = False) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not (settings and path.name == "compliance.toml"):
            text += f"\n{path}\n" + path.read_text("utf-8", "replace")
    for secret in SECRETS:
        assert secret not in text, secret
