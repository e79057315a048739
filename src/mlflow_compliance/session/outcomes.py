"""What a check says when it has ended: its failure or its skip, and the Result that its report carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from mlflow_compliance.safe_text import without_secrets_in
from mlflow_compliance.session.pasted import id_to_paste
from mlflow_compliance.session.redaction import cut_report
from mlflow_compliance.session.repair import Removed
from mlflow_compliance.session.state import AUDIT, BEFORE, EXAMINED, RESULT, VIOLATIONS, rule_of

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit, Remedy
    from mlflow_compliance.rules.finding import Finding
    from mlflow_compliance.rules.outcome import Unevaluated
    from mlflow_compliance.rules.policy import Policy
    from mlflow_compliance.snapshot.refs import EntityRef


REMEDIES: pytest.StashKey[dict[Finding, Remedy]] = pytest.StashKey()
"""On a check: its findings -> what --fix would do about each, asked as soon as the check had ended."""
ASSERTED: pytest.StashKey[Finding] = pytest.StashKey()
"""On a check: what a plain assertion found."""
TOLD: pytest.StashKey[bool] = pytest.StashKey()
"""On a check: whether its failure only tells what it recorded."""
OTHERS: pytest.StashKey[int] = pytest.StashKey()
"""On a check: how much it found about entities of other owners than the one that is asked for."""
SHOWN: pytest.StashKey[set[str]] = pytest.StashKey()
"""Lines of TOML that a failure has told: twenty findings may have the same ones."""


def fail_on_violations(item: pytest.Function) -> None:
    """Fail a check whose violations are not empty, all of them told; one that could not judge everything is never
    green.
    """
    violations = item.stash.get(VIOLATIONS, None)
    if violations is None or not (violations.findings or violations.unevaluated):
        return
    rule = rule_of(item)
    assert rule is not None
    _leave_out_others(item)
    if not (violations.findings or violations.unevaluated):
        _skip_for_others(item)
    _ask_remedies(item, violations.findings)
    told = _told(item, rule, [*violations.findings, *violations.unevaluated])
    if _fails(item, rule, violations.findings) or _lacks_evidence(item, rule):
        item.stash[TOLD] = True
        pytest.fail(told, pytrace=False)
    pytest.skip(told)


def _leave_out_others(item: pytest.Item) -> None:
    """Take out of what a check recorded all that other owners answer for, where one owner was asked for."""
    audit, violations = item.config.stash[AUDIT], item.stash.get(VIOLATIONS, None)
    if audit.options.owner is None or violations is None:
        return
    before = len(violations.findings) + len(violations.unevaluated)
    violations.findings[:] = [found for found in violations.findings if audit.is_asked(found.entity)]
    violations.unevaluated[:] = [
        entry for entry in violations.unevaluated if audit.is_asked(entry.entity, unknown=True)
    ]
    left = before - len(violations.findings) - len(violations.unevaluated)
    item.stash[OTHERS] = item.stash.get(OTHERS, 0) + left


def _skip_for_others(item: pytest.Item) -> NoReturn:
    pytest.skip(f"what it found is not of {item.config.stash[AUDIT].options.owner!r} (--compliance-owner)")


def _told(item: pytest.Item, rule: Policy, entries: Sequence[Finding | Unevaluated]) -> str:
    """What was recorded, a line each, and the lines of TOML that no other failure has told."""
    from mlflow_compliance.audit.results import FAILING
    from mlflow_compliance.rules.finding import Finding
    from mlflow_compliance.safe_text import WHOLE, printable

    audit = item.config.stash[AUDIT]
    lines = []
    for entry in entries:
        judged = audit.judged(rule, entry) if isinstance(entry, Finding) else None
        lines.append(f"{entry} ({judged})" if judged and judged.status != FAILING else str(entry))
    told = "\n".join(map(printable, lines))
    shown = item.config.stash.setdefault(SHOWN, set())
    for more in dict.fromkeys(entry.toml for entry in entries if isinstance(entry, Finding)):
        if more and more not in shown:
            shown.add(more)
            told += "\n\n" + "\n".join(printable(line, WHOLE) for line in more.splitlines())
    return told


def _fails(item: pytest.Item, rule: Policy, findings: Sequence[Finding]) -> bool:
    """Whether one of some findings fails the gate."""
    from mlflow_compliance.audit.results import FAILING

    return any(item.config.stash[AUDIT].judged(rule, found).status == FAILING for found in findings)


def _lacks_evidence(item: pytest.Item, rule: Policy) -> bool:
    """Whether a check could not judge something, and that fails the gate."""
    violations = item.stash.get(VIOLATIONS, None)
    return bool(violations and violations.unevaluated) and item.config.stash[AUDIT].requires_evidence(rule)


def shorten(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Keep one frame of what `fail_on_violations` raised: it is shown without a traceback, and pytest would look up
    the source of every frame for that.
    """
    violations, raised = item.stash.get(VIOLATIONS, None), call.excinfo
    if (
        call.when != "call"
        or raised is None
        or violations is None
        or not (violations.findings or violations.unevaluated)
    ):
        return
    if isinstance(raised.value, pytest.fail.Exception) and not raised.value.pytrace:
        # The last one that pytest would show: of hidden ones alone it says that they are hidden.
        shown = [entry for entry in raised.traceback if not entry.ishidden(raised)]
        raised.traceback = type(raised.traceback)(shown[-1:])


def _ask_remedies(item: pytest.Item, findings: Sequence[Finding]) -> None:
    audit = item.config.stash[AUDIT]
    item.stash.setdefault(REMEDIES, {}).update({finding: audit.remedy(finding) for finding in findings})


def asserted(item: pytest.Function, failure: BaseException) -> None:
    """Take a failing assertion for the finding that it is; its message is made safe to print, since it may quote
    what somebody named in the store.
    """
    rule = rule_of(item)
    if rule is None:
        return
    from mlflow_compliance.safe_text import printable

    if isinstance(failure, AssertionError):
        failure.args = tuple(
            "\n".join(map(printable, arg.splitlines())) if isinstance(arg, str) else arg for arg in failure.args
        )
    violations, audit = item.stash.get(VIOLATIONS, None), item.config.stash[AUDIT]
    _leave_out_others(item)
    recorded = violations.findings if violations else []
    if _fails(item, rule, recorded):
        return
    subject = violations.subject if violations else _subject(item, rule, audit)
    found = _assertion(rule, subject, failure, audit)
    own = [found] if audit.is_asked(found.entity) else []
    if own:
        item.stash[ASSERTED] = found
    else:
        item.stash[OTHERS] = item.stash.get(OTHERS, 0) + 1
    _ask_remedies(item, [*recorded, *own])
    if _lacks_evidence(item, rule):
        item.stash[TOLD] = True
    elif not (recorded or own):
        _skip_for_others(item)
    elif not _fails(item, rule, own):
        pytest.skip(_told(item, rule, [*recorded, *own]))


def describe(item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
    """Put on a report what the tables show: plain values only, nothing secret among them."""
    rule = item.rule if isinstance(item, Removed) else rule_of(item)
    if rule is not None:
        cut_report(report)
    if rule is None or not (report.when == "call" or report.outcome != "passed"):
        return
    from mlflow_compliance.audit.problems import found_problem
    from mlflow_compliance.audit.results import NotJudged, Result
    from mlflow_compliance.safe_text import printable

    audit = item.config.stash[AUDIT]
    violations = item.stash.get(VIOLATIONS, None)
    _leave_out_others(item)
    findings = [*violations.findings] if violations else []
    findings += [item.stash[ASSERTED]] if ASSERTED in item.stash else []
    before = item.config.stash.get(BEFORE, {}).get(item.nodeid, [])
    done = audit.done(before)
    fixed = report.when == "call" and report.outcome == "passed" and bool(before)
    if fixed and not done and not isinstance(item, Removed):
        done = ["mended along with another finding"]
    subject = violations.subject if violations else (before[0].entity if before else _subject(item, rule, audit))
    unevaluated = violations.unevaluated if violations else []
    remedies = item.stash.get(REMEDIES, {})
    if report.outcome == "failed" and not item.stash.get(TOLD, False) and not _fails(item, rule, findings):
        findings.append(_own_failure(rule, subject, call, audit))
    failing = report.outcome == "failed"
    result = Result(
        policy=rule.id,
        title=rule.title,
        severity=audit.severity(rule, findings).value,
        outcome=_outcome(rule, report, findings, unevaluated, audit, fixed=fixed),
        entity=str(subject) if subject else "",
        removed=isinstance(item, Removed),
        done=tuple(done) if fixed or not failing else (),
        findings=tuple(found_problem(finding, remedies.get(finding), rule, audit) for finding in findings),
        unevaluated=tuple(NotJudged(str(entry.entity), entry.code, entry.reason) for entry in unevaluated),
        reason="" if unevaluated or findings else _reason(report),
        reported=bool(violations and (violations.findings or violations.unevaluated)) or ASSERTED in item.stash,
        notes=tuple(violations.notes) if violations else (),
        examined=tuple(ref.place for ref in item.stash.get(EXAMINED, ())),
        nodeid=id_to_paste(item),
        fails=failing,
        was=tuple(map(str, before)) if fixed else (),
        others=item.stash.get(OTHERS, 0),
    )
    plain = without_secrets_in(result.plain())
    setattr(report, RESULT, plain)
    # What JUnit keeps of a check that passed: it has no other place for what it said.
    item.user_properties += [("note", printable(note)) for note in plain["notes"]]


def _outcome(
    rule: Policy,
    report: pytest.TestReport,
    findings: Sequence[Finding],
    unevaluated: Sequence[Unevaluated],
    audit: Audit,
    *,
    fixed: bool,
) -> str:
    """What the check says, as reports spell it: an Outcome, 'fixed', 'switched off', or what its findings count as
    where none of them fails.
    """
    from mlflow_compliance.audit.judging import outcome_without_failing
    from mlflow_compliance.audit.results import FAILING, FIXED, SWITCHED_OFF
    from mlflow_compliance.rules.outcome import Outcome

    if fixed:
        return FIXED
    if report.passed:
        return Outcome.PASSED.value
    statuses = {audit.judged(rule, found).status for found in findings}
    if unevaluated and FAILING not in statuses and (report.failed or not findings):
        return Outcome.NOT_EVALUATED.value
    if report.skipped:
        if findings:
            return outcome_without_failing(statuses)
        return Outcome.NOT_APPLICABLE.value if audit.enabled(rule) else SWITCHED_OFF
    return Outcome.FAILED.value


def _reason(report: pytest.TestReport) -> str:
    """Why a check was skipped, as it was said; empty for others."""
    if not report.skipped or not isinstance(report.longrepr, tuple):
        return ""
    said = str(report.longrepr[2]).removeprefix("Skipped: ")
    empty = said.removeprefix("got empty parameter set for ")
    return said if empty == said else f"there is no {empty.strip('()').replace('_', ' ')} to look at"


def _subject(item: pytest.Item, rule: Policy, audit: Audit) -> EntityRef | None:
    """What a check without a `violations` fixture is about."""
    from mlflow_compliance.rules.policy import PARAMETERS

    if not rule.parameters:
        return audit.store.info.ref
    key = item.callspec.params.get(rule.parameters[0]) if hasattr(item, "callspec") else None
    found = audit.resolve(rule.parameters[0], str(key), artifacts=rule.reads_artifacts)
    return None if found is None else PARAMETERS[rule.parameters[0]].ref(found)


def _assertion(rule: Policy, subject: EntityRef | None, failure: BaseException, audit: Audit) -> Finding:
    """What a plain assertion found."""
    from mlflow_compliance.rules.evaluation import message_of
    from mlflow_compliance.rules.finding import ASSERTION, Finding

    return Finding(rule.id, subject or audit.store.info.ref, ASSERTION, message_of(failure))


def _own_failure(rule: Policy, subject: EntityRef | None, call: pytest.CallInfo[Any], audit: Audit) -> Finding:
    """A check that failed by an assertion, or that could not be carried out, as a row of the tables."""
    from mlflow_compliance.rules.evaluation import message_of
    from mlflow_compliance.rules.finding import CRASHED, NOTHING_TO_EXAMINE, Finding

    error = call.excinfo.value if call.excinfo else None
    entity = subject or audit.store.info.ref
    if call.when == "call" and isinstance(error, (AssertionError, pytest.fail.Exception)):
        return _assertion(rule, subject, error, audit)
    if isinstance(error, pytest.fail.Exception):
        return Finding(rule.id, entity, NOTHING_TO_EXAMINE, message_of(error))
    what = (
        type(error).__name__ + (f": {message_of(error)}" if str(error).strip() else "")
        if error is not None
        else "no reason given"
    )
    return Finding(rule.id, entity, CRASHED, f"the check could not be carried out ({what})")
