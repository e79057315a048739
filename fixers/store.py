"""Remedies for the store as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import CannotFix, Change, Finding, RemoveRepeatedPoints, Settings, Snapshot, fixer


@fixer("STO001")
def remove_repeats(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """Leave exact repeats out of the metric files; each file as it was is kept beside the journal."""
    if finding.code == "clashes":
        raise CannotFix("which value counts is not for a program to say: take the other lines out of the file, then `mlflow migrate-filestore`")
    for path, points in snapshot.repeated_points.items():
        owner = points.owner
        if (owner.kind, owner.key) == finding.entity.place and points.repeats:
            yield RemoveRepeatedPoints(path, owner.kind, owner.key, points.metric, points.repeats, points.sha256, points.size)
