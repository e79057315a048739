"""Effects on artifact files: share a copy, part it again, put in place; each atomic, and verified by hash."""

from __future__ import annotations

import hashlib
import os
import stat

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.storage.atomic_write import (
    confirm,
    create,
    explained,
    staged,
    sweep,
    verified,
    write_bytes,
    write_copy,
)
from mlflow_compliance.store.storage.filesystem import shared_extents
from mlflow_compliance.store.storage.linking import (
    cloned,
    linked,
    make_read_only,
    mode_restored,
    refuse_if_changed,
    refuse_if_written_to,
    refuse_unless_file,
    take_over,
)
from mlflow_compliance.store.storage.quarantine import manifest_of, quarantine, restore
from mlflow_compliance.store.storage.safe_io import digest_of, opened

__all__ = ["manifest_of", "place", "place_shared", "quarantine", "rejoin", "restore", "share", "unshare", "write_new"]


def share(kept: str, path: str, sha256: str) -> str:
    """Make `path` the same physical copy as `kept`: 'clone' where the file system has it, else 'hardlink', made
    read-only.
    """
    refuse_unless_file(kept)
    refuse_unless_file(path)
    with explained(path), verified(kept, sha256) as (source, there), verified(path, sha256) as (target, here):
        sweep(os.path.dirname(path))
        refuse_if_written_to(source, kept)
        refuse_if_written_to(target, path)
        if there.st_dev != here.st_dev:
            raise ChangeError(
                f"{path} lies on another file system than {kept}: they cannot share a copy, so leave both as they are"
            )
        if there.st_ino == here.st_ino:
            make_read_only(source, here)
            return "hardlink"
        extents = shared_extents(source)
        if extents and extents == shared_extents(target):
            return "clone"
        with staged(path) as temporary, mode_restored(source, there):
            if cloned(source, temporary, sha256):
                take_over(temporary, path, here, stat.S_IMODE(here.st_mode))
                os.utime(temporary, ns=(here.st_atime_ns, here.st_mtime_ns))
                how = "clone"
            else:
                linked(kept, source, there, temporary, alike=here)
                how = "hardlink"
            refuse_if_written_to(target, path)
            refuse_if_changed(path, here)
            os.replace(temporary, path)
            return how


def unshare(path: str, mode: int, mtime_ns: int, sha256: str) -> None:
    """The inverse of `share`: `path` becomes a copy of its own with the mode and time it had; no other path is
    touched.
    """
    refuse_unless_file(path)
    with explained(path), verified(path, sha256) as (source, here), staged(path) as temporary:
        write_copy(source, temporary, sha256)
        take_over(temporary, path, here, stat.S_IMODE(mode))
        os.utime(temporary, ns=(here.st_atime_ns, mtime_ns))
        refuse_if_changed(path, here)
        os.replace(temporary, path)


def rejoin(mate: str, path: str, sha256: str) -> bool:
    """Make `path` one file with `mate` again, as it was before it came to share another copy; False where that holds
    something else by now, or lies elsewhere.
    """
    with explained(path), opened(mate) as file, verified(path, sha256) as (_, here):
        there = os.fstat(file)
        if digest_of(file, mate) != sha256 or there.st_dev != here.st_dev:
            return False
        with staged(path) as temporary:
            os.link(mate, temporary, follow_symlinks=False)
            refuse_if_changed(mate, there)
            refuse_if_changed(path, here)
            os.replace(temporary, path)
            return True


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
    """Put the content of `source` at `target` without a second physical copy where that can be: 'clone', 'hardlink'
    or 'copy'.
    """
    refuse_unless_file(source)
    with explained(target, "could not be written"), verified(source, sha256) as (file, facts):
        refuse_if_written_to(file, source)
        if _settled(target, sha256):
            return share(source, target, sha256) if _same_device(source, target) else "copy"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with staged(target) as temporary, mode_restored(file, facts):
            if cloned(file, temporary, sha256):
                os.chmod(temporary, stat.S_IMODE(facts.st_mode))
                os.utime(temporary, ns=(facts.st_atime_ns, facts.st_mtime_ns))
                how = "clone"
            elif facts.st_dev == os.stat(os.path.dirname(target)).st_dev:
                linked(source, file, facts, temporary)
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
