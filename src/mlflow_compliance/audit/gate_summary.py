"""What the gate says of an audit as a whole: waivers that end soon, have ended or match nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mlflow_compliance.audit.judging import ALWAYS_FAIL, Judge
from mlflow_compliance.audit.results import Report, Result, Summary
from mlflow_compliance.rules.selecting import selects
from mlflow_compliance.rules.waivers import covers, ends_soon, in_force
from mlflow_compliance.settings.gate import Waiver
from mlflow_compliance.snapshot.refs import EntityRef


def with_gate(summary: Summary, results: Sequence[Result], judge: Judge) -> Summary:
    """A summary with what the gate has to say."""
    partial = bool(summary.stopped) or Report(summary, ()).partial
    return replace(summary, warnings=(*summary.warnings, *_of_waivers(results, judge, partial=partial)))


def blind(result: Result) -> bool:
    """Whether a check may have missed something: what it does not tell need not be gone."""
    return bool(result.unevaluated) or any(finding.code in ALWAYS_FAIL for finding in result.findings)


def _of_waivers(results: Sequence[Result], judge: Judge, *, partial: bool) -> Iterator[str]:
    """What is to be looked at; it fails nothing by itself."""
    for number, waiver in enumerate(judge.waivers):
        place = judge.places[number]
        what = f"the waiver of {waiver.policy} for {waiver.entity!r}"
        mine = [result for result in results if selects((waiver.policy,), result.policy)]
        matched = any(_matches(waiver, place, result) for result in mine)
        if waiver.last_day is None:
            yield (
                f"{judge.days[number]}: {what} counts as expired, since its date cannot be read "
                f"({waiver.expires!r}): write one such as expires = 2027-03-31"
            )
        elif not matched and not partial and not any(map(blind, mine)):
            yield f"{place}: {what} matches no finding: take it out"
        elif matched and not in_force(waiver, judge.today):
            yield (
                f"{place}: {what} expired on {waiver.expires}, and what it waived counts again: mend that, or ask "
                f"{waiver.owner}"
            )
        elif ends_soon(waiver, judge.today):
            days = (waiver.last_day - judge.today).days
            when = f"in {days} day{'s' * (days != 1)}" if days else "today is its last day"
            yield f"{place}: {what} expires on {waiver.expires} ({when}): mend what it waives, or ask {waiver.owner}"


def _matches(waiver: Waiver, place: str, result: Result) -> bool:
    """Whether a waiver means a finding of a check, whatever the day."""
    return any(
        (finding.waiver is not None and finding.waiver.where == place)
        or covers(waiver, result.policy, EntityRef(finding.kind, finding.key, finding.name))
        for finding in result.findings
    )
