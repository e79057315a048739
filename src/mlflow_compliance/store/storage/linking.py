"""How two paths come to have one physical copy, and what must hold before and after."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.storage.atomic_write import confirm, create, explained
from mlflow_compliance.store.storage.filesystem import clone

_WRITE = 0o222
_TURNS = tuple(threading.Lock() for _ in range(64))
_F_SETSIG = 10  # of Linux; Python does not name it


def cloned(source: int, temporary: str, sha256: str) -> bool:
    """A new file that shares the blocks of `source` until either is written to; False where the file system cannot."""
    with create(temporary) as target:
        if clone(source, target):
            confirm(target, temporary, sha256)
            return True
    os.unlink(temporary)
    return False


def linked(kept: str, source: int, there: os.stat_result, temporary: str, alike: os.stat_result | None = None) -> None:
    """A second name for `kept`, which nobody may write to from now on: logging again through one path would change the
    other.

    `source` is `kept`, open, and `there` its state when it was verified; `alike` is the state of the file that the name
    will replace.
    """
    mode = stat.S_IMODE(there.st_mode) & ~_WRITE
    if alike is not None:
        mode |= stat.S_IMODE(alike.st_mode) & 0o555  # who could read the path can read it afterwards
        if (there.st_uid, there.st_gid) != (alike.st_uid, alike.st_gid) and not mode & stat.S_IROTH:
            raise ChangeError(
                f"{kept} belongs to another user or group than its duplicate: give both to one, then run again"
            )
    os.fsync(source)  # the replaced file was on the disk: the one that replaces it must be too
    os.link(kept, temporary, follow_symlinks=False)
    if not os.path.samestat(os.lstat(temporary), there):
        raise ChangeError(f"{kept} was replaced meanwhile: run again to plan anew")
    os.fchmod(source, mode)
    refuse_if_changed(kept, there)


@contextmanager
def mode_restored(source: int, there: os.stat_result) -> Iterator[None]:
    """A file that was made read-only for a link that was not made gets its mode back.

    Links to one file are made one after the other: another thread's link may need the file to stay as that one made it.
    """
    with _TURNS[there.st_ino % len(_TURNS)]:
        before = os.fstat(source).st_mode
        try:
            yield
        except BaseException:
            if before & _WRITE and before != os.fstat(source).st_mode:
                os.fchmod(source, stat.S_IMODE(before))
            raise


def take_over(temporary: str, path: str, here: os.stat_result, mode: int) -> None:
    """Give the new file the owner, the extended attributes and the mode of the one that it replaces."""
    new = os.lstat(temporary)
    if (new.st_uid, new.st_gid) != (here.st_uid, here.st_gid):
        os.chown(temporary, here.st_uid, here.st_gid)
    for name, value in _attributes(path).items():
        if _attributes(temporary).get(name) != value:
            os.setxattr(temporary, name, value)
    os.chmod(temporary, mode)


def _attributes(path: str) -> dict[str, bytes]:
    """Access lists and what users note; the system sets its own labels by itself."""
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path) if not name.startswith("security.")}
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise


def make_read_only(file: int, facts: os.stat_result) -> None:
    if facts.st_mode & _WRITE:
        os.fchmod(file, stat.S_IMODE(facts.st_mode) & ~_WRITE)


def refuse_if_written_to(file: int, path: str) -> None:
    """Refuse a file that some process has open for writing: what it writes next would go into the other paths, or into
    none.

    The kernel tells by granting a read lease or not (fcntl(2), F_SETLEASE). Where it knows no leases, or not for this
    user, nobody can tell.
    """
    try:
        # Should the lease be broken in the instant that it is held, the signal must not end the program, as its default
        # would.
        fcntl.fcntl(file, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise ChangeError(f"{path} is open for writing in some process: let that finish, then run again") from None


def refuse_if_changed(path: str, before: os.stat_result) -> None:
    now = os.lstat(path)
    if not os.path.samestat(now, before) or (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ChangeError(f"{path} changed meanwhile and was left as it is: run again to plan anew")


def refuse_unless_file(path: str) -> None:
    with explained(path, "could not be read"):
        mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise ChangeError(f"{path} is a symbolic link: replace it by the file that it leads to, or leave it")
    if not stat.S_ISREG(mode):
        raise ChangeError(f"{path} is not a regular file: only files can share a copy, so leave it")
