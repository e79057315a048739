"""A finding as outputs have it: its words, what --fix would do about it, and what the gate makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FoundProblem
from mlflow_compliance.rules.advice import filled
from mlflow_compliance.snapshot.lies_in import experiment_of

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit, Remedy
    from mlflow_compliance.rules.finding import Finding
    from mlflow_compliance.rules.policy import Policy

_WAYS_OUT = {
    "nothing-to-examine": "nothing: the settings or the store must hold something to examine",
    "crashed": "nothing: mend the policy; a check that crashed proves nothing",
}
"""Of what no fixer is asked about."""


def found_problem(finding: Finding, remedy: Remedy | None, rule: Policy, audit: Audit) -> FoundProblem:
    judged, owned = audit.judged(rule, finding), audit.owner(finding.entity)
    return FoundProblem(
        text=str(finding),
        code=finding.code,
        fingerprint=finding.fingerprint,
        severity=audit.severity(rule, [finding]).value,
        entity=str(finding.entity),
        message=finding.message,
        observed=finding.observed,
        expected=finding.expected,
        remedy=remedy.text if remedy else _WAYS_OUT.get(finding.code, ""),
        toml=finding.toml,
        cause=(finding.cause.policy, str(finding.cause.subject)) if finding.cause else None,
        kind=finding.entity.kind,
        key=finding.entity.key,
        name=finding.entity.label,
        experiment=experiment_of(finding.entity, audit.snapshots.latest),
        fixable=remedy is not None and remedy.changes > 0,
        advice=_advice(finding, remedy, rule),
        status=judged.status,
        waiver=judged.waiver,
        owner=owned.owner,
        contact=owned.contact,
    )


def _advice(finding: Finding, remedy: Remedy | None, rule: Policy) -> str:
    """What people can do about a finding. Where it follows from another, or nothing was judged, the rule's advice is
    beside the point.
    """
    if finding.code in _WAYS_OUT:
        return ""
    if finding.cause is not None:
        first = finding.cause.policy
        return f"mend {first} first, from which this follows: `pytest --compliance-explain={first}` says how"
    if remedy is not None and remedy.advice is not None:
        return remedy.advice
    return filled(finding.advice or rule.advice, finding)
