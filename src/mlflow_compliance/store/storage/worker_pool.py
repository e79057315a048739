"""Work on many small files, done by this process and helpers at once: most of its time is Python's own, a file at a
time.
"""

from __future__ import annotations

import marshal
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import mlflow_compliance
from mlflow_compliance.store.storage import worker as worker_program
from mlflow_compliance.store.storage.worker import FRAME, TICKET

MOST_PARTS = 1500
"""Their tickets fit in the smallest pipe there is."""
_PATIENCE = 60
_MOST = 7  # helpers
_PACKAGE = os.path.dirname(os.path.dirname(mlflow_compliance.__file__))

Worker = Callable[..., Callable[[Any], Any]]
"""A class by its name in a module: made of marshalled arguments, called with marshalled parts, it gives what can be
marshalled.
"""


class WorkerPool:
    """Work that helpers share; they start while it is still being put together."""

    def __init__(self, worker: Worker, helpers: Sequence[_Helper], tickets: _Tickets) -> None:
        self._worker = worker
        self._helpers = helpers
        self._tickets = tickets
        self._asked: tuple[Any, ...] = ()
        self._parts: list[Any] = []

    def begin(self, asked: tuple[Any, ...], parts: list[Any]) -> None:
        """Let the helpers begin."""
        self._asked, self._parts = asked, parts
        try:
            if self._helpers:
                request = marshal.dumps((asked, parts))
                for helper in self._helpers:
                    helper.ask(request)
                self._tickets.issue(len(parts))
        except OSError:
            self._helpers = ()

    def told(self) -> Iterator[tuple[int, Any]]:
        """The number of every part and what comes of it, in any order; this process works too.

        What a helper loses (it could not be started, it was killed) is done here.
        """
        work, parts = self._worker(*self._asked), self._parts
        left = dict.fromkeys(range(len(parts)))
        while self._helpers and (own := self._tickets.take()) is not None:
            del left[own]
            yield own, work(parts[own])
            yield from self._new(left)
        for helper in self._helpers:
            helper.wait()
        yield from self._new(left)
        for own in list(left):
            yield own, work(parts[own])

    def _new(self, left: dict[int, None]) -> Iterator[tuple[int, Any]]:
        for helper in self._helpers:
            for number, found in helper.frames():
                del left[number]
                yield number, found


@contextmanager
def sharing(worker: Worker, *, helped: bool) -> Iterator[WorkerPool]:
    """Helpers, as many as there are processors for, where they are wanted."""
    with ExitStack() as stack:
        helpers, tickets = list[_Helper](), _Tickets()
        stack.callback(tickets.close)
        number = min(_MOST, (os.cpu_count() or 1) - 1) if helped else 0
        with suppress(OSError):
            helpers += [stack.enter_context(_started(worker, tickets.reading)) for _ in range(number)]
        yield WorkerPool(worker, helpers, tickets)


class _Tickets:
    """A pipe of numbers, one a part, that this process and the helpers take from."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()

    def issue(self, parts: int) -> None:
        os.write(self._writing, b"".join(map(TICKET.pack, range(parts))))
        self._end()

    def take(self) -> int | None:
        ticket = os.read(self.reading, TICKET.size)
        return int(TICKET.unpack(ticket)[0]) if len(ticket) == TICKET.size else None

    def close(self) -> None:
        self._end()
        os.close(self.reading)

    def _end(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1


class _Helper:
    """A helper, the file that it is asked in and the file that it writes to."""

    def __init__(self, process: subprocess.Popen[bytes], request: int, output: int) -> None:
        self._process = process
        self._request = request
        self._output = output
        self._seen = 0

    def ask(self, request: bytes) -> None:
        with open(self._request, "wb", closefd=False) as file:
            file.write(request)
        os.lseek(self._request, 0, os.SEEK_SET)

    def wait(self) -> None:
        """Until it ends, or for as long as patience lasts."""
        try:
            # Popen.wait with a time limit looks, sleeps, and looks again: half of what a helper spares is lost to it.
            ended = os.pidfd_open(self._process.pid)
        except (OSError, AttributeError):  # an older kernel, another system
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
            return
        try:
            poll = select.poll()  # select() knows no file beyond number 1023, and a program may have many open
            poll.register(ended, select.POLLIN)
            poll.poll(_PATIENCE * 1000)
        finally:
            os.close(ended)

    def frames(self) -> Iterator[tuple[int, Any]]:
        """The whole parts that were written since; the last one may be cut off."""
        while len(head := os.pread(self._output, FRAME.size, self._seen)) == FRAME.size:
            number, length = FRAME.unpack(head)
            body = os.pread(self._output, length, self._seen + FRAME.size)
            if len(body) < length:
                return
            self._seen += FRAME.size + length
            yield number, marshal.loads(body)  # noqa: S302  written by a process that this one started


@contextmanager
def _started(worker: Worker, tickets: int) -> Iterator[_Helper]:
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as output:
        # The helper must spell names as this process does.
        options, spelling = ["-I", "-S", f"-Xutf8={sys.flags.utf8_mode}"], sys.getfilesystemencoding()
        command = [
            sys.executable,
            *options,
            worker_program.__file__,
            str(request.fileno()),
            spelling,
            _PACKAGE,
            worker.__module__,
            worker.__name__,
        ]
        process = subprocess.Popen(
            command, stdin=tickets, stdout=output, stderr=subprocess.DEVNULL, pass_fds=[request.fileno()]
        )
        try:
            yield _Helper(process, request.fileno(), output.fileno())
        finally:
            process.kill()
            process.wait()
