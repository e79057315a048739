"""What narrows a plan: changes that are safe alone, or those of a plan that was saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mlflow_compliance.changes import Applicability, Change
from mlflow_compliance.rules.finding import Finding

NOT_SAFE = "needs reversible changes: leave --fix-safe out"

Admitted = tuple[tuple[Change, ...], str]
"""What of a remedy may be done, and why the rest may not; '' where all of it may."""


class Limit(Protocol):
    """Decides over each remedy before it is planned, so that all that follows is planned on what will be done."""

    def admit(self, finding: Finding, changes: tuple[Change, ...]) -> Admitted:
        """What of a finding's remedy may be done."""


class SafeAlone:
    """Remedies all of whose changes are safe; half a remedy is never done."""

    def admit(self, finding: Finding, changes: tuple[Change, ...]) -> Admitted:
        safe = all(change.applicability is Applicability.SAFE for change in changes)
        return (changes, "") if safe else ((), NOT_SAFE)


class All:
    """Every one of some limits in turn; without any it admits everything."""

    def __init__(self, limits: Sequence[Limit] = ()) -> None:
        self._limits = limits

    def admit(self, finding: Finding, changes: tuple[Change, ...]) -> Admitted:
        why = ""
        for limit in self._limits:
            changes, more = limit.admit(finding, changes)
            why = why or more
            if not changes:
                break
        return changes, why
