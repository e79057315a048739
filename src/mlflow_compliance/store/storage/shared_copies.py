"""What a file was before other paths came to share its physical copy, on record beside its hash; and giving it back
when nobody shares it any more.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Collection
from typing import NamedTuple

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.atomic_write import explained, sweep_below
from mlflow_compliance.store.storage.filesystem import shared_extents
from mlflow_compliance.store.storage.linking import refuse_unless_file
from mlflow_compliance.store.storage.parsing import parse_json
from mlflow_compliance.store.storage.recorded_hashes import NAME, append_lines
from mlflow_compliance.store.storage.safe_io import digest_of, opened

_WRITE = 0o222


class Alone(NamedTuple):
    """What a file was before it was shared: its mode, its names in the file system, whether its hash was on record."""

    mode: int
    links: int
    recorded: bool


class _Records:
    """One file of hashes on record as far as it was read: a repair asks once a link, so only what is new is read."""

    def __init__(self) -> None:
        self._file = 0
        self._read = 0
        self.hashes: dict[str, str] = {}
        self.alone: dict[str, Alone] = {}

    def read(self, path: str) -> _Records:
        try:
            with opened(path) as file:
                facts = os.fstat(file)
                if facts.st_ino != self._file or facts.st_size < self._read:
                    self.hashes, self.alone, self._file, self._read = {}, {}, facts.st_ino, 0
                new = os.pread(file, facts.st_size - self._read, self._read)
        except FileNotFoundError:
            self.hashes, self.alone, self._file, self._read = {}, {}, 0, 0
            return self
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.split(b"\n")[:-1]:
            self._add(line.decode(errors="surrogateescape"))
        return self

    def _add(self, line: str) -> None:
        try:
            record = parse_json(line)
            path, digest, alone = record["path"], record["sha256"], record.get("alone")
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # whoever reads the hashes themselves tells it
        self.hashes[path] = digest
        if "alone" in record:
            self.alone.pop(path, None)
        if isinstance(alone, list) and len(alone) == len(Alone._fields):
            self.alone[path] = Alone(*alone)


_RECORDS: dict[str, _Records] = {}
_ONE_BY_ONE = threading.Lock()
"""What one thread finds alone, another one may be about to share."""


def _records(folder: str) -> _Records:
    path = os.path.join(folder, NAME)
    return _RECORDS.setdefault(path, _Records()).read(path)


def on_record(folder: str, path: str) -> str:
    """The hash of a path on record, empty where there is none."""
    return _records(folder).hashes.get(path, "")


def add_shared(folder: str, sha256: str, kept: str, path: str) -> None:
    """Put the hash of two paths on record that are about to share a copy, and what the kept one is while it is alone:
    on disk before this returns.
    """
    with _ONE_BY_ONE:
        found, alone = _records(folder), {}
        if kept not in found.alone:
            facts = os.lstat(kept)
            alone = {"alone": Alone(stat.S_IMODE(facts.st_mode), facts.st_nlink, bool(found.hashes.get(kept)))}
        lines = [{"path": kept, "sha256": sha256, **alone}, {"path": path, "sha256": sha256}]
        append_lines(os.path.join(folder, NAME), [json.dumps(line) for line in lines])


def give_back(folder: str, paths: Collection[str], copies: Collection[tuple[int, int]] = ()) -> None:
    """Of these paths, and of those that are one of these copies (device, inode), some were kept for others. Where none
    of the others shares their copy any more they get their mode back, and their hash goes off the record unless it was
    on it before.
    """
    found, lines = _records(folder), []
    for path in found.alone if copies else [path for path in paths if path in found.alone]:
        alone = found.alone[path]
        try:
            now = os.lstat(path)
        except OSError:
            continue
        concerned = path in paths or (now.st_dev, now.st_ino) in copies
        if not concerned or not stat.S_ISREG(now.st_mode) or now.st_nlink > alone.links:
            continue
        if not now.st_mode & _WRITE and stat.S_IMODE(now.st_mode) != alone.mode:
            # Whoever may write to it by now gave it that mode himself.
            with explained(path):
                os.chmod(path, alone.mode)
        lines.append({"path": path, "sha256": found.hashes.get(path, "") if alone.recorded else "", "alone": None})
    if lines:
        append_lines(os.path.join(folder, NAME), [json.dumps(line) for line in lines])


def kept_below(folder: str, places: Collection[str]) -> list[str]:
    """The files below some folders that were kept for others, as the record in `folder` has it."""
    return [path for path in _records(folder).alone if any(path.startswith(place + os.sep) for place in places)]


def part_below(folder: str) -> set[tuple[int, int]]:
    """Give every file below a folder a physical copy of its own: the copies that they shared."""
    # Before the names are listed: parting the first of them would remove the others that a killed process left.
    sweep_below(folder)
    found = set()
    for here, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(here, name)
            facts = os.lstat(path)
            if stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1:
                files.unshare(path, stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, _hash(path))
                found.add((facts.st_dev, facts.st_ino))
    return found


def _hash(path: str) -> str:
    with explained(path, "could not be read"), opened(path) as file:
        return digest_of(file, path)


def copy_of_file(path: str) -> tuple[int, int]:
    """The physical copy that a path is a name of: device and inode."""
    facts = os.lstat(path)
    return facts.st_dev, facts.st_ino


def is_shared(path: str, kept: str) -> bool:
    """Whether two paths are one physical copy: one file, or (where the file system has clones) the same blocks."""
    try:
        if os.path.samefile(path, kept):
            return True
        with opened(path) as one, opened(kept) as other:
            blocks = shared_extents(one)
            return bool(blocks) and blocks == shared_extents(other)
    except OSError:
        return False


def refuse_unless_shared(path: str, kept: str, sha256: str, wanted: Collection[int]) -> bool:
    """Whether a path still shares the copy of `kept`, with the content that both had; False where it is a copy of its
    own already, as `wanted` (mode, modification time in nanoseconds). Raises ChangeError where somebody wrote to it or
    parted it.
    """
    refuse_unless_file(path)
    with explained(path, "could not be read"), opened(path) as file:
        facts = os.fstat(file)
        if digest_of(file, path) != sha256:
            raise ChangeError(f"{path} was written to since it came to share the copy of {kept}: it is left as it is")
    if (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == tuple(wanted) and facts.st_nlink == 1:
        return is_shared(path, kept)
    # A file that nobody may write to is as it was made when it came to share a copy, wherever `kept` is by now.
    if facts.st_nlink > 1 or not facts.st_mode & _WRITE or is_shared(path, kept):
        return True
    raise ChangeError(f"{path} is a copy of its own by now, which somebody made: it is left as it is")
