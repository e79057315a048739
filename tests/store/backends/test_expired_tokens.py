"""A token that expires half-way: the gateway before a tracking server lets a caller pass until then, and answers
HTTP 401 ever after.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gates import POLICIES, Gate, make_messy, plan_in, told
from kinds_buckets import served
from places import Guest
from repairs import copied_once
from servers import Proxy, answer
from stores import BIG

from mlflow_compliance.errors import StoreError
from mlflow_compliance.settings.schema import load_settings
from mlflow_compliance.store.store import open_store

TOKEN = "sesame-until-noon"


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


def written_down(gate: Gate) -> list[dict[str, Any]]:
    """The lines of the latest journal; of none, none."""
    journals = sorted((gate.folder / ".compliance").glob("[0-9]*.jsonl"))
    return [json.loads(text) for text in journals[-1].read_text().splitlines()] if journals else []


def all_done(gate: Gate) -> bool:
    """Whether the journal has every change as done."""
    lines = written_down(gate)
    return bool(lines) and sum(line.get("state") == "done" for line in lines) == lines[0]["changes"]


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
        made.run("2", "measured", metrics={"auc": 0.75, "loss": 0.25}, files={"shap.bin": BIG})
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
        yield made


def through(
    port: int, gate: Gate, expires: Callable[[Sequence[str]], bool], *flags: str, rules: str = "test_experiments.py"
) -> tuple[pytest.RunResult, Gateway]:
    gateway = Gateway(expires)
    with Proxy(port, gateway) as proxy:
        gate.settings(proxy.url)
        result = gate(*flags, rules=(POLICIES / rules,))
    assert TOKEN not in told(result)
    return result, gateway


def test_a_token_that_expires(guest: Guest, gate: Gate) -> None:
    before, port = guest.everything(), int(guest.uri.rpartition(":")[2])

    # While the store is read: rows, the list of the artifacts, and the bytes of one.
    refusal = (
        "it does not accept the credentials (HTTP 401): check MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    )
    for endpoint, number in (
        ("/runs/search", 1),
        ("/metrics/get-history", 2),
        ("artifacts?path=", 5),
        ("/MLmodel", 1),
        ("/shap.bin", 1),
    ):
        gateway = Gateway(at(endpoint, number))
        with (
            Proxy(port, gateway) as proxy,
            pytest.raises(StoreError, match=re.escape(f"{proxy.url} cannot be read: {refusal}")),
        ):
            open_store(proxy.url, guest.settings, str(gate.folder)).read(artifacts=True)
        assert gateway.expired, f"{endpoint} was not asked {number} times"
    audited, _ = through(port, gate, at("/runs/search", 1))
    assert audited.ret == 4, told(audited)
    assert refusal in told(audited)
    # When the rules ask for more, what was not given is not what was found to be wrong.
    asked, gateway = through(port, gate, at("/ajax-api/", 2), "-k", "SRV002", rules="test_serving.py")
    assert asked.ret == 1
    assert "does not accept the credentials (HTTP 401) that it took when the store was read" in told(asked)
    assert sum("/ajax-api/" in line for line in gateway.asked) == 2, "it was not asked on"

    # While a repair writes: in the copy of a run, between two changes, and when all is done and the store is read anew.
    for expires, said in (
        (
            at("PUT ", 1),
            "could not be copied, because the tracking server does not accept the credentials any more (HTTP 401)",
        ),
        (
            at("/experiments/set-experiment-tag", 2),
            "could not be set, because the tracking server does not accept the credentials any more",
        ),
        (lambda _: all_done(gate), "the store cannot be read anew to see whether it is what was planned"),
    ):
        fixed, gateway = through(port, gate, expires, "--fix")
        assert gateway.expired, said
        assert fixed.ret == 4, told(fixed)
        (line,) = {line for line in told(fixed).splitlines() if "HTTP 401" in line}
        assert said in line
        assert written_down(gate)[-1]["state"] == ("end" if "anew" in said else "begin")
        assert "journal" in line

    finished, _ = through(port, gate, lambda _: False, "--fix")
    assert finished.ret == 0, told(finished)
    assert plan_in(finished)[-1].startswith("0 changes"), "the last repair had made them all"
    after_it = guest.everything()
    copied_once(before, after_it, "2")
    assert before.artifacts is not None
    assert after_it.artifacts is not None
    assert before.artifacts.files.keys() <= after_it.artifacts.files.keys(), "nothing was deleted"
