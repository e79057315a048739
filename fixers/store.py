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


@fixer("STO004")
def advise_newer_database(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """Which database is the right one is not for this program to guess."""
    raise CannotFix(
        "if the database was restored from a backup, bring back the one that knows these folders; if their rows were deleted on purpose, move "
        "them out of the artifact root; until then nothing in it is moved or linked"
    )
    yield
