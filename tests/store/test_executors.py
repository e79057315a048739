"""Any executor does the reading: what its processes lose is done here, what they cannot see is told."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from mlflow_compliance.artifacts import Artifacts, DuplicateRules
from mlflow_compliance.entities import Location
from mlflow_compliance.executors import run
from mlflow_compliance.progress import Silent
from mlflow_compliance.store.artifacts.hashing import hash_candidates

RUN = "a" * 32


def found_in(read: Callable[..., Artifacts], row: Callable[..., Location], folder: Path, **given: object) -> Artifacts:
    return read([row("run", RUN, "1", folder)], rules=DuplicateRules(1), **given)


def fatal(unit: tuple[int, int]) -> int:
    number, here = unit
    if number == 3 and os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


def test_what_a_broken_pool_loses_is_done_here() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        units = [(number, os.getpid()) for number in range(200)]
        assert [value for value, _ in run(pool, fatal, units)] == [number * 2 for number in range(200)]


def hide(folder: str) -> None:
    """From now on this process sees an empty folder, and is another machine by its name."""
    library = ctypes.CDLL(None, use_errno=True)
    # By the system's own calls: the program `mount` reads the list of mounts, which other tests change meanwhile.
    private = 0x4000 | 0x40000  # and all below it
    if (
        library.unshare(0x00020000 | 0x04000000)  # mounts and the host's name
        or library.mount(b"none", b"/", None, private, None)
        or library.mount(b"none", os.fsencode(folder), b"tmpfs", 0, None)
    ):
        raise OSError(ctypes.get_errno(), "the worker sees what everybody sees")
    socket.sethostname("elsewhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a process mounts of its own")
def test_what_a_worker_cannot_see_is_told_with_its_machine(read: Callable[..., Artifacts], row: Callable[..., Location], tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_bytes(b"x" * 9000)
    found = found_in(read, row, folder)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=hide, initargs=(str(folder),)) as pool:
        if socket.gethostname() == "elsewhere":
            pytest.skip("this machine is called elsewhere")
        hashed = hash_candidates(found, Silent(), pool)
    if not hashed.unread:
        pytest.skip("needs a kernel that gives a process mounts of its own")
    assert hashed.unread == {str(folder / name): "no such file or directory on elsewhere" for name in ("one", "two")}
