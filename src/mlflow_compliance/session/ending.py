"""The end of a session: its report is made, written where it was asked for, and shown on the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.safe_text import without_secrets_in
from mlflow_compliance.session.baseline import with_baseline_written
from mlflow_compliance.session.history import keep
from mlflow_compliance.session.partial import tell_junit, told_as_partial
from mlflow_compliance.session.reports import stopped_report, write_reports
from mlflow_compliance.session.state import REPORT, STOPPED, audit_of, results_of
from mlflow_compliance.session.xdist import shared_summary

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.audit.judging import Judge
    from mlflow_compliance.audit.results import Report, Summary


def finish(session: pytest.Session) -> None:
    """Make the report and write it as the command line asks. A repair that failed in part, a plan whose rule crashed,
    or a store that is not what was planned, is never a success.
    """
    audit = audit_of(session.config)
    found = shared_summary(session.config) if audit is None else None
    stopped = _why_stopped(session)
    if audit is not None and audit.opened:
        from mlflow_compliance.audit.summary import summary_of

        found = summary_of(audit), _judge_of(audit)
    if found is not None:
        report = session.config.stash[REPORT] = _report(replace(found[0], stopped=stopped), found[1], session)
        tell_junit(report.summary, session.config)
        write_reports(report, session)
        keep(report, session)
    elif session.config.option.compliance_report:
        write_reports(stopped_report(stopped or "no policy was collected"), session)
    made = audit.repair if audit else None
    if made is not None and made.went_wrong and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _report(summary: Summary, judge: Judge, session: pytest.Session) -> Report:
    from mlflow_compliance.audit.gate_summary import with_gate
    from mlflow_compliance.audit.results import Report

    results = tuple(result for _, result in results_of(session.config.pluginmanager.getplugin("terminalreporter")))
    summary = with_gate(told_as_partial(summary, session), results, judge)
    summary = with_baseline_written(summary, results, judge, session)
    return Report(without_secrets_in(summary), results)  # results were cut one by one


def _why_stopped(session: pytest.Session) -> str:
    """Why this session comes to no verdict, empty where it does."""
    if STOPPED in session.config.stash:
        return session.config.stash[STOPPED]
    if session.exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
        return "pytest was interrupted, or failed itself, before all checks had ended"
    return ""


def _judge_of(audit: Audit) -> Judge:
    """What decides over findings; what is built in where the session was stopped because of the baseline."""
    from mlflow_compliance.audit.judging import Judge
    from mlflow_compliance.errors import BaselineError

    try:
        return audit.judge
    except BaselineError:
        return Judge.built_in()


def summarize(reporter: Any, config: pytest.Config) -> None:
    """The end of the terminal's output: what was audited, what is wrong and what --fix would do."""
    report = config.stash.get(REPORT, None)
    if report is None:
        return
    from mlflow_compliance.report.terminal import write_summary

    write_summary(reporter, report, config.option.compliance_show)
