"""Remedies for the store as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import CannotFix, Change, Finding, Settings, Snapshot, fixer


@fixer("STO001")
def advise_migration(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """File stores are only audited."""
    raise CannotFix("take the repeated lines out of a copy of the metric file before `mlflow migrate-filestore`")
    yield
