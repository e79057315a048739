"""Starts what must not run in this process: a module with limits, and through it a model that is loaded and scored."""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.evidence import Probe
from mlflow_compliance.store.storage.atomic_write import create, write_bytes
from mlflow_compliance.store.storage.safe_io import digest_of, opened, why_unread

_CHILD = "mlflow_compliance.store.models.probe_child"
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
}

_LONGEST_WAIT = 2_000_000
_GRACE = 5
_LARGEST_RESULT = 1 << 22
_LONGEST_SENTENCE = 1000
_BLOCK = 1 << 20
_UNUSABLE = Probe("its process did not write a result that can be used")


class Limits(NamedTuple):
    """What a process may use: `seconds` of wall clock, `megabytes` (MiB) of address space, and of each file that it
    writes.
    """

    seconds: float
    megabytes: int


class Sample(NamedTuple):
    """Rows to score again. Both files are Parquet or CSV."""

    path: str
    """Holds feature columns, and one column with positions in the file of predictions."""
    row: str
    """That column; the first of the predictions has position 0."""
    predictions: str
    probability: str
    """The column of the predictions with what the model gave."""


def probe(folder: str, hashes: Mapping[str, str], limits: Limits, sample: Sample | None = None) -> Probe:
    """Load the model in a folder, score its input example and the sample. `hashes` are those of its files (relative
    path -> SHA-256) as scanned.

    What is loaded is a copy of exactly these files: the folder itself is never opened for it, and a file that is not as
    it was scanned is a
    problem. What the model's process answers is checked for its form; that it is true cannot be checked.
    """
    with _temporary_folder() as place:
        model, result = os.path.join(place, "model"), os.path.join(place, "result.json")
        wanted = (
            [os.path.abspath(sample.path), sample.row, os.path.abspath(sample.predictions), sample.probability]
            if sample
            else []
        )
        problem = _copied(folder, hashes, model) or run_limited(_CHILD, [model, result, *wanted], place, limits)
        return Probe(problem) if problem else _read(result)


def run_limited(module: str, arguments: Sequence[str], folder: str, limits: Limits) -> str:
    """Run `python -m module arguments` in a process of its own and wait for it. Empty, or in one sentence without a
    subject what went wrong.

    `folder` is its working directory; HOME and TMPDIR are temporary. Modules come from where packages are installed.
    The module succeeds by
    returning: every exception, SystemExit too, is a problem, and nothing is done at the end of the process (atexit,
    threads, files left open).

    Always holds: none of our variables but a few harmless ones, memory and the size of files bounded, output discarded;
    when the call returns, or
    this process dies, the other one is gone with all that it started (unless it killed its supervisor first). Holds
    where the kernel lets an
    ordinary user have it: no network (namespaces, or Landlock for TCP), no file outside `folder`, HOME and /dev/shm
    written or removed, no signal
    to this process and no look into its variables (Landlock of Linux 6.12; less in older ones). Not held: it reads what
    the user can read.
    """
    seconds = min(limits.seconds, _LONGEST_WAIT)
    with _temporary_folder() as home:
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
    last = without_secrets(said.strip().rpartition("\n")[2])[:_LONGEST_SENTENCE]
    if not re.fullmatch(r"-?\d{1,3}", answer):
        return f"could not be started: {last}" if last else "was killed"
    code = int(answer)
    if code < 0:
        return f"the process died by signal {-code} ({str(signal.strsignal(-code)).lower()})"
    return (last or f"called exit ({code})") if code else ""


def _written(pipe: IO[bytes]) -> str:
    os.set_blocking(pipe.fileno(), False)  # somebody who got away may hold it open
    return (pipe.read(1 << 14) or b"").decode(errors="replace")


class _Result(BaseModel):
    """What the process of a model may answer."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    problem: str = Field(default="", max_length=_LONGEST_SENTENCE)
    params: dict[str, str] = {}
    features: tuple[str, ...] = ()
    example: tuple[float, ...] = ()
    sampled: int = Field(default=0, ge=0)
    worst: float = Field(default=0.0, ge=0)
    sample_problem: str = Field(default="", max_length=_LONGEST_SENTENCE)


def _read(path: str) -> Probe:
    try:
        with opened(path) as file:
            raw = os.read(file, _LARGEST_RESULT)  # what is longer is cut off, and no JSON
    except FileNotFoundError:
        return Probe("called exit")
    except OSError:
        return _UNUSABLE
    try:
        found = Probe(**_Result.model_validate_json(raw).model_dump())
    except ValidationError:
        return _UNUSABLE
    return found if found.problem or found.example else _UNUSABLE


def _copied(folder: str, hashes: Mapping[str, str], target: str) -> str:
    """Copy the files that were scanned; the first one that is not as it was, or that nobody scanned, is the problem."""
    strange = sorted(set(_names(folder)).symmetric_difference(hashes))
    if strange:
        return f"{strange[0]} was {'removed' if strange[0] in hashes else 'added'} after the folder was scanned"
    for name, sha256 in sorted(hashes.items()):
        try:
            if _copy(os.path.join(folder, name), os.path.join(target, name)) != sha256:
                return f"{name} was changed after it was scanned"
        except OSError as error:
            return f"{name} could not be copied ({why_unread(error)})"
    return ""


def _copy(path: str, target: str) -> str:
    """The hash of the copy, whatever becomes of the file."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with opened(path) as file, create(target) as copy:
        while data := os.read(file, _BLOCK):
            write_bytes(copy, data)
        return digest_of(copy, target)


def _names(folder: str) -> Iterator[str]:
    """Everything below a folder that is no folder, relative to it."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in (*files, *links))


@contextmanager
def _temporary_folder() -> Iterator[str]:
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
