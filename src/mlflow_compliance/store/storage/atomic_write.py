"""How a file is changed in one step: written under a temporary name beside it, verified, then put in place by a
rename.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.storage.safe_io import digest_of, opened

TEMPORARY = ".compliance.tmp."
"""How this program names a file that it has not put in place yet: no artifact, whoever finds it."""

_LEFT_OVER = re.compile(re.escape(TEMPORARY) + r"(\d+)\.\d+")
_BLOCK = 1 << 20
_numbers = itertools.count()
_WAYS_OUT = {
    errno.EACCES: "run as the user who owns it",
    errno.EPERM: "run as the user who owns it",
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some of your quota and run again",
    errno.EXDEV: "it lies on another file system, so leave it or move it by hand",
    errno.EROFS: "mount the file system for writing and run again",
    errno.ENOENT: "it was removed meanwhile, so run again to plan anew",
    errno.EBUSY: "let whoever writes to it finish and run again",
    errno.ELOOP: "it is a symbolic link, so look at what it leads to and replace it by hand",
    errno.EMLINK: "the file system allows no more hard links to one file, so leave this copy as it is",
}


@contextmanager
def explained(path: str, what: str = "could not be changed") -> Iterator[None]:
    """Turn the system's refusal into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        other = error.filename
        if isinstance(other, str) and other != path and TEMPORARY not in other:
            reason = f"{other}: {reason}"
        way_out = _WAYS_OUT.get(error.errno or 0, "look at it by hand")
        raise ChangeError(f"{path} {what} ({reason}): {way_out}") from error


@contextmanager
def staged(path: str) -> Iterator[str]:
    """A free temporary name beside `path`; whatever is left under it at the end is removed."""
    folder = os.path.dirname(path)
    sweep(folder)
    temporary = os.path.join(folder, f"{TEMPORARY}{os.getpid()}.{next(_numbers)}")
    try:
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


@contextmanager
def verified(path: str, sha256: str) -> Iterator[tuple[int, os.stat_result]]:
    """`path` open for reading, and its state when it was verified; refused where it does not hold what it should."""
    with opened(path) as file:
        facts = os.fstat(file)
        if digest_of(file, path) != sha256:
            raise ChangeError(
                f"{path} does not hold the content that was planned with any more: run again to plan anew"
            )
        yield file, facts


def write_copy(source: int, temporary: str, sha256: str) -> None:
    """Write an open file's bytes under a new name, onto the disk, and read them back. The blocks are never shared."""
    with create(temporary) as target:
        offset = 0
        while data := os.pread(source, _BLOCK, offset):
            write_bytes(target, data)
            offset += len(data)
        confirm(target, temporary, sha256)


@contextmanager
def create(temporary: str) -> Iterator[int]:
    """A new file, open for writing and reading; the name must be free."""
    target = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        yield target
    finally:
        os.close(target)


def write_bytes(target: int, data: bytes) -> None:
    """All of it: one write may take only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]


def confirm(target: int, temporary: str, sha256: str) -> None:
    """The new file is on the disk and holds what it should."""
    os.fsync(target)
    if digest_of(target, temporary) != sha256:
        raise ChangeError(f"{temporary} does not hold what was written to it: check the disk; nothing was changed")


def sweep(folder: str) -> None:
    """Remove what a process that is no more left behind. Its content is a copy: the name is only taken for those."""
    with os.scandir(folder) as found:
        names = [entry.name for entry in found if entry.name.startswith(TEMPORARY)]
    for name in names:
        left = _LEFT_OVER.fullmatch(name)
        if left and not _alive(int(left[1])):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))


def sweep_below(folder: str) -> None:
    """The same in a folder and in all below it."""
    for here, _, _ in os.walk(folder):
        sweep(here)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
