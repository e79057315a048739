"""Starts what must not run in this process: a module with limits, in a folder of its own."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, cast

from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.store.models.sandbox_child import landlock_version
from mlflow_compliance.store.models.system_calls import filterable

_START = """import site, sys
sys.path.insert(0, sys.argv[1])
import mlflow_compliance
del sys.path[0]
if sys.argv[2]: site.addsitedir(sys.argv[2])
from mlflow_compliance.store.models.sandbox_child import start
start(*sys.argv[3:])"""
_HERE = str(Path(__file__).parents[3])
"""An isolated interpreter finds installed packages alone, and of this one perhaps another version."""

# No credential, no proxy, no address of a server: what an interpreter and its libraries need to be found and to spell.
_KEPT = re.compile(r"PATH|LANG|LC_\w+|LD_LIBRARY_PATH")
_THREADS = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_SET = {
    **dict.fromkeys(_THREADS, "1"),  # a large machine would start hundreds, and each takes 70 MiB of address space
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_TRACKING_URI": "none://",  # refused at once; without one, ./mlruns would be made
    "JOBLIB_MULTIPROCESSING": "0",  # a model with n_jobs computes by itself: it starts no processes
}

_LONGEST_WAIT = 2_000_000
_GRACE = 5
MOST_SAID = 1000


class Limits(NamedTuple):
    """What a process may use: `seconds` of wall clock, `megabytes` (MiB) of address space, and of each file that it
    writes.
    """

    seconds: float
    megabytes: int


def run_limited(module: str, arguments: Sequence[str], folder: str, limits: Limits) -> str:
    """Run `python -m module arguments` in a process of its own and wait for it. Empty, or in one sentence without a
    subject what went wrong.

    `folder` is its working directory; HOME and TMPDIR are temporary. Modules come from where packages are installed.
    The module succeeds by
    returning: every exception, SystemExit too, is a problem, and nothing is done at the end of the process (atexit,
    threads, files left open).

    Always holds: none of our variables but a few harmless ones, memory and the size of files bounded, output discarded;
    when the call returns, or this process dies, the other one is gone with all that it started (unless it killed its
    supervisor first).
    Holds where the kernel lets an ordinary user have it (`unconfined` says where not): no socket, no other process, so
    that the limit of memory is that of all, no file's mode, time, owner or attributes changed, no other process
    signalled or looked into (a filter of system calls); no file outside `folder` and HOME written or removed
    (Landlock); no network and a small /dev/shm of its own (namespaces; without these it has no /dev/shm).
    Not held: it reads what the user can read, and may fill the disk.
    """
    seconds = min(limits.seconds, _LONGEST_WAIT)
    with temporary_folder() as home:
        user = site.USER_SITE if site.ENABLE_USER_SITE else None
        words = [_HERE, user or "", os.getpid(), seconds, limits.megabytes, home, module, *arguments]
        process = subprocess.Popen(
            [sys.executable, "-I", "-W", "ignore", "-c", _START, *map(str, words)],
            cwd=folder,
            env={
                **{name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)},
                **_SET,
                "HOME": home,
                "TMPDIR": home,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        try:
            return _outcome(process) if _ended(process, seconds) else f"did not finish within {limits.seconds:g} s"
        finally:
            _end(process)


def unconfined() -> tuple[str, ...]:
    """What a limited process cannot be kept from on this machine, a sentence without a subject each; nothing on a
    Linux of today.
    """
    found = []
    if not filterable():
        found.append(
            "could not be kept from UNIX sockets, from changing modes, times and attributes of your other files, and "
            "from using its memory once for each process that it starts: this machine takes no filter of system calls"
        )
    if landlock_version() < 1:
        found.append("could not be kept from writing to your other files and to /dev/shm: this kernel has no Landlock")
    return tuple(found)


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ended in time. Only the supervisor holds its standard output, so that closes when it is gone; its
    number stays taken.
    """
    waiting = select.poll()
    waiting.register(cast("IO[bytes]", process.stdout), 0)
    return bool(waiting.poll(seconds * 1000))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the supervisor end all that runs below it; where it does not, end those that are still in the session's
    group.
    """
    with process:
        if not _ended(process, 0):
            os.kill(process.pid, signal.SIGTERM)
            _ended(process, _GRACE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _outcome(process: subprocess.Popen[bytes]) -> str:
    answer, said = (_written(cast("IO[bytes]", pipe)) for pipe in (process.stdout, process.stderr))
    last = without_secrets(said.strip().rpartition("\n")[2])[:MOST_SAID]
    if not re.fullmatch(r"-?\d{1,3}", answer):
        return f"could not be started: {last}" if last else "was killed"
    code = int(answer)
    if code < 0:
        return f"the process died by signal {-code} ({str(signal.strsignal(-code)).lower()})"
    return (last or f"called exit ({code})") if code else ""


def _written(pipe: IO[bytes]) -> str:
    os.set_blocking(pipe.fileno(), False)  # somebody who got away may hold it open
    return (pipe.read(1 << 14) or b"").decode(errors="replace")


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Removed at the end, also where a model took away the right to."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="mlflow-compliance-"))
    try:
        yield folder
    finally:
        _open_up(folder)
        for place, folders, _ in os.walk(folder):
            for name in folders:
                _open_up(os.path.join(place, name))
        shutil.rmtree(folder, ignore_errors=True)


def _open_up(folder: str) -> None:
    if not os.path.islink(folder):
        with suppress(FileNotFoundError):  # not even that can be kept from it on an old kernel
            os.chmod(folder, 0o700)
