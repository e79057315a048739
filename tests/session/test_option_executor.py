"""--compliance-executor: files are read and models are tried on a real Dask cluster, and nothing is missed when a
part of it dies.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gates import Gate, told
from stores import Lab

from mlflow_compliance.executors import executor_of
from mlflow_compliance.progress import Silent
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.evidence import Computed, Scan
from mlflow_compliance.snapshot.files import ArtifactFile, DuplicateRules
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.store.artifacts import duplicates
from mlflow_compliance.store.artifacts.duplicates import hash_candidates
from mlflow_compliance.store.evidence.cache import EvidenceCache
from mlflow_compliance.store.storage.storages import Storages


@pytest.mark.parametrize(
    "word",
    [
        "",
        "dask",
        "dask:",
        "dask:tcp://",
        "dask:127.0.0.1:8786",
        "dask:tcp://user:secret@host:1",
        "processes",
        "Threads",
    ],
)
def test_what_names_no_executor_is_a_usage_error(gate: Gate, messy: Lab, word: str) -> None:
    result = gate(f"--compliance-executor={word}")
    assert result.ret == 4
    assert "--compliance-executor takes threads (the default) or dask:tcp://host:port" in told(result)
    assert "secret" not in told(result)


def test_a_scheduler_that_is_not_there_is_told_in_one_sentence(gate: Gate, messy: Lab) -> None:
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    for address in ("tcp://127.0.0.1:9", "tcp://no-such-host.invalid:8786", "tcp://127.0.0.1:99999"):
        result = gate(f"--compliance-executor=dask:{address}", process=True)
        assert result.ret == 4
        assert f"the Dask scheduler at {address} cannot be reached" in told(result)
        assert "Traceback" not in told(result)


def test_without_the_extra_the_sentence_says_what_to_install(
    gate: Gate, messy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = gate("--compliance-executor=dask:tcp://127.0.0.1:9")
    assert result.ret == 4
    assert "pip install 'pytest-mlflow-compliance[dask]'" in told(result)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler with two worker processes.

    Its threads import modules when they like: a run of pytest in this process, which takes all modules away for a
    moment, must not meet them.
    """
    distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as started:
        yield started


def outcomes(result: pytest.RunResult) -> list[str]:
    return sorted(line for line in result.outlines if "passed" not in line and " in " not in line and line.strip())


def test_the_report_is_the_same_on_a_cluster(gate: Gate, messy: Lab, cluster: Any) -> None:
    here, there = gate(process=True), gate(f"--compliance-executor=dask:{cluster.scheduler_address}", process=True)
    assert here.ret == there.ret == 1
    assert outcomes(here) == outcomes(there)


class Killing(Silent):
    """Kills one process when the first contents have come back."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self.kill, self.label, self.killed = kill, "", 0

    def start(self, label: str, total: int | None) -> None:
        self.label = label

    def advance(self, n: int) -> None:
        if self.label == "Comparing contents" and not self.killed:
            self.killed += 1
            self.kill()


def test_a_worker_that_is_killed_half_way_loses_nothing(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_BATCH_FILES", 2)
    owner, files = EntityRef("run", "a", "a"), {}
    for number in range(400):
        path = tmp_path / f"f{number}"
        path.write_bytes(b"\0" * 300_000 + bytes([number % 150]))
        files[str(path)] = ArtifactFile(300_001, f"0:{number}", owner, True)
    artifacts = Artifacts((), files, {}, rules=DuplicateRules(1))
    with cluster.get_client() as client, executor_of(f"dask:{cluster.scheduler_address}") as pool:
        pids = sorted(client.run(os.getpid).values())
        killing = Killing(lambda: os.kill(pids[0], signal.SIGKILL))
        found = hash_candidates(artifacts, killing, pool)
        client.wait_for_workers(2, timeout=60)
        assert pids[0] not in client.run(os.getpid).values()
    assert killing.killed
    assert found == hash_candidates(artifacts, Silent())
    assert not found.unread
    assert len(found.hashes) == 400


def test_a_model_is_tried_on_the_cluster(cluster: Any, tmp_path: Path) -> None:
    # The scan named a file that is gone: the attempt is made, and its problem told.
    evidence_cache = EvidenceCache(Settings(), Storages(""), f"dask:{cluster.scheduler_address}")
    assert (
        evidence_cache.probe(str(tmp_path), Scan((), {"model.pkl": "0" * 64}), None).problem
        == "model.pkl was removed after the folder was scanned"
    )


def test_models_are_scanned_on_the_cluster(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in which nothing is found; what is wrong with the others is found here, in the words of a session of
    one machine.
    """
    paths = []
    for number in range(120):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(os.getcwd if number % 40 == 7 else [number]))
        paths.append(str(path))
    evidence_cache, here = (
        EvidenceCache(Settings(), Storages(""), f"dask:{cluster.scheduler_address}"),
        EvidenceCache(Settings(), Storages("")),
    )
    monkeypatch.setattr("mlflow_compliance.store.evidence.cache._scan", lambda *_: pytest.fail("looked at here"))
    found = evidence_cache.scans(paths)
    monkeypatch.undo()
    bad = [path for number, path in enumerate(paths) if number % 40 == 7]
    assert sorted(found) == sorted(set(paths) - set(bad))
    assert all(here.scan(path) == scan for path, scan in found.items())
    assert all(here.scan(path).problems for path in bad)
    told = Computed(paths, here.scan, evidence_cache.scans)
    assert [path for path, scan in told.items() if scan.problems] == bad
