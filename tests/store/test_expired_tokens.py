"""A token that expires half-way: the gateway before a tracking server lets a caller pass until then, and answers HTTP 401 ever after."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from gates import POLICIES, Gate, make_messy, plan_in, told
from kinds_buckets import served
from places import Guest
from servers import Proxy, answer

from mlflow_compliance.settings import load_settings

TOKEN = "sesame-until-noon"
WITHOUT_ADVICE = "[policies.ART001]\nenabled = false\n"


class Gateway:
    """Looks at every request. `expires` is asked with the request lines so far, the one at hand last."""

    def __init__(self, expires: Callable[[Sequence[str]], bool]) -> None:
        self.expires, self.asked, self.expired, self.lock = expires, list[str](), False, threading.Lock()

    def __call__(self, head: bytes) -> bytes | None:
        lines = head.decode().split("\r\n")
        with self.lock:
            self.asked.append(lines[0])
            self.expired = self.expired or self.expires(self.asked)
            passes = not self.expired and f"authorization: bearer {TOKEN}" in map(str.lower, lines)
        return None if passes else answer("401 Unauthorized", "<html>Your token has expired</html>")


def at(endpoint: str, number: int) -> Callable[[Sequence[str]], bool]:
    """When an endpoint is asked for the so-manieth time."""
    return lambda asked: endpoint in asked[-1] and sum(endpoint in line for line in asked) == number


def after(endpoint: str) -> Callable[[Sequence[str]], bool]:
    return lambda asked: any(endpoint in line for line in asked[:-1])


@pytest.fixture
def guest(gate: Gate, tmp_path: Path, empty_store: bytes, monkeypatch: pytest.MonkeyPatch) -> object:
    """A messy store whose server hands out the artifacts too."""
    (tmp_path / "mlflow.db").write_bytes(empty_store)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    with served(tmp_path) as place:
        gate.settings(place.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
        made = Guest(place, gate.folder, load_settings(gate.folder / "compliance.toml"))
        make_messy(made)
        made.rich_run("2", "rich", base_in="0")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
        yield made


def through(guest: Guest, gate: Gate, expires: Callable[[Sequence[str]], bool], *flags: str, **more: object) -> tuple[pytest.RunResult, Gateway]:
    gateway = Gateway(expires)
    with Proxy(int(guest.uri.rpartition(":")[2]), gateway) as proxy:
        gate.settings(proxy.url, WITHOUT_ADVICE)
        result = gate(*flags, **more)  # type: ignore[arg-type]
    assert TOKEN not in told(result)
    return result, gateway


def test_a_token_that_expires(guest: Guest, gate: Gate) -> None:
    before = guest.everything()

    # While the store is read: rows, the list of the artifacts, and the bytes of one.
    for endpoint, number in (("/runs/search", 1), ("/metrics/get-history", 2), ("artifacts?path=", 5), ("/artifacts/MLmodel", 1), ("/shap.bin", 1)):
        audited, gateway = through(guest, gate, at(endpoint, number))
        assert gateway.expired, f"{endpoint} was not asked {number} times"
        assert audited.ret == 4, told(audited)
        (line,) = {line for line in told(audited).splitlines() if "HTTP 401" in line}
        assert line.endswith(
            "cannot be read: it does not accept the credentials (HTTP 401): check MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, which may have expired"
        ), line
    # When the rules ask for more, what was not given is not what was found to be wrong.
    asked, gateway = through(guest, gate, at("/ajax-api/", 2), "-k", "SRV002", rules=(POLICIES / "test_serving.py",))
    assert asked.ret == 1
    assert "does not accept the credentials (HTTP 401) that it took when the store was read" in told(asked)
    assert sum("/ajax-api/" in line for line in gateway.asked) == 2, "it was not asked on"

    # While a repair writes: in the copy of a run, between two changes, and when all is done and the store is read anew.
    for expires, said in (
        (at("PUT ", 1), "could not be copied, because the tracking server does not accept the credentials any more (HTTP 401)"),
        (at("/runs/log-batch", 1), "could not be copied, because the tracking server does not accept the credentials any more (HTTP 401)"),
        (at("/experiments/set-experiment-tag", 2), "could not be set, because the tracking server does not accept the credentials any more"),
        (after("/runs/update"), "the store cannot be read anew to see whether it is what was planned"),
    ):
        fixed, gateway = through(guest, gate, expires, "--fix")
        assert gateway.expired, said
        assert fixed.ret == 4, told(fixed)
        (line,) = {line for line in told(fixed).splitlines() if "HTTP 401" in line}
        assert said in line
        journal = max((gate.folder / ".compliance").glob("[0-9]*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        last = [json.loads(text) for text in journal.read_text().splitlines()][-1]
        assert last["state"] == ("end" if "anew" in said else "begin")
        assert "its journal says how far it came" in line or str(journal) in line

    finished, _ = through(guest, gate, lambda _: False, "--fix")
    assert finished.ret == 0, told(finished)
    assert plan_in(finished)[-1].startswith("0 changes"), "the last repair had made them all"
    after_it = guest.everything()
    whole = [run for run in after_it.runs.values() if run.active and run.tags.get("compliance.copy") == "complete"]
    merged = {run.run_id for run in before.runs.values() if run.experiment_id == "2"}
    assert sorted(run.tags["compliance.source_run_id"] for run in whole) == sorted(merged), "every run once"
    for run in whole:
        assert run.metrics == before.runs[run.tags["compliance.source_run_id"]].metrics
    assert before.artifacts is not None
    assert after_it.artifacts is not None
    assert before.artifacts.files.keys() <= after_it.artifacts.files.keys(), "nothing was deleted"
