"""The folders of rows, looked into by this process and a helper at once: most of the time is Python's own, a file at a time."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from mlflow_compliance.store import visit_child
from mlflow_compliance.store.visit_child import FRAME, TICKET, Found, Visitor

FEWEST = 600
"""Folders below which a helper costs more than it spares."""
_PARTS = 1500  # their tickets fit in the smallest pipe there is
_PATIENCE = 60

Folder = tuple[str, str]
"""A row's folder, and where in it its artifacts are."""
Asked = tuple[int, tuple[str, ...], bool]
"""The arguments of a `Visitor`."""


def visited(folders: Sequence[Folder], asked: Asked, seen: Callable[[int], None]) -> Iterator[tuple[int, Found | None]]:
    """The number of every folder and what is in it; None where it is to be looked at closely. `seen` is told how many files were found.

    What a helper loses (it could not be started, it was killed) is done here.
    """
    size = max(1, min(16, len(folders) // 8), -(-len(folders) // _PARTS))
    parts = [list(folders[start : start + size]) for start in range(0, len(folders), size)]
    visitor, left = Visitor(*asked), dict.fromkeys(range(len(parts)))

    def told(number: int, found: Sequence[Found | None]) -> Iterator[tuple[int, Found | None]]:
        del left[number]
        seen(sum(len(one[0]) for one in found if one))
        return enumerate(found, number * size)

    def here(number: int) -> Iterator[tuple[int, Found | None]]:
        return told(number, [visitor.visit(folder, artifacts) for folder, artifacts in parts[number]])

    with ExitStack() as stack:
        started = None
        if len(folders) >= FEWEST and (os.cpu_count() or 1) > 1:
            with suppress(OSError):
                started = stack.enter_context(_helper(asked, parts))
        if started:
            tickets, output, helper = started
            while len(ticket := os.read(tickets, TICKET.size)) == TICKET.size:
                yield from here(TICKET.unpack(ticket)[0])
            with suppress(subprocess.TimeoutExpired):
                helper.wait(_PATIENCE)
            for number, found in _frames(output):
                if number in left and len(found) == len(parts[number]):
                    yield from told(number, found)
    for number in list(left):
        yield from here(number)


@contextmanager
def _helper(asked: Asked, parts: list[list[Folder]]) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """A pipe of tickets, one a part, that this process and a helper take from; the file that the helper writes to; the helper."""
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as output:
        request.write(marshal.dumps((asked, parts)))
        request.seek(0)
        reading, writing = os.pipe()
        try:
            os.write(writing, b"".join(map(TICKET.pack, range(len(parts)))))
        finally:
            os.close(writing)
        # The helper must spell names as this process does.
        options, spelling = ["-I", "-S", f"-Xutf8={sys.flags.utf8_mode}"], sys.getfilesystemencoding()
        command = [sys.executable, *options, visit_child.__file__, str(request.fileno()), spelling]
        try:
            helper = subprocess.Popen(command, stdin=reading, stdout=output, stderr=subprocess.DEVNULL, pass_fds=[request.fileno()])
            try:
                yield reading, output.fileno(), helper
            finally:
                helper.kill()
                helper.wait()
        finally:
            os.close(reading)


def _frames(file: int) -> Iterator[tuple[int, list[Found | None]]]:
    """The whole parts that a helper wrote, the last of which may be cut off."""
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as reader:
        while len(head := reader.read(FRAME.size)) == FRAME.size:
            number, length = FRAME.unpack(head)
            body = reader.read(length)
            if len(body) < length:
                return
            yield number, marshal.loads(body)  # noqa: S302  written by a process that this one started
