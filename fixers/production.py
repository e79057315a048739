"""Remedies for production runs."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import CannotFix, Change, Finding, Settings, Snapshot, fixer


@fixer("MOD001")
def advise_logging(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """A model is evidence: it comes from whoever trained it."""
    raise CannotFix("log the model to this run with mlflow.<flavor>.log_model, or mark the run that has it as production")
    yield
