"""Starts MLflow's tracking server on a copy of a SQLite store, and ends it with everything that it started."""

from __future__ import annotations

import os
import signal
import site
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from mlflow_compliance.errors import NotAskedError, StoreError
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.store.backends.sqlite_file import reading_file

_APP = "mlflow.server.fastapi_app:app"
"""What `mlflow server` serves. That command opens the store in a first process and serves it in a second, which
takes twice as long.
"""
_START = """
import ctypes, os, runpy, signal, sys
parent = int(sys.argv.pop(1))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGKILL))
if os.getppid() != parent:
    sys.exit("the audit is gone")
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""
"""Asks Linux (PR_SET_PDEATHSIG) to kill the server with the audit, however that ends."""
_DEADLINE = 120.0
"""Seconds from the start to the first answer; two to four are usual."""
_PASSED_ON = (
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONPYCACHEPREFIX",
    "TZ",
)

_OF_STORAGE = ("AWS_", "MLFLOW_S3_", "MLFLOW_BOTO_")


@contextmanager
def tracking_server(
    database: str, busy_timeout: float = 5.0, *, storage: bool = False, workspace: str = ""
) -> Iterator[str]:
    """The base URL of a server that reads a copy of a database; artifacts it serves from where the rows say that they
    lie.

    With `storage` it gets the credentials of who asks for the audit for what lies in object stores. A store with
    several workspaces is
    opened for one of them.
    It answers to this machine only. Raises StoreError where the database cannot be read (`busy_timeout` in seconds) or
    the server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="mlflow-compliance-", ignore_cleanup_errors=True) as folder:
        _copy(database, os.path.join(folder, "mlflow.db"), busy_timeout)
        beside = _link_what_lies_beside(database, folder)
        log = os.path.join(folder, "server.log")
        # Where new experiments would lie: with workspaces it answers nothing without.
        more = (
            {"MLFLOW_ENABLE_WORKSPACES": "true", "_MLFLOW_SERVER_ARTIFACT_ROOT": os.path.join(folder, "new")}
            if workspace
            else {}
        )
        process, url = _start(folder, beside, log, {**more, **(_of_storage() if storage else {})})
        try:
            _wait(process, url, log, workspace)
            yield url
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _copy(database: str, target: str, busy_timeout: float) -> None:
    with reading_file(database, busy_timeout) as connection, closing(sqlite3.connect(target)) as copy:
        source: Any = connection.connection.driver_connection
        source.backup(copy)


def _link_what_lies_beside(database: str, folder: str) -> str:
    """A folder for the server to work in, where relative locations lead to what they lead to from the database's own
    folder.

    The database's folder itself it is not: a server leaves files where it works.
    """
    beside = os.path.join(folder, "beside")
    os.mkdir(beside)
    with os.scandir(os.path.dirname(os.path.abspath(database))) as entries:
        for entry in entries:
            if entry.is_dir():
                os.symlink(os.path.abspath(entry.path), os.path.join(beside, entry.name))
    return beside


def _start(folder: str, beside: str, log: str, more: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    # The port is taken here and handed on: nobody else can take it, and who asks before the server is ready waits in
    # line.
    with socket.create_server(("127.0.0.1", 0)) as listening, open(log, "wb") as output:
        # uvicorn takes a socket that it is given for a local one and leaves this out; every answer would wait 40 ms for
        # the kernel.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port, file = listening.getsockname()[1], listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(os.getpid()), "--fd", str(file), "--log-level", "warning", _APP],
            cwd=beside,
            env={**_environment(folder), **more},
            pass_fds=[file],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, f"http://127.0.0.1:{port}"


def _of_storage() -> dict[str, str]:
    """The rights of who asks for the audit, where artifacts lie in object stores."""
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(_OF_STORAGE)},
        "AWS_CONFIG_FILE": os.environ.get("AWS_CONFIG_FILE") or os.path.expanduser("~/.aws/config"),
        "AWS_SHARED_CREDENTIALS_FILE": os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
        or os.path.expanduser("~/.aws/credentials"),
    }


def _environment(folder: str) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "PYTHONPATH": os.pathsep.join(
            os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
        ),
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # A server cleans up what its assistant left behind, in the folder for temporary files and with the docker that
        # it finds.
        "PATH": folder,
        "HOME": folder,
        "TMPDIR": folder,
    }


def _wait(process: subprocess.Popen[bytes], url: str, log: str, workspace: str) -> None:
    """Return when the server gives a first answer out of the database."""
    import requests
    from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy for the world outside does not know this port
            headers = {WORKSPACE_HEADER_NAME: workspace} if workspace else {}
            answer = session.get(
                f"{url}/ajax-api/2.0/mlflow/experiments/search?max_results=1", headers=headers, timeout=_DEADLINE
            )
    except requests.Timeout:
        raise NotAskedError(
            f"a tracking server did not answer within {_DEADLINE:.0f} s{_last_words(log)}: try again when there "
            "is less to do"
        ) from None
    except requests.ConnectionError:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)  # it says why while it ends
        raise NotAskedError(
            f"a tracking server ended before it answered{_last_words(log)}: check the installed mlflow"
        ) from None
    if answer.status_code != requests.codes.ok:
        raise StoreError(f"a tracking server does not open the store (HTTP {answer.status_code}){_last_words(log)}")


def _last_words(log: str) -> str:
    """What a server wrote last, to follow what is known about its end."""
    with open(log, encoding="utf-8", errors="replace") as text:
        lines = [without_secrets(line.strip())[:400] for line in text if line.strip()]
    return f" ({'; '.join(dict.fromkeys(lines[-2:]))})" if lines else ""
