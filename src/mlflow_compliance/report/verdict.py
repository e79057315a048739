"""The verdict in one line: whether the gate holds, how bad it is, how much was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_compliance.report.severities import SEVERITIES
from mlflow_compliance.words import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_compliance.audit.results import Report

FAIL = "FAIL"
PASS = "PASS"  # noqa: S105  it is no password
INCOMPLETE = "INCOMPLETE"
"""Nothing failed, and not everything was judged: that is no compliance."""


def verdict_of(report: Report) -> str:
    """FAIL, PASS, or INCOMPLETE."""
    if not report.ok:
        return FAIL
    counts = report.counts
    return PASS if counts.ran and not counts.not_evaluated and not report.partial else INCOMPLETE


def parts_of(report: Report) -> Iterator[str]:
    """What the verdict rests on, the most important part first."""
    yield f"{verdict_of(report)}  {_how_bad(report)}"
    yield from facts_of(report)


def facts_of(report: Report) -> Iterator[str]:
    """The rest of it: how much was asked, what can be mended, what is counted apart."""
    counts = report.counts
    yield _rules(report)
    fixed = sum(result.fixed for result in report.results)
    if fixed:
        yield f"{fixed:,} fixed"
    if counts.fixable:
        yield f"{counts.fixable:,} fixable"
    if report.summary.reclaimable:
        yield f"{size_of(report.summary.reclaimable)} reclaimable"
    gone = len(report.summary.baseline.gone) if report.summary.baseline else 0
    apart = {
        "warnings": sum(counts.warning.values()),
        "waived": sum(counts.waived.values()),
        "baseline": sum(counts.known.values()),
        "gone": gone,
    }
    told = ", ".join(f"{name} {number:,}" for name, number in apart.items() if number)
    if told:
        yield f"({told})"


def by_severity(numbers: Mapping[str, int]) -> str:
    """'2 critical · 3 high'; empty where there is none."""
    return " · ".join(f"{numbers[name]:,} {name}" for name in SEVERITIES if numbers.get(name))


def _how_bad(report: Report) -> str:
    found = by_severity(report.counts.failing)
    if found:
        return found
    unjudged = len({result.policy for result in report.results if result.fails})
    if unjudged:
        rules = (
            "1 rule that must be judged was not" if unjudged == 1 else f"{unjudged} rules that must be judged were not"
        )
        return f"no finding, and {rules}"
    if not all(line.ok for line in report.summary.repair):
        return "no finding, and the repair did not go well"
    if report.summary.stopped:
        return "no finding, and the audit stopped"
    if verdict_of(report) == PASS:
        return "no finding that fails" if report.findings else "no finding"
    return "no finding in what was judged; not everything was" if report.counts.ran else "nothing was judged"


def _rules(report: Report) -> str:
    counts = report.counts
    asked = {result.policy for result in report.results}
    # Of a rule that was asked of some things alone the head tells; here are those of which nothing is said.
    missing = len({*report.summary.known} - asked)
    rest = {"off": counts.off, "not evaluated": counts.not_evaluated, "not asked": missing}
    told = [f"{counts.ran - counts.not_evaluated:,} ran", *(f"{rest[name]:,} {name}" for name in rest if rest[name])]
    return f"rules {len(asked) + missing:,}: {', '.join(told)}"
