"""A tracking server that is down is told at once; one that may come back is asked again, and each retry is told."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gates import Gate, make_messy, told
from servers import Proxy, answer, tracking_server
from serving import Server
from stores import Lab

AWAY = answer("503 Service Unavailable")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, empty_store: bytes) -> Iterator[tuple[Server, Lab]]:
    lab = Lab.new(tmp_path_factory.mktemp("behind") / "lab", empty_store, {})
    make_messy(lab)
    with tracking_server(lab.folder.parent, lab.uri, lab.mlruns) as server:
        yield server, lab


@pytest.fixture
def patient(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """With MLflow's own number of retries, and without the time between them."""
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    return gate


def retries(text: str) -> list[str]:
    return re.findall(r"\): (retry \d+ of \d+)", text)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_nobody_listens(patient: Gate) -> None:
    """Seven retries would take minutes."""
    patient.settings(f"http://ann:sesame@127.0.0.1:{closed_port()}")
    result = patient("-k", "EXP002")
    text = told(result)
    assert (result.ret, retries(text)) == (4, [])
    assert "does not answer (connection refused): check that it runs, and the tracking URI" in text
    assert "with MLFLOW_HTTP_REQUEST_MAX_RETRIES set, it is asked again" in text
    assert "sesame" not in text


def test_no_such_host(patient: Gate) -> None:
    patient.settings("http://no-such-host.invalid:5000")
    result = patient("-k", "EXP002")
    assert (result.ret, retries(told(result))) == (4, [])
    assert re.search(r"does not answer \([\w ,]+\): check that it runs, and the tracking URI", told(result))


def test_nobody_listens_yet_and_the_user_waits(patient: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    patient.settings(f"http://ann:sesame@127.0.0.1:{closed_port()}")
    result = patient("-k", "EXP002")
    text = told(result)
    assert (result.ret, retries(text)) == (4, ["retry 1 of 3", "retry 2 of 3", "retry 3 of 3"])
    assert "also after 3 retries (MLFLOW_HTTP_REQUEST_MAX_RETRIES)" in text
    assert "sesame" not in text


def test_a_proxy_whose_server_is_restarting(behind: tuple[Server, Lab], patient: Gate) -> None:
    turned_away = iter([AWAY] * 3)
    with Proxy(behind[0].port, lambda _: next(turned_away, None)) as proxy:
        patient.settings(proxy.url)
        result = patient("-k", "EXP002")
    text = told(result)
    assert (result.ret, retries(text)) == (1, ["retry 1 of 7", "retry 2 of 7", "retry 3 of 7"])
    assert "does not answer (HTTP 503 Service Unavailable): retry 3 of 7" in text


def test_a_proxy_whose_server_does_not_come_back(patient: Gate) -> None:
    with Proxy(0, lambda _: AWAY) as proxy:
        patient.settings(proxy.url)
        result = patient("-k", "EXP002")
        assert proxy.asked == 8
    assert (result.ret, len(retries(told(result)))) == (4, 7)


@pytest.mark.parametrize(
    ("gone", "why"), [(b"", "the connection broke off"), (AWAY, "HTTP 503 Service Unavailable")], ids=["broken", "503"]
)
@pytest.mark.parametrize("where", [b"/runs/search", b"/registered-models/search"])
def test_a_server_that_answered_before(
    behind: tuple[Server, Lab], patient: Gate, gone: bytes, why: str, where: bytes
) -> None:
    """Also what MLflow's own client asks."""
    left = iter([gone] * 2)
    with Proxy(behind[0].port, lambda head: next(left, None) if where in head else None) as proxy:
        patient.settings(proxy.url)
        result = patient("-k", "EXP002")
    text = told(result)
    # Of runs several searches are under way: each may break off once.
    assert (result.ret, retries(text)[0], {*retries(text)} <= {"retry 1 of 7", "retry 2 of 7"}) == (
        1,
        "retry 1 of 7",
        True,
    )
    assert f"({why}): retry 1 of 7" in text


def test_one_that_takes_the_connection_and_says_nothing(patient: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    over = threading.Event()

    def silent(_: bytes) -> bytes:
        over.wait(60)
        return b""

    with Proxy(0, silent) as proxy:
        patient.settings(proxy.url)
        result = patient("-k", "EXP002")
        asked = proxy.asked
        over.set()
    text = told(result)
    assert (result.ret, retries(text), asked) == (4, ["retry 1 of 1"], 2)
    assert "does not answer (it takes long): retry 1 of 1" in text
    assert "it does not answer (it takes long), also after 1 retries (MLFLOW_HTTP_REQUEST_MAX_RETRIES)" in text


def test_credentials_that_are_refused_are_not_asked_again(patient: Gate, tmp_path: Path) -> None:
    with Proxy(0, lambda _: answer("401 Unauthorized")) as proxy:
        patient.settings(proxy.url)
        result = patient("-k", "EXP002")
        assert proxy.asked == 1
    assert (result.ret, retries(told(result))) == (4, [])
