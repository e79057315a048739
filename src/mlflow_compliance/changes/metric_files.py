"""Changes of a file store's metric files: repeats of a point go, and the file as it was is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import RepeatedPoints
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class RemoveRepeatedPoints(Change):
    """Leave out what a metric file holds more than once; `sha256` and `size` (bytes) are the file's before and
    after.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "metric file{s} cleared of repeats"

    path: str
    owner_kind: str
    key: str
    metric: str
    repeats: int
    sha256: str
    size: int

    @property
    def entity(self) -> EntityRef:
        return EntityRef(self.owner_kind, self.key)

    def describe(self) -> str:
        points = f"{self.repeats} repeated point{'s' * (self.repeats != 1)}"
        return (
            f"leave out {points} of metric {self.metric!r} of {self.owner_kind.replace('_', ' ')} {self.key}; "
            "the file as it was is kept"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        found = snapshot.repeated_points.get(self.path)
        if found is None or found.sha256 != self.sha256:
            raise ChangeError(f"{self.path} does not hold these repeats any more")
        rest = {path: points for path, points in snapshot.repeated_points.items() if path != self.path}
        return _resized(replace(snapshot, repeated_points=rest), self.path, self.size)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"sha256": self.sha256, "repeats": self.repeats}, {"size": self.size, "repeats": 0}


@dataclass(frozen=True)
class RestoreMetricFile(Change):
    """Put a metric file back as it was: `sha256` and `before` (bytes) then, `now` its hash and `after` its bytes
    until this.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "metric file{s} put back"

    path: str
    owner_kind: str
    key: str
    metric: str
    repeats: int
    journal: str
    sha256: str
    before: int
    now: str
    after: int

    @property
    def entity(self) -> EntityRef:
        return EntityRef(self.owner_kind, self.key)

    def describe(self) -> str:
        return (
            f"put metric {self.metric!r} of {self.owner_kind.replace('_', ' ')} {self.key} back as it was, "
            f"with {self.repeats} repeated points"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        points = RepeatedPoints(
            EntityRef(self.owner_kind, self.key), self.metric, self.repeats, 0, self.sha256, self.after
        )
        again: Mapping[str, RepeatedPoints] = {**snapshot.repeated_points, self.path: points}
        return _resized(replace(snapshot, repeated_points=again), self.path, self.before)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"sha256": self.now, "repeats": 0}, {"sha256": self.sha256, "repeats": self.repeats}


def _resized(snapshot: Snapshot, path: str, size: int) -> Snapshot:
    """A metric file lies in its run's folder, where the inventory sees it."""
    artifacts = snapshot.artifacts
    if artifacts is None or path not in artifacts.files:
        return snapshot
    file = artifacts.files[path]._replace(size=size, copy=f"own:{path}")
    return replace(snapshot, artifacts=replace(artifacts, files={**artifacts.files, path: file}))
