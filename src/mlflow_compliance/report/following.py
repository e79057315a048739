"""What follows from what: findings that only say that another rule's check failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_compliance.audit.results import Result

Check = tuple[str, str]
"""Policy and entity of a check."""


def first_causes(results: Iterable[Result]) -> dict[tuple[str, str, str], Check]:
    """(policy, entity of its check, code) of findings that only follow from what another check found -> that check,
    where it was asked and says something of its own.
    """
    found = {(result.policy, result.entity): result.findings for result in results if result.findings}
    following = {}
    for (policy, entity), findings in found.items():
        for finding in findings:
            first, cause, seen = None, finding.cause, {(policy, entity)}
            while cause in found and cause not in seen:
                seen.add(cause)
                first = cause
                cause = next((item.cause for item in found[first] if item.cause), None)
            if first is not None:
                following[policy, entity, finding.code] = first
    return following
