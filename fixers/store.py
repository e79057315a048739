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


@fixer("STO002")
def advise_restoring(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """Nobody can say what the missing row held."""
    raise CannotFix("put the missing rows back from a backup of the database; nothing that hangs on them is moved or deleted here")
    yield  # a generator, as every remedy


@fixer("STO003")
def advise_upgrading(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """A schema is MLflow's own to change."""
    raise CannotFix(snapshot.schema.way_out(snapshot.info.uri) if snapshot.schema else "upgrade it through its server")
    yield
