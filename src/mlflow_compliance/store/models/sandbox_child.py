"""What runs a module in a process with limits: a supervisor, and what is taken from the process before the module
begins.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import runpy
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NoReturn

from mlflow_compliance.errors import first_line
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.store.models.system_calls import filter_calls

_PARENT_DEATH, _SUBREAPER, _NO_NEW_PRIVILEGES = 1, 36, 38
_NEW_USER, _NEW_NETWORK, _NEW_MOUNTS = 0x10000000, 0x40000000, 0x20000
_PRIVATE, _PLAIN = 0x44000, 0x6
"""Of mounts: this one and those below are nobody else's; no devices, no programs with another user's rights."""
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
_MOST_SHARED = b"size=64m"
_CAPABILITIES, _READ_ANY_FILE = (
    0x20080522,
    0b110,
)  # version 3; CAP_DAC_OVERRIDE (all that containers have) and CAP_DAC_READ_SEARCH
_LANDLOCK = (444, 445, 446)  # create a ruleset, add a rule, obey
_WRITE_FILE, _WRITING, _MOVING, _TRUNCATING = 0x2, 0x1FF2, 0x2000, 0x4000
_TCP, _SCOPES = 0x3, 0x3
_MOST_FILES = 1024

LONGEST_SENTENCE = 500
"""Characters of what an exception says."""
_NO_MEMORY = ("bad_alloc", "Cannot allocate memory", "failed to map segment", "bad allocation")


def start(parent: str, seconds: str, megabytes: str, home: str, module: str, *arguments: str) -> NoReturn:
    """Supervise a process that runs a module under limits; how it ended goes to standard output, in one number as
    subprocess spells it.

    Standard error gets the sentence of an exception. When the process ends, or `parent` does, or SIGTERM comes, all
    that it started is ended.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: _give_up())
    libc.prctl(_PARENT_DEATH, signal.SIGTERM)
    if os.getppid() != int(parent):
        _give_up()
    worker = os.fork()
    if not worker:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _work(float(seconds), int(megabytes), home, module, arguments)
    _, status = os.waitpid(worker, 0)
    _end_children()
    os.write(1, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _give_up() -> NoReturn:
    _end_children()
    os._exit(1)


def _end_children() -> None:
    """Whoever loses its parent becomes a child of the subreaper: nobody is left when there are no children."""
    while children := list(_children()):
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _children() -> Iterator[int]:
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and _parent_of(name) == os.getpid():
                yield int(name)


def _parent_of(pid: str) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])  # the name before may hold anything


def _work(seconds: float, megabytes: int, home: str, module: str, arguments: Sequence[str]) -> NoReturn:
    code, report = 1, os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    short = _short_of_memory(megabytes).encode()
    try:
        _confine(seconds, megabytes, (os.getcwd(), home))
        sys.argv[:] = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except MemoryError:
        os.write(report, short)
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent is told
        os.write(report, why(error, "its process").encode(errors="backslashreplace"))
    finally:
        os._exit(code)


def _confine(seconds: float, megabytes: int, folders: Sequence[str]) -> None:
    """Take from this process for ever what it does not need."""
    libc = ctypes.CDLL(None)
    own = [_SHARED_MEMORY] if _part(libc) and _has_shared_memory(libc) else []
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _drop_capabilities(libc)
    _write_only_in(libc, (*folders, *own))
    # By the wall clock it is ended long before: for those that get away from it.
    processor = math.ceil(seconds) * (os.cpu_count() or 1) + 10
    _limit(resource.RLIMIT_CPU, processor)
    _limit(resource.RLIMIT_FSIZE, megabytes << 20)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _MOST_FILES)  # what waits in pipes and sockets is memory, too
    _limit(resource.RLIMIT_AS, megabytes << 20)
    # There is one process from here on, so that its limit of memory is that of all.
    filter_calls()


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = min(value, sys.maxsize if hard == resource.RLIM_INFINITY else hard)
    resource.setrlimit(kind, (value, value))


def _part(libc: ctypes.CDLL) -> bool:
    """A network with nothing in it and a view of mounts, of its own, where the kernel gives them: to root at once, to
    others along with a space of users of their own. Whether it got both.
    """
    for wanted in (_NEW_NETWORK | _NEW_MOUNTS, _NEW_NETWORK):
        uid, gid = os.getuid(), os.getgid()
        if libc.unshare(wanted) == 0:
            return wanted != _NEW_NETWORK
        if libc.unshare(_NEW_USER | wanted) == 0:
            for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                with suppress(OSError), open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
            return wanted != _NEW_NETWORK
    return False


def _has_shared_memory(libc: ctypes.CDLL) -> bool:
    """Give it a small /dev/shm that nobody else sees, for locks. Where that cannot be, it gets none."""
    return bool(
        libc.mount(None, b"/", None, _PRIVATE, None) == 0
        and libc.mount(b"tmpfs", _SHARED_MEMORY.encode(), b"tmpfs", _PLAIN, _MOST_SHARED) == 0
    )


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """What makes root more than a user, but for reading what belongs to others: the packages may."""
    header, held = struct.pack("=Ii", _CAPABILITIES, 0), ctypes.create_string_buffer(24)
    libc.capget(header, held)
    kept = struct.unpack("=6I", held.raw)[1] & _READ_ANY_FILE
    libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def _write_only_in(libc: ctypes.CDLL, folders: Sequence[str]) -> None:
    """Hold this process to writing below these folders, without TCP, signals and looks at others; as far as this
    kernel's Landlock goes.
    """
    create, add, obey = map(ctypes.c_long, _LANDLOCK)
    version = landlock_version()
    if version < 1:
        return
    writing = _WRITING | (_MOVING if version >= 2 else 0) | (_TRUNCATING if version >= 3 else 0)
    wanted = struct.pack("=QQQ", writing, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    rules = libc.syscall(create, wanted, ctypes.c_size_t(len(wanted)), ctypes.c_uint32(0))
    for path, allowed in [(folder, writing) for folder in folders] + [
        (os.devnull, writing & (_WRITE_FILE | _TRUNCATING))
    ]:
        with suppress(OSError):
            place = os.open(path, os.O_PATH)
            libc.syscall(add, rules, ctypes.c_int(1), struct.pack("=Qi", allowed, place), ctypes.c_uint32(0))
            os.close(place)
    libc.syscall(obey, rules, ctypes.c_uint32(0))
    os.close(rules)


def landlock_version() -> int:
    """What this kernel's Landlock can hold back; less than 1 where it has none."""
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(_LANDLOCK[0]), None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def why(error: BaseException, step: str) -> str:
    """What an exception in a step ('loading') says about the model, in one sentence without a subject."""
    text = without_secrets(first_line(error))[:LONGEST_SENTENCE]
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return _short_of_memory(resource.getrlimit(resource.RLIMIT_AS)[0] >> 20)
    if isinstance(error, ModuleNotFoundError):
        return f"a library that it needs is not installed here: {text}"
    if isinstance(error, SystemExit):
        return f"{step} called exit"
    if isinstance(error, PermissionError):
        text += " (here a model starts no processes, opens no sockets, and writes in its own folder alone)"
    return f"{step} failed: {text}"


def _short_of_memory(megabytes: int) -> str:
    return f"needed more than {megabytes} MiB of memory"
