"""Looks into the folders of rows: files, samples of those that may have equals, what MLmodel files hold. Also the program of a helper process.

The helper runs this file alone (`python -I -S`), to be there in a few milliseconds: it imports nothing of this package.
"""

from __future__ import annotations

import gc
import hashlib
import marshal
import os
import stat
import struct
import sys
import zlib
from collections.abc import Sequence
from fnmatch import fnmatch

READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Neither follows a link nor waits on a pipe that took a file's place."""
SMALL = 4096
"""Bytes up to which the sample of a file is all of it."""
TICKET, FRAME = struct.Struct("=H"), struct.Struct("=HQ")
_SAMPLE = 1024
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_MODEL, _LARGEST_MODEL = "MLmodel", 1 << 20

Found = tuple[list[str], list[int], list[str], list[bool], int, dict[str, int], dict[str, tuple[int, int]], dict[str, "bytes | None"], dict[str, str]]
"""Of every file its path, size, physical copy and whether it was logged; time of writing of the newest (ns); copy -> hard links, where several;
copy -> stamps; folder -> its MLmodel; path -> sample."""


def sample(file: int, size: int) -> str:
    """Of a small file its SHA-256; of others what tells most of those apart that differ. '' where the file changed, or is none."""
    facts = os.fstat(file)
    return _sample(file, facts) if facts.st_size == size and stat.S_ISREG(facts.st_mode) else ""


def _sample(file: int, facts: os.stat_result) -> str:
    size = facts.st_size
    if size > SMALL:
        # Headers are alike in files of one kind: the middle tells more.
        return f"{zlib.crc32(os.pread(file, _SAMPLE, size // 2)):08x}"
    data = os.pread(file, SMALL + 1, 0)
    after = os.fstat(file)
    if len(data) != size or after.st_size != size or after.st_mtime_ns != facts.st_mtime_ns:
        return ""
    return hashlib.sha256(data).hexdigest()


def _open(name: str, folder: int) -> int:
    """A file to read from, -1 where it cannot be opened: whoever needs it finds out why."""
    try:
        return os.open(name, READING, dir_fd=folder)
    except OSError:
        return -1


class Visitor:
    """What is asked of every folder. `smallest` bytes must a file have that is sampled; -1: none is."""

    def __init__(self, smallest: int, patterns: Sequence[str], stamped: bool) -> None:  # noqa: FBT001  marshalled arguments have no names
        self._smallest = smallest
        self._patterns = patterns
        self._stamped = stamped
        self._left_out: dict[str, bool] = {}
        self._sizes: set[int] = set()
        self._often: set[str] = set()  # names of files that were read

    def visit(self, folder: str, artifacts: str) -> Found | None:
        """A row's folder and what is below it; what lies at or below `artifacts` is logged. None where anything in it is to be looked at closely."""
        found: Found = ([], [], [], [], 0, {}, {}, {}, {})
        newest, stack = 0, [(folder, folder == artifacts)]
        try:
            while stack:
                place, logged = stack.pop()
                opened = os.open(place, _FOLDER)
                try:
                    newest = max(newest, self._place(opened, place, logged, artifacts, found, stack))
                finally:
                    os.close(opened)
        except (OSError, ValueError):
            return None
        return (*found[:4], newest, *found[5:])

    def _place(self, opened: int, place: str, logged: bool, artifacts: str, found: Found, stack: list[tuple[str, bool]]) -> int:  # noqa: FBT001
        """The newest time of writing in one folder. Raises ValueError at what is neither an ordinary file nor a folder."""
        paths, sizes, copies, logs, _, names, stamps, models, samples = found
        known, often, smallest = self._sizes, self._often, self._smallest if logged else -1
        newest = 0
        with os.scandir(opened) as entries:
            for entry in entries:
                name = entry.name
                path = f"{place}/{name}"
                if name[0] == ".":
                    raise ValueError
                if not entry.is_file(follow_symlinks=False):
                    if not entry.is_dir(follow_symlinks=False):
                        raise ValueError
                    stack.append((path, logged or path == artifacts))
                    continue
                # One that will be read, as others of its name were, tells its facts for less once it is open.
                file = _open(name, opened) if name in often else -1
                try:
                    facts = entry.stat(follow_symlinks=False) if file < 0 else os.fstat(file)
                    if not stat.S_ISREG(facts.st_mode):
                        raise ValueError
                    size, model = facts.st_size, name == _MODEL
                    # The first of a size may be alone with it.
                    wanted = smallest >= 0 and size >= smallest and size in known and not self._is_left_out(name)
                    known.add(size)
                    if wanted or model:
                        often.add(name)
                        if file < 0:
                            file = _open(name, opened)
                            facts = facts if file < 0 else os.fstat(file)
                        if wanted and file >= 0 and (token := _sample(file, facts)):
                            samples[path] = token
                        if model:
                            models[place] = os.pread(file, size, 0) if file >= 0 and size <= _LARGEST_MODEL else None
                    elif file >= 0:
                        often.discard(name)
                finally:
                    if file >= 0:
                        os.close(file)
                written, size, copy = facts.st_mtime_ns, facts.st_size, f"{facts.st_dev}:{facts.st_ino}"
                newest = max(newest, written)
                if facts.st_nlink > 1:
                    names[copy] = facts.st_nlink
                if self._stamped:
                    stamps[copy] = (written, facts.st_ctime_ns)
                paths.append(path)
                sizes.append(size)
                copies.append(copy)
                logs.append(logged)
        return newest

    def _is_left_out(self, name: str) -> bool:
        known = self._left_out.get(name)
        if known is None:
            known = self._left_out[name] = any(fnmatch(name, pattern) for pattern in self._patterns)
        return known


def main(request: int) -> None:
    """Take tickets from standard input, which others take from too, and write what is found to standard output, part by part."""
    with open(request, "rb") as file:
        asked, parts = marshal.loads(file.read())  # noqa: S302  written by the process that started this one
    visitor = Visitor(*asked)
    gc.disable()  # nothing here refers to itself
    while len(ticket := os.read(0, TICKET.size)) == TICKET.size:
        (number,) = TICKET.unpack(ticket)
        body = marshal.dumps([visitor.visit(folder, artifacts) for folder, artifacts in parts[number]])
        frame = memoryview(FRAME.pack(number, len(body)) + body)
        while frame:
            frame = frame[os.write(1, frame) :]


if __name__ == "__main__" and sys.argv[2] == sys.getfilesystemencoding():
    main(int(sys.argv[1]))
