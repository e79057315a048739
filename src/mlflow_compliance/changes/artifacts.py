"""Changes of artifact files: one physical copy for equal bytes, quarantine for files that no row owns."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, artifacts_in
from mlflow_compliance.changes.symbols import JOURNAL
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import QUARANTINE, ArtifactFile, Ownerless, Pointer, Quarantined
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class LinkDuplicate(Change):
    """Make `path` the same physical copy as `kept`: a copy-on-write clone where the file system has it, else a
    read-only hard link. `mates` are paths that share a copy with `path` until then.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "file{s} shared"
    by_itself = True

    path: str
    kept: str
    sha256: str
    size: int
    mates: tuple[str, ...] = ()

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)

    def describe(self) -> str:
        return f"store {self.path} ({self.size} bytes) as the same physical copy as {self.kept}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.path not in artifacts.files or self.kept not in artifacts.files:
            raise ChangeError(f"{self.path} or {self.kept} is not there any more")
        return replace(snapshot, artifacts=artifacts.linked(self.path, self.kept))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"sha256": self.sha256, "copy": self.path}, {"sha256": self.sha256, "copy": self.kept}


@dataclass(frozen=True)
class UnlinkDuplicate(Change):
    """Make `path` a physical copy of its own again, with the mode and modification time (nanoseconds) that it had.

    `recorded` says that its hash was on record before it came to share a copy: it stays there. `mates` were one file
    with it: it becomes one with those again that do not share the copy of `kept` (any more).
    """

    applicability = Applicability.REVERSIBLE
    in_total = "file{s} parted"

    path: str
    kept: str
    sha256: str
    size: int
    mode: int
    mtime_ns: int
    recorded: bool = False
    mates: tuple[str, ...] = ()

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)

    def describe(self) -> str:
        return f"store {self.path} ({self.size} bytes) as a physical copy of its own"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.path not in artifacts.files:
            raise ChangeError(f"{self.path} is not there any more")
        file, kept = artifacts.files[self.path], artifacts.files.get(self.kept)
        copies = [artifacts.files[mate].copy for mate in self.mates if mate in artifacts.files]
        copies = [copy for copy in copies if copy not in (file.copy, kept and kept.copy)]
        file = file._replace(copy=copies[0] if copies else f"own:{self.path}")
        gone = () if self.recorded else (self.path,)
        recorded = {path: digest for path, digest in artifacts.recorded.items() if path not in gone}
        return replace(
            snapshot, artifacts=replace(artifacts, files={**artifacts.files, self.path: file}, recorded=recorded)
        )

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"sha256": self.sha256, "copy": self.kept}, {"sha256": self.sha256, "copy": self.path}


@dataclass(frozen=True)
class MoveToQuarantine(Change):
    """Move what no row owns into its root's quarantine, with a manifest; `files` and `size` (bytes) are what it
    holds.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "orphan{s} moved aside"

    path: str
    root: str
    files: int
    size: int

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)

    @property
    def target(self) -> str:
        """Where it goes: the same place below the root's quarantine, in a folder of the journal's own."""
        return os.path.join(self.root, QUARANTINE, JOURNAL, os.path.relpath(self.path, self.root))

    def describe(self) -> str:
        return f"move {self.path} ({self.files} file{'s' * (self.files != 1)}, {self.size} bytes) to {self.target}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.path not in artifacts.ownerless:
            raise ChangeError(f"{self.path} is not ownerless any more")
        return replace(snapshot, artifacts=artifacts.without(self.path))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"path": self.path}, {"path": self.target}


@dataclass(frozen=True)
class RestoreFromQuarantine(Change):
    """Move something from the quarantine back to where it was."""

    applicability = Applicability.REVERSIBLE
    in_total = "orphan{s} moved back"

    path: str
    source: str
    root: str
    contents: tuple[tuple[str, int], ...]
    """(path, size in bytes) of every file, as they will stand again."""
    sha256: str = ""
    """The hash of what the manifest says of them, empty in journals of older versions."""

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)

    @property
    def size(self) -> int:
        return sum(size for _, size in self.contents)

    def describe(self) -> str:
        return f"move {self.source} back to {self.path}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        root = artifacts.root_of(self.path)
        item = Ownerless(root.key if root else "", self.path, len(self.contents), self.size, "")
        files = {path: ArtifactFile(size, f"own:{path}", None, logged=False) for path, size in self.contents}
        return replace(
            snapshot,
            artifacts=replace(artifacts.with_files(files, {}), ownerless={**artifacts.ownerless, self.path: item}),
        )

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"path": self.source}, {"path": self.path}


@dataclass(frozen=True)
class _OwnedAgain:
    """What has an owner again and lay in quarantine at `source`; `files` and `size` (bytes) are what it holds."""

    path: str
    source: str
    root: str
    files: int
    size: int

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)


@dataclass(frozen=True)
class GiveBack(_OwnedAgain, Change):
    """Move what has an owner again from a quarantine to its former place."""

    applicability = Applicability.REVERSIBLE
    in_total = "item{s} given back"

    def describe(self) -> str:
        return f"move {self.source} ({self.files} file{'s' * (self.files != 1)}, {self.size} bytes) back to {self.path}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.source not in artifacts.quarantined:
            raise ChangeError(f"{self.source} is not in quarantine any more, or nobody owns it")
        return replace(snapshot, artifacts=artifacts.given_back(artifacts.quarantined[self.source]))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"path": self.source}, {"path": self.path}


@dataclass(frozen=True)
class PutAsideAgain(_OwnedAgain, Change):
    """Move what was given back to where it lay in quarantine; the manifest there still tells of it.

    `sha256` is the hash of what was given back, empty in journals of older versions; `folders` are those that were made
    for it.
    """

    sha256: str = ""
    folders: tuple[str, ...] = ()

    applicability = Applicability.REVERSIBLE
    in_total = "item{s} moved aside again"

    def describe(self) -> str:
        return f"move {self.path} to {self.source} again"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        files, models = artifacts.under(self.path), {item.path: item for item in artifacts.models_in(self.path)}
        owner = next((file.owner for _, file in sorted(files.items()) if file.owner), None)
        if owner is None:
            raise ChangeError(f"{self.path} is not there any more, or nobody owns it")
        item = Quarantined(self.source, self.path, self.root, owner, files, models)
        artifacts = artifacts.without(self.path)
        return replace(snapshot, artifacts=replace(artifacts, quarantined={**artifacts.quarantined, self.source: item}))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"path": self.path}, {"path": self.source}


@dataclass(frozen=True)
class PointToCopy(Change):
    """Write beside `path` that `kept` holds the same `size` bytes, and copy it into the quarantine of `root`. The
    object itself stays.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "pointer{s} written"
    by_itself = True

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

    def describe(self) -> str:
        return (
            f"point from {self.path} ({self.size} bytes, which stay) to {self.kept}, with a copy at "
            f"{self.pointer.quarantined}"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.path not in artifacts.files or self.kept not in artifacts.files:
            raise ChangeError(f"{self.path} or {self.kept} is not there any more")
        return replace(snapshot, artifacts=replace(artifacts, pointers={**artifacts.pointers, self.path: self.pointer}))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"checksum": self.checksum}, {
            "checksum": self.checksum,
            "read": self.kept,
            "quarantined": self.pointer.quarantined,
        }


@dataclass(frozen=True)
class RetractPointer(Change):
    """Mark the pointer that a journal wrote beside `path` as taken back; it and the copy in the quarantine stay,
    since nothing is deleted.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "pointer{s} taken back"

    path: str
    root: str
    kept: str
    checksum: str
    size: int
    journal: str

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact", self.path)

    def describe(self) -> str:
        return f"take back the pointer from {self.path} to {self.kept} that {self.journal} wrote"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        rest = {at: pointer for at, pointer in artifacts.pointers.items() if at != self.path}
        return replace(snapshot, artifacts=replace(artifacts, pointers=rest))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"checksum": self.checksum, "read": self.kept}, {"checksum": self.checksum}
