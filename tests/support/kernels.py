"""Older kernels: what a thread of ours starts does without some system calls, as on a kernel without them."""

from __future__ import annotations

import ctypes
import platform
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

from mlflow_compliance.store.models.system_calls import filterable

LANDLOCK, PRCTL, UNSHARE = 444, 157, 272
"""On x86_64: where Landlock begins; what sets a filter of system calls; what makes namespaces."""
_NO_NEW_PRIVILEGES, _SET_SECCOMP = 38, 22

T = TypeVar("T")


def can_be_older() -> bool:
    """Whether this machine can play an older one."""
    return filterable() and platform.machine() == "x86_64"


def without(*calls: int, do: Callable[[], T]) -> T:
    """What `do` gives in a thread, and in all that it starts, where these calls do not exist (of prctl: setting a
    filter).
    """
    found: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _filter(calls)
            found.append(do())
        except BaseException as error:  # noqa: BLE001  it is raised again below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]


def _filter(calls: tuple[int, ...]) -> None:
    refuse, allow = (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)
    steps = [(0x20, 0, 0, 0)]
    for call in calls:
        if call == PRCTL:
            steps += [(0x15, 0, 4, call), (0x20, 0, 0, 16), (0x15, 0, 1, _SET_SECCOMP), refuse, allow]
        else:
            steps += [(0x15, 0, 1, call), refuse]
    program = b"".join(struct.pack("=HBBI", *step) for step in (*steps, allow))
    text = ctypes.create_string_buffer(program, len(program))
    libc = ctypes.CDLL(None)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    assert libc.prctl(_SET_SECCOMP, 2, struct.pack("@HP", len(program) // 8, ctypes.addressof(text))) == 0
