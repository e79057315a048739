"""Changes of duplicates in buckets, where nothing can be linked: a pointer beside an object leads to another copy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.artifacts import QUARANTINE, Pointer
from mlflow_compliance.changes.base import JOURNAL, Change, Writer, artifacts_in
from mlflow_compliance.entities import EntityRef, Snapshot
from mlflow_compliance.errors import ChangeError


@dataclass(frozen=True)
class PointToCopy(Change):
    """Write beside `path` that `kept` holds the same `size` bytes, and copy it into the quarantine of `root`. The object itself stays."""

    path: str
    root: str
    kept: str
    checksum: str
    size: int

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)

    @property
    def pointer(self) -> Pointer:
        """What is written, the journal's name in it still a symbol."""
        target = f"{self.root}/{QUARANTINE}/{JOURNAL}/{self.path[len(self.root) + 1 :]}"
        return Pointer(self.kept, self.checksum, self.size, target, JOURNAL)

    def says(self) -> str:
        return f"point from {self.path} ({self.size} bytes, which stay) to {self.kept}, with a copy at {self.pointer.quarantined}"

    def on(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.path not in artifacts.files or self.kept not in artifacts.files:
            raise ChangeError(f"{self.path} or {self.kept} is not there any more")
        return replace(snapshot, artifacts=replace(artifacts, pointers={**artifacts.pointers, self.path: self.pointer}))

    def write(self, store: Writer) -> None:
        pointer, bind = self.pointer, store.bind
        store.point_to_copy(
            bind(self.path), Pointer(bind(pointer.kept), pointer.checksum, pointer.size, bind(pointer.quarantined), bind(pointer.journal))
        )

    def inverse(self, store: Writer) -> Change:
        return RetractPointer(store.bind(self.path), self.root, store.bind(self.kept), self.checksum, self.size, store.bind(JOURNAL))

    def effect(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"checksum": self.checksum}, {"checksum": self.checksum, "read": self.kept, "quarantined": self.pointer.quarantined}


@dataclass(frozen=True)
class RetractPointer(Change):
    """Mark the pointer that a journal wrote beside `path` as taken back; it and the copy in the quarantine stay, since nothing is deleted."""

    path: str
    root: str
    kept: str
    checksum: str
    size: int
    journal: str

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)

    def says(self) -> str:
        return f"take back the pointer from {self.path} to {self.kept} that {self.journal} wrote"

    def on(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        rest = {at: pointer for at, pointer in artifacts.pointers.items() if at != self.path}
        return replace(snapshot, artifacts=replace(artifacts, pointers=rest))

    def write(self, store: Writer) -> None:
        store.retract_pointer(self.path, self.journal)

    def inverse(self, store: Writer) -> Change:
        return PointToCopy(self.path, self.root, self.kept, self.checksum, self.size)

    def effect(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"checksum": self.checksum, "read": self.kept}, {"checksum": self.checksum}
