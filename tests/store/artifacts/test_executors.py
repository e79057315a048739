"""Any executor does the reading: what its processes lose is done here, what they cannot see is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pytest
from pooled import fatal, hide

from mlflow_compliance.executors import run
from mlflow_compliance.progress import Silent
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import DuplicateRules
from mlflow_compliance.snapshot.refs import Location
from mlflow_compliance.store.artifacts.duplicates import hash_candidates

RUN = "a" * 32


def found_in(read: Callable[..., Artifacts], row: Callable[..., Location], folder: Path, **given: object) -> Artifacts:
    return read([row("run", RUN, "1", folder)], rules=DuplicateRules(1), **given)


def test_what_a_broken_pool_loses_is_done_here(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        units = [(number, os.getpid(), str(tmp_path)) for number in range(200)]
        assert [value for value, _ in run(pool, fatal, units)] == [number * 2 for number in range(200)]
    there, here = int((tmp_path / "3").read_text()), os.getpid()
    assert there != here, "it died there"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a process mounts of its own")
def test_what_a_worker_cannot_see_is_told_with_its_machine(
    read: Callable[..., Artifacts], row: Callable[..., Location], tmp_path: Path
) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_bytes(b"x" * 9000)
    found = found_in(read, row, folder)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=hide, initargs=(str(folder),)) as pool:
        if socket.gethostname() == "elsewhere":
            pytest.skip("this machine is called elsewhere")
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool:
            pytest.skip("needs a kernel that gives a process mounts of its own")
        hashed = hash_candidates(found, Silent(), pool)
    assert hashed.unread == {str(folder / name): "no such file or directory on elsewhere" for name in ("one", "two")}
