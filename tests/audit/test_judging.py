"""Laws of the gate: what waivers hide, for how long, and what comes back."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mlflow_compliance.audit.baseline import Baseline
from mlflow_compliance.audit.gate_summary import entries_of, with_gate
from mlflow_compliance.audit.judging import ALWAYS_FAIL, Judge, Judged, outcome_without_failing
from mlflow_compliance.audit.results import FAILING, KNOWN, WAIVED, WARNING, FoundProblem, Result, Summary
from mlflow_compliance.rules.finding import Finding, Severity
from mlflow_compliance.rules.waivers import covers
from mlflow_compliance.settings.gate import Waiver
from mlflow_compliance.snapshot.refs import EntityRef

TODAY = dt.date(2026, 11, 26)
NAMES = st.sampled_from(["fraud-1", "fraud-2", "risk[1]", "risk*", "\x1b[31m", "", "ä"])
SEVERITIES = st.sampled_from([item.value for item in Severity])
FINDINGS = st.builds(
    Finding,
    st.sampled_from(["EXP001", "EXP003", "ART001"]),
    st.builds(EntityRef, st.sampled_from(["experiment", "run"]), st.sampled_from(["1", "2"]), NAMES),
    st.sampled_from(["some", "other", *ALWAYS_FAIL]),
    st.text(max_size=3),
)
DAYS = st.dates(TODAY - dt.timedelta(3), TODAY + dt.timedelta(3))
WAIVERS = st.lists(
    st.builds(
        Waiver,
        policy=st.sampled_from(["EXP*", "EXP003", "*", "ART001", "exp003"]),
        entity=st.sampled_from(["*", "fraud-*", "fraud-1", "risk[1]", "risk*", "run 1", "experiment fraud-1", "2"]),
        reason=st.just("why"),
        owner=st.just("jo"),
        expires=st.one_of(DAYS, st.sampled_from(["soon", "2026-13-01", ""])),
    ),
    max_size=4,
).map(tuple)


def judge(waivers: tuple[Waiver, ...], fail_on: str = "low", today: dt.date = TODAY) -> Judge:
    return Judge(Severity(fail_on), today, waivers, tuple(f"line {number}" for number in range(len(waivers))))


@given(FINDINGS, WAIVERS, SEVERITIES)
def test_no_waiver_hides_a_finding_after_its_day(finding: Finding, waivers: tuple[Waiver, ...], severity: str) -> None:
    judged = judge(waivers).judged(finding, severity)
    if judged.status == WAIVED:
        assert judged.waiver is not None
        assert judged.waiver.expires >= TODAY.isoformat()
    last = max((item.last_day for item in waivers if item.last_day), default=TODAY)
    assert judge(waivers, today=last + dt.timedelta(1)).judged(finding, severity).status == FAILING


@given(FINDINGS, WAIVERS, SEVERITIES)
def test_the_day_itself_counts(finding: Finding, waivers: tuple[Waiver, ...], severity: str) -> None:
    for waiver in waivers:
        if waiver.last_day and covers(waiver, finding.policy, finding.entity) and finding.code not in ALWAYS_FAIL:
            assert judge((waiver,), today=waiver.last_day).judged(finding, severity).status == WAIVED


@given(st.lists(FINDINGS), WAIVERS, st.data(), SEVERITIES, SEVERITIES)
def test_without_a_waiver_exactly_its_findings_are_back(
    findings: list[Finding], waivers: tuple[Waiver, ...], data: st.DataObject, severity: str, fail_on: str
) -> None:
    if not waivers:
        return
    number = data.draw(st.integers(0, len(waivers) - 1))
    rest = (*waivers[:number], *waivers[number + 1 :])
    plain = judge((), fail_on)
    for finding in findings:
        before, after = (judge(some, fail_on).judged(finding, severity) for some in (waivers, rest))
        alone = judge((waivers[number],), fail_on).judged(finding, severity).status == WAIVED
        by_others = judge(rest, fail_on).judged(finding, severity).status == WAIVED
        if alone and not by_others:
            assert before.status == WAIVED
            assert after == plain.judged(finding, severity)
        else:
            assert before.status == after.status


@given(FINDINGS, WAIVERS, SEVERITIES, SEVERITIES)
def test_what_looked_at_nothing_always_fails(
    finding: Finding, waivers: tuple[Waiver, ...], severity: str, fail_on: str
) -> None:
    for code in ALWAYS_FAIL:
        blind = replace(finding, code=code)
        assert judge(waivers, fail_on).judged(blind, severity) == (FAILING, None)
        assert judge(waivers).stays(blind) == ""


@given(FINDINGS, SEVERITIES, SEVERITIES)
def test_a_severity_decides(finding: Finding, severity: str, fail_on: str) -> None:
    status = judge((), fail_on).judged(finding, severity).status
    severe = Severity(severity).rank >= Severity(fail_on).rank or finding.code in ALWAYS_FAIL
    assert status == (FAILING if severe else WARNING)


def result(finding: Finding, judged: Judged) -> Result:
    problem = FoundProblem(
        str(finding), finding.code, finding.fingerprint, "low", str(finding.entity), finding.message, "", "", "",
        status=judged.status, waiver=judged.waiver,
    )  # fmt: skip
    return Result(finding.policy, "", "low", "failed", findings=(problem,), nodeid=finding.fingerprint)


SUMMARY = Summary((), "", checks=(("EXP001", 0), ("EXP003", 0), ("ART001", 0)))


@given(st.lists(FINDINGS, unique_by=lambda item: item.fingerprint), WAIVERS, SEVERITIES, st.text())
def test_of_what_a_baseline_keeps_nothing_is_new(
    findings: list[Finding], waivers: tuple[Waiver, ...], severity: str, words: str
) -> None:
    """Whatever the words by then; and what was waived when it was written is no part of it."""
    writing = judge(waivers)
    results = [result(finding, writing.judged(finding, severity)) for finding in findings]
    entries = {entry.fingerprint: entry for entry in entries_of(SUMMARY, results, None)}
    reading = replace(judge(()), baseline=Baseline(Path("b.json"), {}, entries))
    for finding in findings:
        then = writing.judged(finding, severity).status
        now = reading.judged(replace(finding, message=words, observed=words), severity).status
        blind = finding.code in ALWAYS_FAIL
        assert now == (FAILING if blind or then == WAIVED else KNOWN)
    again = [result(finding, reading.judged(finding, severity)) for finding in findings]
    assert with_gate(SUMMARY, again, reading).baseline.gone == ()  # type: ignore[union-attr]


@given(st.lists(FINDINGS, min_size=1, unique_by=lambda item: item.fingerprint), st.data())
def test_only_rules_that_looked_at_everything_say_what_is_gone(findings: list[Finding], data: st.DataObject) -> None:
    found = [replace(item, code="some") for item in findings]
    every = [result(item, Judged(FAILING)) for item in found]
    older = Baseline(Path("b.json"), {}, {entry.fingerprint: entry for entry in entries_of(SUMMARY, every, None)})
    limited = data.draw(st.sets(st.sampled_from(["EXP001", "EXP003", "ART001"])))
    ran = [Result(rule, "", "low", "passed", nodeid=rule) for rule in ("EXP001", "EXP003", "ART001")]
    summary = replace(SUMMARY, checks=tuple((rule, 2 if rule in limited else 1) for rule, _ in SUMMARY.checks))
    facts = with_gate(summary, ran, replace(judge(()), baseline=older)).baseline
    assert facts is not None
    kept = {entry.fingerprint for entry in entries_of(summary, ran, older)}
    of_limited = {item.fingerprint for item in found if item.policy in limited}
    assert kept == of_limited
    assert set(facts.gone) == older.entries.keys() - of_limited
    stopped = with_gate(replace(summary, stopped="broken off"), ran, replace(judge(()), baseline=older)).baseline
    assert stopped is not None
    assert stopped.gone == ()


def test_a_waiver_means_an_entity_by_its_own_names() -> None:
    run = EntityRef("run", "0123", "trial [1]")
    meant = ["trial [1]", "0123", "run 0123", "run trial [1]", "trial *", "01*", "run *", "*"]
    others = ["trial 1", "TRIAL*", "experiment 0123", "0", "fraud"]
    waivers = [Waiver(policy="*", entity=name, reason="r", owner="o", expires=TODAY) for name in [*meant, *others]]
    assert [item.entity for item in waivers if covers(item, "RUN001", run)] == meant


def test_the_worst_status_is_the_outcome() -> None:
    assert outcome_without_failing({"waived", "known", "warning"}) == "warning"
    assert outcome_without_failing({"waived", "known"}) == "known"
    assert outcome_without_failing({"waived"}) == "waived"
    assert outcome_without_failing(()) == ""
