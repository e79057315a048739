"""Effects on artifact files: share a copy, part it again, move, put in place; each atomic, and verified by hash."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow_compliance.artifacts import QUARANTINE
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.content import digest_of, opened
from mlflow_compliance.store.extents import clone, shared_extents
from mlflow_compliance.store.staging import TEMPORARY, confirm, create, explained, staged, verified, write_bytes, write_copy

_WRITE = 0o222


def share(kept: str, path: str, sha256: str) -> str:
    """Make `path` the same physical copy as `kept`: 'clone' where the file system has it, else 'hardlink', made read-only."""
    _refuse_unless_file(kept)
    _refuse_unless_file(path)
    with explained(path), verified(kept, sha256) as source, verified(path, sha256) as target:
        there, here = os.fstat(source), os.fstat(target)
        if there.st_dev != here.st_dev:
            raise ChangeError(f"{path} lies on another file system than {kept}: they cannot share a copy, so leave both as they are")
        if there.st_ino == here.st_ino:
            _make_read_only(source, here)
            return "hardlink"
        extents = shared_extents(source)
        if extents and extents == shared_extents(target):
            return "clone"
        with staged(path) as temporary, _unless_it_fails(source, there):
            if _cloned(source, temporary, sha256):
                _take_over(temporary, path, here, stat.S_IMODE(here.st_mode))
                os.utime(temporary, ns=(here.st_atime_ns, here.st_mtime_ns))
                how = "clone"
            else:
                _link(kept, source, temporary, here)
                how = "hardlink"
            _refuse_if_changed(path, here)
            os.replace(temporary, path)
            return how


def unshare(path: str, mode: int, mtime_ns: int, sha256: str) -> None:
    """The inverse of `share`: `path` becomes a copy of its own with the mode and time it had; no other path is touched."""
    _refuse_unless_file(path)
    with explained(path), verified(path, sha256) as source, staged(path) as temporary:
        here = os.fstat(source)
        write_copy(source, temporary, sha256)
        _take_over(temporary, path, here, stat.S_IMODE(mode))
        os.utime(temporary, ns=(here.st_atime_ns, mtime_ns))
        _refuse_if_changed(path, here)
        os.replace(temporary, path)


def place(source: str, target: str) -> None:
    """Put a copy of `source` at `target`, with its time. A target that holds the same already is left as it is."""
    with explained(target, "could not be written"), opened(source) as file:
        sha256 = digest_of(file, source)
        if _settled(target, sha256):
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with staged(target) as temporary:
            write_copy(file, temporary, sha256)
            facts = os.fstat(file)
            os.utime(temporary, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            _publish(temporary, target)


def place_shared(source: str, target: str, sha256: str) -> str:
    """Put the content of `source` at `target` without a second physical copy where that can be: 'clone', 'hardlink' or 'copy'."""
    _refuse_unless_file(source)
    with explained(target, "could not be written"), verified(source, sha256) as file:
        if _settled(target, sha256):
            return share(source, target, sha256) if _same_device(source, target) else "copy"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        facts = os.fstat(file)
        with staged(target) as temporary, _unless_it_fails(file, facts):
            if _cloned(file, temporary, sha256):
                os.chmod(temporary, stat.S_IMODE(facts.st_mode))
                os.utime(temporary, ns=(facts.st_atime_ns, facts.st_mtime_ns))
                how = "clone"
            elif facts.st_dev == os.stat(os.path.dirname(target)).st_dev:
                _link(source, file, temporary, None)
                how = "hardlink"
            else:
                write_copy(file, temporary, sha256)
                os.utime(temporary, ns=(facts.st_atime_ns, facts.st_mtime_ns))
                how = "copy"
            _publish(temporary, target)
            return how


def write_new(target: str, content: bytes) -> None:
    """A new file with this content; refuses one that is there with another."""
    sha256 = hashlib.sha256(content).hexdigest()
    with explained(target, "could not be written"):
        if _settled(target, sha256):
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with staged(target) as temporary:
            with create(temporary) as file:
                write_bytes(file, content)
                confirm(file, temporary, sha256)
            _publish(temporary, target)


def quarantine(path: str, target: str) -> None:
    """Move a file or folder within its file system; folders on the way to `target` are made, nothing is ever replaced."""
    _move(path, target)


def restore(target: str, path: str) -> None:
    """The inverse of `quarantine`; folders of the quarantine that are empty now are removed."""
    _move(target, path)
    _prune(target)


def manifest_of(path: str) -> list[dict[str, Any]]:
    """Each file at or below a path: `path` relative to it ('.' for a file itself), `size`, `sha256`, `mtime_ns`."""
    with explained(path, "could not be read"):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return [_line(path, os.curdir)]
        found = []
        for folder, _, names in os.walk(path, onerror=_raise):
            for name in names:
                if not name.startswith(TEMPORARY):
                    file = os.path.join(folder, name)
                    found.append(_line(file, os.path.relpath(file, path)))
        return sorted(found, key=lambda line: str(line["path"]))


def _line(path: str, relative: str) -> dict[str, Any]:
    with opened(path) as file:
        facts = os.fstat(file)
        return {"path": relative, "size": facts.st_size, "sha256": digest_of(file, path), "mtime_ns": facts.st_mtime_ns}


def _raise(error: OSError) -> None:
    raise error


def _move(source: str, target: str) -> None:
    with explained(source, f"could not be moved to {target}"):
        os.lstat(source)
        if os.path.lexists(target):
            raise ChangeError(f"{source} was not moved: {target} is there already, so look at both by hand")
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(source, target)
        except OSError:
            _prune(target)
            raise


def _prune(target: str) -> None:
    folder = os.path.dirname(target)
    while QUARANTINE in folder.split(os.sep):
        try:
            os.rmdir(folder)
        except OSError:
            return  # not empty, or never made
        folder = os.path.dirname(folder)


def _cloned(source: int, temporary: str, sha256: str) -> bool:
    with create(temporary) as target:
        if clone(source, target):
            confirm(target, temporary, sha256)
            return True
    os.unlink(temporary)
    return False


def _link(kept: str, source: int, temporary: str, here: os.stat_result | None) -> None:
    """A second name for `source`, which nobody may write to from now on: logging again through one path would change the other."""
    there = os.fstat(source)
    mode = stat.S_IMODE(there.st_mode) & ~_WRITE
    if here is not None:
        mode |= stat.S_IMODE(here.st_mode) & 0o555  # who could read the path can read it afterwards
        if (there.st_uid, there.st_gid) != (here.st_uid, here.st_gid) and not mode & stat.S_IROTH:
            raise ChangeError(f"{kept} belongs to another user or group than its duplicate: give both to one, then run again")
    os.fsync(source)  # the replaced file was on the disk: the one that replaces it must be too
    os.link(kept, temporary, follow_symlinks=False)
    if not os.path.samestat(os.lstat(temporary), there):
        raise ChangeError(f"{kept} was replaced meanwhile: run again to plan anew")
    os.fchmod(source, mode)
    _refuse_if_changed(kept, there)


@contextmanager
def _unless_it_fails(source: int, there: os.stat_result) -> Iterator[None]:
    """A file that was made read-only for a link that was not made gets its mode back."""
    try:
        yield
    except BaseException:
        if there.st_mode & _WRITE and there.st_mode != os.fstat(source).st_mode:
            os.fchmod(source, stat.S_IMODE(there.st_mode))
        raise


def _take_over(temporary: str, path: str, here: os.stat_result, mode: int) -> None:
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


def _publish(temporary: str, target: str) -> None:
    if os.path.lexists(target):
        raise ChangeError(f"{target} was written by somebody else meanwhile: run again to plan anew")
    os.rename(temporary, target)


def _settled(target: str, sha256: str) -> bool:
    """Whether the target holds the content already; one with another content is never replaced."""
    if not os.path.lexists(target):
        return False
    with opened(target) as file:
        if digest_of(file, target) != sha256:
            raise ChangeError(f"{target} is there already with another content: look at it by hand")
    return True


def _same_device(one: str, other: str) -> bool:
    return os.lstat(one).st_dev == os.lstat(other).st_dev


def _make_read_only(file: int, facts: os.stat_result) -> None:
    if facts.st_mode & _WRITE:
        os.fchmod(file, stat.S_IMODE(facts.st_mode) & ~_WRITE)


def _refuse_if_changed(path: str, before: os.stat_result) -> None:
    now = os.lstat(path)
    if not os.path.samestat(now, before) or (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ChangeError(f"{path} changed meanwhile and was left as it is: run again to plan anew")


def _refuse_unless_file(path: str) -> None:
    with explained(path, "could not be read"):
        mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise ChangeError(f"{path} is a symbolic link: replace it by the file that it leads to, or leave it")
    if not stat.S_ISREG(mode):
        raise ChangeError(f"{path} is not a regular file: only files can share a copy, so leave it")
