"""What fails, gathered by its cause: the rule and the kind of problem, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlflow_compliance.audit.results import FAILING
from mlflow_compliance.report.severities import rank

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import FoundProblem, Report, Result


class Group(NamedTuple):
    """Findings of one rule that fail for one reason. `blocks` are the rules whose findings follow from them."""

    result: Result
    findings: tuple[FoundProblem, ...]
    blocks: tuple[str, ...]
    follows: bool
    """Whether all of them follow from findings of other rules."""

    @property
    def severity(self) -> str:
        return min((found.severity for found in self.findings), key=rank)


def groups_of(report: Report) -> list[Group]:
    """What fails, by rule and code: causes before what follows from them, then by severity and by how many."""
    found: dict[tuple[str, str], list[tuple[Result, FoundProblem]]] = {}
    blocked: dict[str, set[str]] = {}
    for result, finding in report.findings:
        if finding.status == FAILING:
            found.setdefault((result.policy, finding.code), []).append((result, finding))
            if finding.cause:
                blocked.setdefault(finding.cause[0], set()).add(result.policy)
    failing = {policy for policy, _ in found}
    groups = [
        Group(
            pairs[0][0],
            tuple(finding for _, finding in pairs),
            tuple(sorted(blocked.get(policy, set()) - {policy})),
            all(finding.cause and finding.cause[0] in failing - {policy} for _, finding in pairs),
        )
        for (policy, _), pairs in found.items()
    ]
    return sorted(
        groups,
        key=lambda one: (one.follows, rank(one.severity), -len(one.blocks), -len(one.findings), one.result.policy),
    )
