"""A plan in short: its totals first and last, a line a kind of change, a line a reason why findings stay."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mlflow_compliance.repair.totals import counted, totals
from mlflow_compliance.safe_text import WHOLE, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.changes import Change
    from mlflow_compliance.repair.plan import Plan
    from mlflow_compliance.rules.finding import Finding

_FEW = 2
"""Names in one line."""
_ROOM = 24
"""Columns: an example that has less of them says nothing."""


def brief(plan: Plan, width: int) -> Iterator[str]:
    """The plan for people who do not want every change, safe to print; examples are cut at so many columns, since what
    counts stands before them, and reasons never are.
    """
    sums = totals(plan.changes, plan.start)
    if sums:
        yield f"totals: {sums}"
    kinds: dict[tuple[str, str], list[tuple[str, Change]]] = defaultdict(list)
    for step in plan.steps:
        for change in step.changes:
            kinds[change.applicability.value, change.in_total].append((step.finding.policy, change))
    for (applicability, _), made in kinds.items():
        (number,) = counted([change for _, change in made])
        policies = " ".join(sorted({policy for policy, _ in made}))
        head = f"    + {applicability:<10}  {number}  ({policies})"
        example = f"{'' if len(made) == 1 else 'e.g. '}{made[0][1].describe()}"
        room = width - len(head) - 2
        yield f"{head}  {printable(example, room)}" if room >= min(_ROOM, len(example)) else head
    left: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for refusal in plan.unfixed:
        left[refusal.finding.policy, refusal.reason].append(refusal.finding)
    for (policy, reason), findings in left.items():
        names = ", ".join(str(finding.entity) for finding in findings[:_FEW])
        more = f", ... +{len(findings) - _FEW:,}" if len(findings) > _FEW else ""
        yield printable(f"    ! not fixed  {policy}  {names}{more}: {reason}", WHOLE)
    if plan.steps and plan.note:
        yield plan.note
    if plan.changes or plan.unfixed:
        yield "every change: --compliance-show=all"
    yield from plan.ending()
