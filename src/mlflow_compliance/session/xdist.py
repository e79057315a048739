"""One reading for all workers of pytest-xdist: the first that needs it makes it, the others take it from a private
folder.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import StoreError
from mlflow_compliance.session.state import STOPPED

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.audit.judging import Judge
    from mlflow_compliance.audit.results import Summary
    from mlflow_compliance.audit.snapshots import Reading, Sharing


WORKER_ERROR = "compliance_error"
"""Key under which a worker of pytest-xdist hands over why it could not collect: raised there, it would be an
internal error.
"""


def receive_error(node: Any) -> None:
    """On the controller of pytest-xdist: keep what a worker handed over."""
    error = getattr(node, "workeroutput", {}).get(WORKER_ERROR)
    if error:
        node.config.stash[STOPPED] = error


def stop(config: pytest.Config) -> None:
    """On the controller of pytest-xdist: stop as a run without workers does."""
    if STOPPED in config.stash:
        raise pytest.UsageError(config.stash[STOPPED])


_INPUT = "compliance_readings"
_SUMMARY = "summary"
_FOLDER: pytest.StashKey[tempfile.TemporaryDirectory[str]] = pytest.StashKey()


def prepare(node: Any) -> None:
    """On the controller: tell a worker where its fellows put what they read. The folder is this user's alone and
    goes with the session.
    """
    config: pytest.Config = node.config
    if _FOLDER not in config.stash:
        # A worker that was killed may be writing still.
        folder = config.stash[_FOLDER] = tempfile.TemporaryDirectory(
            prefix="mlflow-compliance-", ignore_cleanup_errors=True
        )
        config.add_cleanup(folder.cleanup)
    node.workerinput[_INPUT] = config.stash[_FOLDER].name


def share_summary(config: pytest.Config, audit: Audit) -> None:
    """On a worker: leave the summary, and what judges, for the controller, which reads no store. All workers collect
    the same.
    """
    folder = getattr(config, "workerinput", {}).get(_INPUT, "")
    if folder and os.path.isdir(folder) and audit.opened:
        from mlflow_compliance.audit.summary import summary_of

        _write(os.path.join(folder, _SUMMARY), (summary_of(audit), audit.judge))


def shared_summary(config: pytest.Config) -> tuple[Summary, Judge] | None:
    """On the controller: what a worker left, None where no store was read."""
    path = os.path.join(config.stash[_FOLDER].name, _SUMMARY) if _FOLDER in config.stash else ""
    found: tuple[Summary, Judge] | None = _read(path) if os.path.exists(path) else None
    return found


def sharing_of(config: pytest.Config) -> Sharing:
    """How this session makes its readings. A worker on another machine does not find the folder and reads for
    itself.
    """
    folder = getattr(config, "workerinput", {}).get(_INPUT, "")
    if folder and os.path.isdir(folder) and os.stat(folder).st_uid == os.getuid():
        return Shared(folder)
    from mlflow_compliance.audit.snapshots import Alone

    return Alone()


class Shared:
    """Readings in a folder that several processes of one user and one session know."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def once(self, name: str, make: Callable[[], Reading]) -> Reading:
        """What the first process made under a name; what stopped it stops the others too, without asking an unreachable
        store again.

        The lock is the kernel's: it is free again when its holder dies, and the next one makes the reading.
        """
        path = os.path.join(self._folder, name)
        with open(os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(path):
                made: Reading | str
                try:
                    made = make()
                except StoreError as error:
                    made = str(error)
                _write(path, made)
            else:
                made = _read(path)
        if isinstance(made, str):
            raise StoreError(made)
        return made


def _write(path: str, value: object) -> None:
    """Put a value in place as a whole, readable for this user only."""
    part = f"{path}.{os.getpid()}"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
    os.rename(part, path)


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        return pickle.load(file)  # noqa: S301  written by a process of this session, in a folder that only its user can enter
