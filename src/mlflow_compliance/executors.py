"""Where files are read and models are tried: threads of this process, or the workers of a Dask cluster."""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from typing import TypeVar
from urllib.parse import urlsplit

from mlflow_compliance.errors import ComplianceError, first_line

THREADS = "threads"
_DASK = re.compile(r"dask:((?:tcp|tls|ws|wss|ucx|ucxx)://[^\s/@]+:\d{1,5})")
_WORKERS = min(8, os.cpu_count() or 1)
_CONNECTING = 10
_UNDER_WAY = 64
"""Units that are handed out at one time: enough for a cluster to be busy, few enough to hold in memory."""

_Unit = TypeVar("_Unit")
_Value = TypeVar("_Value")


def check_executor(name: str) -> None:
    """Raise ComplianceError where --compliance-executor names none."""
    if name != THREADS and not _DASK.fullmatch(name):
        raise ComplianceError(
            "--compliance-executor takes threads (the default) or dask:tcp://host:port, the address of a Dask scheduler"
        )


@contextmanager
def executor_of(name: str) -> Iterator[Executor]:
    """The executor behind the name, for as long as it is used. Raises ComplianceError where it cannot be reached."""
    check_executor(name)
    if name == THREADS:
        with ThreadPoolExecutor(_WORKERS) as pool:
            yield pool
        return
    with _cluster(name.partition(":")[2]) as pool:
        yield pool


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise ComplianceError(
            "--compliance-executor=dask:... needs the Dask library, which is not installed: pip install "
            "'pytest-mlflow-compliance[dask]'"
        ) from None
    try:
        _refuse_if_nobody_listens(address)
        client = Client(address, timeout=_CONNECTING, set_as_default=False)
    except Exception as error:
        raise ComplianceError(
            f"the Dask scheduler at {address} cannot be reached ({first_line(error)}): start it, or leave "
            "--compliance-executor out"
        ) from error
    try:
        pool = client.get_executor(pure=False)
        _greet(pool, address)
        yield pool
    finally:
        client.close()


def _refuse_if_nobody_listens(address: str) -> None:
    """Dask would try again until its time is up."""
    parts = urlsplit(address)
    socket.create_connection((parts.hostname, parts.port), timeout=_CONNECTING).close()


def _greet(pool: Executor, address: str) -> None:
    """A worker that has not this program, or has another version of it, would give other answers."""
    ours = _version()
    asked: Future[str] = pool.submit(_version)
    try:
        theirs = asked.result(timeout=_CONNECTING)
    except Late as error:
        raise ComplianceError(
            f"no worker of the Dask scheduler at {address} answers: start one, or leave --compliance-executor out"
        ) from error
    except Exception as error:
        raise ComplianceError(
            f"the workers of the Dask scheduler at {address} cannot run pytest-mlflow-compliance "
            f"({first_line(error)}): install {ours} there"
        ) from error
    if theirs != ours:
        raise ComplianceError(
            f"the workers of the Dask scheduler at {address} have pytest-mlflow-compliance {theirs}: install "
            f"{ours} there"
        )


def _version() -> str:
    return version("pytest-mlflow-compliance")


def run(pool: Executor, work: Callable[[_Unit], _Value], units: Iterable[_Unit]) -> Iterator[tuple[_Value, str]]:
    """Do every unit and give its value with the other machine's name, in order.

    What a pool loses (a worker that was killed, a scheduler that is gone) is done here: nothing is missed because a
    machine is.
    """
    left = iter(units)
    host = socket.gethostname()
    under_way: deque[tuple[_Unit, Future[tuple[_Value, str]] | None]] = deque()
    try:
        while True:
            for unit in islice(left, _UNDER_WAY - len(under_way)):
                under_way.append((unit, _submitted(pool, work, unit, host)))
            if not under_way:
                return
            unit, future = under_way.popleft()
            yield _outcome(future) or (work(unit), "")
    finally:
        for _, future in under_way:
            if future is not None:
                future.cancel()


def _submitted(
    pool: Executor, work: Callable[[_Unit], _Value], unit: _Unit, host: str
) -> Future[tuple[_Value, str]] | None:
    try:
        return pool.submit(_done, work, unit, host)
    except Exception:  # noqa: BLE001  whatever a library raises about a scheduler that is gone
        return None


def _outcome(future: Future[tuple[_Value, str]] | None) -> tuple[_Value, str] | None:
    """None where the work must be done again: if it is the work itself that fails, it does so once more, here."""
    try:
        return future.result() if future is not None else None
    except Exception:  # noqa: BLE001  likewise; a cancelled future of Dask's is an exception of its own
        return None


def _done(work: Callable[[_Unit], _Value], unit: _Unit, asking: str) -> tuple[_Value, str]:
    host = socket.gethostname()
    return work(unit), "" if host == asking else host
