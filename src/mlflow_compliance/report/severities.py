"""The order in which reports tell severities: the worst first."""

from __future__ import annotations

from mlflow_compliance.settings import flags

SEVERITIES = flags.SEVERITIES[::-1]


def rank(severity: str) -> int:
    """The place of a severity, 0 for the worst; one that nobody knows comes last."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)
