"""How reading and hashing say how far they are: a protocol, one that is silent, one for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Protocol

from mlflow_compliance.safe_text import without_secrets

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID


class Progress(Protocol):
    """One task at a time: started with what it is called, called otherwise as it goes on, advanced, stopped."""

    def start(self, label: str, total: int | None) -> None: ...

    def rename(self, label: str) -> None: ...

    def advance(self, n: int) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Says nothing: for pipes, logs and tests."""

    def start(self, label: str, total: int | None) -> None:
        """Nothing is shown."""

    def rename(self, label: str) -> None:
        """Nothing is shown."""

    def advance(self, n: int) -> None:
        """Nothing is shown."""

    def stop(self) -> None:
        """Nothing is shown."""


class RichProgress:
    """A bar on the terminal that is gone when the task is done; `shown` opens the way to the terminal while it
    stands there.
    """

    def __init__(self, shown: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._shown = shown
        self._way = ExitStack()
        self._bar: RichBar | None = None
        self._task: TaskID | None = None

    def start(self, label: str, total: int | None) -> None:
        # rich takes 50 ms to import: only a terminal pays for it.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.stop()
        self._way.enter_context(self._shown())
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(without_secrets(label), total=total)

    def rename(self, label: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=without_secrets(label))

    def advance(self, n: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, n)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
        self._way.close()
