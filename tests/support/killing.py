"""A pytest plugin for a process that is to die at the n-th call of one function of the program, given as
KILL_AT=module:function:n.

With KILL_WITH=SIGINT it is interrupted there. With KILL_SERVER=pid:signal:port that server dies in its stead, and the
call goes on once nobody answers at the port.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import time
from typing import Any

import pytest

from mlflow_compliance.settings.flags import commands_in


def pytest_configure(config: pytest.Config) -> None:
    if commands_in(lambda dest: getattr(config.option, dest, None)):
        arm(os.environ["KILL_AT"])  # nothing will be collected


def pytest_collection_finish() -> None:
    arm(os.environ["KILL_AT"])


def arm(moment: str) -> None:
    """Let this process die at a moment, `module:function:n`."""
    module_name, path, number = moment.split(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module_name)
    for part in owners:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), iter(range(1, 1_000_000))
    if os.environ.get("KILL_WITH") == "SIGINT":
        # What a shell starts in the background ignores it.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls) == int(number):
            if "KILL_SERVER" in os.environ:
                _end(*map(int, os.environ["KILL_SERVER"].split(":")))
            else:
                os.kill(os.getpid(), signal.Signals[os.environ.get("KILL_WITH", "SIGKILL")])
        return real(*arguments, **named)

    setattr(owner, name, dying)


def _end(pid: int, number: int, port: int) -> None:
    os.kill(pid, number)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    raise RuntimeError("the server does not end")
