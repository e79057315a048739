"""What the gate says of an audit as a whole: waivers that end soon, have ended or match nothing, and what is new
against a baseline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mlflow_compliance.audit.baseline import WRITE, Baseline, Entry
from mlflow_compliance.audit.judging import ALWAYS_FAIL, Judge
from mlflow_compliance.audit.results import (
    FAILING,
    KNOWN,
    SWITCHED_OFF,
    WAIVED,
    WARNING,
    BaselineFacts,
    Report,
    Result,
    Summary,
)
from mlflow_compliance.repair.plan_document import clean
from mlflow_compliance.rules.selecting import selects
from mlflow_compliance.rules.waivers import covers, ends_soon, in_force
from mlflow_compliance.settings.gate import Waiver
from mlflow_compliance.snapshot.refs import EntityRef


def with_gate(summary: Summary, results: Sequence[Result], judge: Judge) -> Summary:
    """A summary with what the gate has to say."""
    partial = bool(summary.stopped) or Report(summary, ()).partial
    warnings = [*summary.warnings, *_of_waivers(results, judge, partial=partial)]
    known = judge.baseline
    if known is None:
        return replace(summary, warnings=tuple(warnings))
    facts = _against(known, summary, results)
    if facts.gone:
        warnings.append(
            f"{facts.file}: {len(facts.gone)} of its findings are gone: {WRITE}={facts.file} takes them out"
        )
    told = f"baseline {facts.file}: new {facts.new}, known {facts.known}, gone {len(facts.gone)}"
    return replace(summary, warnings=tuple(warnings), baseline=facts, head=(*summary.head, told))


def _against(known: Baseline, summary: Summary, results: Sequence[Result]) -> BaselineFacts:
    there = {finding.fingerprint for result in results for finding in result.findings}
    statuses = Counter(finding.status for result in results for finding in result.findings)
    judged = judged_rules(summary, results)
    gone = sorted(key for key, entry in known.entries.items() if entry.policy in judged and key not in there)
    return BaselineFacts(known.file, statuses[KNOWN], tuple(gone), statuses[FAILING] + statuses[WARNING])


def entries_of(summary: Summary, results: Sequence[Result], older: Baseline | None) -> list[Entry]:
    """What a baseline of today holds: the findings of today, and of an older one those of rules that did not look at
    everything. What is waived stays out, that it comes back when its waiver has ended.
    """
    judged = judged_rules(summary, results)
    kept = [entry for entry in older.entries.values() if entry.policy not in judged] if older else []
    waived = {item.fingerprint for result in results for item in result.findings if item.status == WAIVED}
    found = [
        Entry(
            policy=result.policy,
            entity=clean(item.entity),
            code=item.code,
            message=clean(item.message),
            fingerprint=item.fingerprint,
        )
        for result in results
        for item in result.findings
        if item.code not in ALWAYS_FAIL
    ]
    return [entry for entry in (*kept, *found) if entry.fingerprint not in waived]


def judged_rules(summary: Summary, results: Sequence[Result]) -> set[str]:
    """Ids of the rules that looked at everything: what they do not find is not there."""
    if summary.stopped:
        return set()
    asked = {result.policy for result in results if result.outcome != SWITCHED_OFF}
    return asked - {result.policy for result in results if blind(result)} - not_whole(summary, results)


def not_whole(summary: Summary, results: Iterable[Result]) -> set[str]:
    """Ids of the rules of which fewer checks ended than there are, be it that some were not selected."""
    ended: dict[str, set[str]] = {}
    for result in results:
        ended.setdefault(result.policy, set()).add(result.nodeid)
    return {rule for rule, checks in summary.checks if len(ended.get(rule, ())) < checks}


def blind(result: Result) -> bool:
    """Whether a check may have missed something: what it does not tell need not be gone."""
    return bool(result.unevaluated or result.others) or any(finding.code in ALWAYS_FAIL for finding in result.findings)


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
