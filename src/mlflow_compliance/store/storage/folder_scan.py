"""Looks into the folders of rows: files, samples of those that may have equals, what MLmodel files hold. Helpers do
so too (see `worker_pool`).
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import zlib
from collections.abc import Sequence
from fnmatch import fnmatch

READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Neither follows a link nor waits on a pipe that took a file's place."""
SMALL = 4096
"""Bytes up to which the sample of a file is all of it."""
_SAMPLE = 1024
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_MODEL, _LARGEST_MODEL = "MLmodel", 1 << 20

Stamps = tuple[list[str], list[int], list[int], str, int, int]
"""The folders that were looked into; of every file when it was written to and when it changed in any way (ns); what
`mark_of` gives for folders and
files; the youngest of all their times; the device that they are on, -1 where there are several."""
Found = tuple[
    list[str],
    list[int],
    list[str],
    list[bool],
    int,
    dict[str, int],
    dict[str, "bytes | None"],
    dict[str, str],
    "Stamps | None",
]
"""Of every file its path, size, physical copy and whether it was logged; time of writing of the newest (ns); copy ->
hard links, where several;
folder -> its MLmodel; path -> sample; stamps, where asked for."""


def sample(file: int, size: int) -> str:
    """Of a small file its SHA-256; of others what tells most of those apart that differ. '' where the file changed,
    or is none.
    """
    facts = os.fstat(file)
    return _sample(file, facts)[0] if facts.st_size == size and stat.S_ISREG(facts.st_mode) else ""


def _sample(file: int, facts: os.stat_result) -> tuple[str, bytes]:
    """And all that a small file holds."""
    size = facts.st_size
    if size > SMALL:
        # Headers are alike in files of one kind: the middle tells more.
        return f"{zlib.crc32(os.pread(file, _SAMPLE, size // 2)):08x}", b""
    data = os.pread(file, SMALL + 1, 0)
    after = os.fstat(file)
    if len(data) != size or after.st_size != size or after.st_mtime_ns != facts.st_mtime_ns:
        return "", b""
    return hashlib.sha256(data).hexdigest(), data


def state_of(facts: os.stat_result) -> tuple[int, ...]:
    """What cannot stay as it was where a file was written to, or where an entry of a folder was made, renamed or
    removed.
    """
    # Mode, inode, device, links, user, group and size; not when it was last read.
    return (*facts[:7], facts.st_mtime_ns, facts.st_ctime_ns)


def mark_of(states: Sequence[tuple[int | str, ...]]) -> str:
    """One word for the states of many files and folders."""
    return hashlib.blake2b(marshal.dumps(list(states), 2), digest_size=16).hexdigest()


def _open(name: str, folder: int) -> int:
    """A file to read from, -1 where it cannot be opened: whoever needs it finds out why."""
    try:
        return os.open(name, READING, dir_fd=folder)
    except OSError:
        return -1


class _NotPlainError(Exception):
    """Something is in a folder that is to be looked at closely."""


class Verifier:
    """Whether folders and files are as an earlier audit left them, by their paths (with NUL between them) and the
    mark of their states.
    """

    def __call__(self, remembered: Sequence[tuple[str, str]]) -> list[bool]:
        return [mark != "" and self._is_same(paths, mark) for paths, mark in remembered]

    @staticmethod
    def _is_same(paths: str, expected: str) -> bool:
        try:
            return mark_of([state_of(os.lstat(path)) for path in paths.split("\0")]) == expected
        except OSError:
            return False


class Visitor:
    """What is asked of every folder. `smallest` bytes must a file have that is sampled; -1: none is."""

    def __init__(self, smallest: int, patterns: Sequence[str], stamped: bool) -> None:  # noqa: FBT001  marshalled arguments have no names
        self._smallest = smallest
        self._patterns = patterns
        self._stamped = stamped
        self._left_out: dict[str, bool] = {}
        self._sizes: set[int] = set()
        self._often: set[str] = set()  # names of files that were read

    def __call__(self, folders: Sequence[tuple[str, str]]) -> list[Found | None]:
        return [self.visit(folder, artifacts) for folder, artifacts in folders]

    def visit(self, folder: str, artifacts: str) -> Found | None:
        """A row's folder and what is below it; what lies at or below `artifacts` is logged. None where anything in
        it is to be looked at closely.
        """
        found: Found = ([], [], [], [], 0, {}, {}, {}, None)
        stack, folders, places, files = (
            [(folder, folder == artifacts)],
            list[str](),
            list[os.stat_result](),
            list[os.stat_result](),
        )
        try:
            while stack:
                place, logged = stack.pop()
                opened = os.open(place, _FOLDER)
                try:
                    if self._stamped:
                        folders.append(place)
                        places.append(os.fstat(opened))
                    self._place(opened, place, logged, artifacts, found, files, stack)
                finally:
                    os.close(opened)
        except (OSError, _NotPlainError):
            return None
        newest = max((facts.st_mtime_ns for facts in files), default=0)
        return (*found[:4], newest, *found[5:8], _stamps(folders, places, files) if self._stamped else None)

    def _place(
        self,
        opened: int,
        place: str,
        logged: bool,  # noqa: FBT001
        artifacts: str,
        found: Found,
        seen: list[os.stat_result],
        stack: list[tuple[str, bool]],
    ) -> None:
        """What is in one folder. Raises _NotPlainError at what is neither an ordinary file nor a folder."""
        paths, sizes, copies, logs, _, names, models, samples, _ = found
        known, often, smallest = self._sizes, self._often, self._smallest if logged else -1
        with os.scandir(opened) as entries:
            for entry in entries:
                name = entry.name
                path = f"{place}/{name}"
                if name[0] == ".":
                    raise _NotPlainError
                if not entry.is_file(follow_symlinks=False):
                    if not entry.is_dir(follow_symlinks=False):
                        raise _NotPlainError
                    stack.append((path, logged or path == artifacts))
                    continue
                # One that will be read, as others of its name were, tells its facts for less once it is open.
                file = _open(name, opened) if name in often else -1
                try:
                    facts = entry.stat(follow_symlinks=False) if file < 0 else os.fstat(file)
                    if not stat.S_ISREG(facts.st_mode):
                        raise _NotPlainError
                    size, model = facts.st_size, name == _MODEL
                    # The first of a size may be alone with it.
                    wanted = 0 <= smallest <= size and size in known and not self._is_left_out(name)
                    known.add(size)
                    if wanted or model:
                        often.add(name)
                        if file < 0:
                            file = _open(name, opened)
                            facts = facts if file < 0 else os.fstat(file)
                        data = b""
                        if wanted and file >= 0:
                            token, data = _sample(file, facts)
                            if token:
                                samples[path] = token
                        if model:
                            models[place] = data or (
                                os.pread(file, size, 0) if file >= 0 and size <= _LARGEST_MODEL else None
                            )
                    elif file >= 0:
                        often.discard(name)
                finally:
                    if file >= 0:
                        os.close(file)
                copy = f"{facts.st_dev}:{facts.st_ino}"
                if facts.st_nlink > 1:
                    names[copy] = facts.st_nlink
                paths.append(path)
                sizes.append(facts.st_size)
                copies.append(copy)
                logs.append(logged)
                seen.append(facts)

    def _is_left_out(self, name: str) -> bool:
        known = self._left_out.get(name)
        if known is None:
            known = self._left_out[name] = any(fnmatch(name, pattern) for pattern in self._patterns)
        return known


def _stamps(folders: list[str], places: Sequence[os.stat_result], files: Sequence[os.stat_result]) -> Stamps:
    states = [state_of(facts) for facts in (*places, *files)]
    written, changed = [facts.st_mtime_ns for facts in files], [facts.st_ctime_ns for facts in files]
    devices = {facts.st_dev for facts in (*places, *files)}
    return (
        folders,
        written,
        changed,
        mark_of(states),
        max(max(state[-2:]) for state in states),
        devices.pop() if len(devices) == 1 else -1,
    )
