"""The table at the end of the terminal's output."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlflow_compliance.safe_text import printable, to_copy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_compliance.audit.results import FoundProblem, Report, Result

COLUMNS = (("policy", 8), ("entity", 24), ("what is wrong", None), ("what --fix would do", None))
OUTCOMES = (
    "failed",
    "not evaluated",
    "warning",
    "known",
    "waived",
    "fixed",
    "passed",
    "not applicable",
    "switched off",
)
MOST = 200
"""Rows of the table; a store with more findings than that is read in the HTML report."""


def write_summary(reporter: Any, report: Report) -> None:
    """Write the audited store, notes, the repair's result and the open findings to pytest's terminal."""
    reporter.section("compliance", sep="=")
    summary = report.summary
    for line in summary.head:
        reporter.write_line(printable(line))
    for line in summary.warnings:
        reporter.write_line(printable(f"warning: {line}"), yellow=True)
    results = sorted(report.results, key=lambda result: result.policy)
    for result in results:
        for note in result.notes:
            reporter.write_line(printable(f"note: {result.policy}: {note}"))
    for done in summary.repair:
        reporter.write_line(printable(done.text), red=not done.ok)
    _write_outcomes(reporter, results)
    following = _following(results)
    rows = [
        (result.policy, finding, following.get((result.policy, result.entity, finding.code), ""))
        for result in results
        for finding in result.findings
    ]
    if rows:
        for line in _table(rows[:MOST]).splitlines():
            reporter.write_line(line.rstrip())
        if len(rows) > MOST:
            reporter.write_line(
                f"... and {len(rows) - MOST} findings more: see the report that --html=audit.html writes"
            )
    lines = to_copy(finding.toml for _, finding, _ in rows)
    if lines:
        reporter.write_line("to be copied into compliance.toml:")
        for line in lines:
            reporter.write_line(line)


def _following(results: Sequence[Result]) -> dict[tuple[str, str, str], str]:
    """(policy, entity of its check, code) of findings that only follow from what another check found -> the policy of
    that one, where it was asked and says something of its own.
    """
    found = {(result.policy, result.entity): result.findings for result in results if result.findings}
    following = {}
    for (policy, entity), findings in found.items():
        for finding in findings:
            first, cause = None, finding.cause
            while cause in found:
                first = cause
                cause = next((item.cause for item in found[first] if item.cause), None)
            if first is not None:
                following[policy, entity, finding.code] = first[0]
    return following


def _write_outcomes(reporter: Any, results: Sequence[Result]) -> None:
    """How the checks ended, and why some of them could not judge: none of those reads as compliance."""
    counted = Counter(result.outcome for result in results)
    reporter.write_line(", ".join(f"{counted[name]} {name}" for name in OUTCOMES if counted[name]))
    for result in results:
        for item in result.unevaluated[:MOST]:
            reporter.write_line(printable(f"not evaluated: {result.policy}: {item.entity}: {item.reason}"), yellow=True)
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.outcome == "not applicable":
            policies = reasons.setdefault(result.reason, [])
            policies += [result.policy] if result.policy not in policies else []
    for reason, policies in reasons.items():
        reporter.write_line(printable(f"not applicable: {', '.join(policies)}: {reason}"))


def _table(rows: Sequence[tuple[str, FoundProblem, str]]) -> str:
    table = Table(box=box.SIMPLE_HEAD, show_lines=False, pad_edge=False)
    for name, width in COLUMNS:
        table.add_column(name, width=width, overflow="fold")
    for policy, finding, cause in rows:
        wrong = finding.message
        if finding.observed:
            wrong += f" (found: {finding.observed})"
        if finding.expected:
            wrong += f" (expected: {finding.expected})"
        # Text, not str: what a store is named must not be read as markup.
        table.add_row(
            policy,
            *[
                Text(printable(value))
                for value in (finding.entity, wrong, f"see {cause}" if cause else finding.way_out)
            ],
        )
    width = max(80, shutil.get_terminal_size((120, 24)).columns)
    written = io.StringIO()
    Console(file=written, width=width, color_system=None, force_terminal=False).print(table)
    return written.getvalue()
