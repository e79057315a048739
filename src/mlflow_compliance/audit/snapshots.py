"""What a session has read of its store: rows first, files when a rule asks for them, each once, also where several
processes share the checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mlflow_compliance.progress import Progress
from mlflow_compliance.snapshot.diff import shows_the_same
from mlflow_compliance.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from mlflow_compliance.store.backends.base import Rows
    from mlflow_compliance.store.store import Store


class Reading(NamedTuple):
    """A snapshot as it was read; it holds nothing that only one process can use, so that it can be handed to
    another one.
    """

    snapshot: Snapshot
    changed_since: int = 0
    """When the rows that rules without files were told of had been read, where the store was another one by the
    time its files were read.
    """


class Sharing(Protocol):
    """Where readings are made."""

    def once(self, name: str, make: Callable[[], Reading]) -> Reading:
        """What the first of several processes made under a name."""


class Alone:
    """A session of one process."""

    def once(self, name: str, make: Callable[[], Reading]) -> Reading:
        """Make it here."""
        return make()


class SnapshotCache:
    """The snapshot of a session, read when it is first asked for."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._reading: Reading | None = None
        self._rows: Rows | None = None

    @property
    def latest(self) -> Snapshot | None:
        """The store as it was last read; None before that."""
        return self._reading.snapshot if self._reading else None

    @property
    def changed_since(self) -> int:
        return self._reading.changed_since if self._reading else 0

    def forget(self) -> None:
        """The store was written to: the next who asks reads it anew."""
        self._reading = self._rows = None

    def put(self, snapshot: Snapshot) -> None:
        """Take a snapshot that was read elsewhere, files and evidence with it."""
        self._reading = Reading(snapshot)

    def snapshot(self, store: Store, progress: Progress, *, artifacts: bool) -> Snapshot:
        """The store as this session reads it, with its files where they are asked for."""
        if self._reading is None and not artifacts:
            self._reading = self._sharing.once("rows", lambda: self._read_rows(store, progress))
        elif self._reading is None or (artifacts and self._reading.snapshot.artifacts is None):
            found = self._sharing.once("files", lambda: self._read_files(store, progress))
            self._reading = found._replace(snapshot=store.with_evidence(found.snapshot, progress))
            self._rows = None
        return self._reading.snapshot

    def _read_rows(self, store: Store, progress: Progress) -> Reading:
        snapshot, self._rows = store.read_metadata(progress=progress)
        return Reading(snapshot)

    def _read_files(self, store: Store, progress: Progress) -> Reading:
        """Rows and locations of one moment, then the walk: a file whose row came after the rows were first read is
        nobody's stray.
        """
        before, moved = self.latest, 0
        if before is None or self._rows is None:
            snapshot, rows = store.read_rows(progress=progress)
            if before is not None and not shows_the_same(before, snapshot):
                moved = before.taken_at
        else:
            snapshot, rows = before, self._rows
        return Reading(store.walk(snapshot, rows, progress), moved)
