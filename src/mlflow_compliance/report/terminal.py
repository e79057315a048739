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
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.audit.heading import Heading

COLUMNS = (("policy", 8), ("entity", 24), ("what is wrong", None), ("what --fix would do", None))
OUTCOMES = ("failed", "not evaluated", "fixed", "passed", "not applicable", "switched off")
MOST = 200
"""Rows of the table; a store with more findings than that is read in the HTML report."""


def write_summary(reporter: Any, head: Heading, audit: Audit | None, facts: list[dict[str, Any]]) -> None:
    """Write the audited store, notes, the repair's result and the open findings to pytest's terminal."""
    reporter.section("compliance", sep="=")
    for line in head.lines:
        reporter.write_line(printable(line))
    facts.sort(key=lambda fact: str(fact["policy"]))
    for fact in facts:
        for note in fact["notes"]:
            reporter.write_line(printable(f"note: {fact['policy']}: {note}"))
    if audit is not None:
        _write_repair(reporter, audit)
    _write_outcomes(reporter, facts)
    rows = [(fact["policy"], finding) for fact in facts for finding in fact["findings"]]
    if rows:
        for line in _table(rows[:MOST]).splitlines():
            reporter.write_line(line.rstrip())
        if len(rows) > MOST:
            reporter.write_line(f"... and {len(rows) - MOST} findings more: see the report that --html=audit.html writes")
    lines = to_copy(finding["toml"] for _, finding in rows)
    if lines:
        reporter.write_line("to be copied into compliance.toml:")
        for line in lines:
            reporter.write_line(line)


def _write_outcomes(reporter: Any, facts: list[dict[str, Any]]) -> None:
    """How the checks ended, and why some of them could not judge: none of those reads as compliance."""
    counted = Counter(fact["outcome"] for fact in facts)
    reporter.write_line(", ".join(f"{counted[name]} {name}" for name in OUTCOMES if counted[name]))
    for fact in facts:
        for item in fact["unevaluated"][:MOST]:
            text = f"not evaluated: {fact['policy']}: {item['entity']}: {item['reason']}"
            reporter.write_line(printable(text), yellow=True)
    reasons: dict[str, list[str]] = {}
    for fact in facts:
        if fact["outcome"] == "not applicable":
            policies = reasons.setdefault(fact["reason"], [])
            policies += [fact["policy"]] if fact["policy"] not in policies else []
    for reason, policies in reasons.items():
        reporter.write_line(printable(f"not applicable: {', '.join(policies)}: {reason}"))


def _write_repair(reporter: Any, audit: Audit) -> None:
    made = audit.repair
    if made is None:
        return
    if made.outcome is None:
        run = "repair" if audit.options.fix else "dry run"
        reporter.write_line(f"{run}: nothing was changed" if made.plan.changes else f"{run}: nothing to change")
        refusal = audit.refusal() if made.plan.changes and not audit.options.fix else ""
        if refusal:
            reporter.write_line(printable(f"--fix would not carry this plan out: {refusal}"), red=True)
        return
    for line, well in made.lines():
        reporter.write_line(printable(line), red=not well)


def _table(rows: list[tuple[str, dict[str, str]]]) -> str:
    table = Table(box=box.SIMPLE_HEAD, show_lines=False, pad_edge=False)
    for name, width in COLUMNS:
        table.add_column(name, width=width, overflow="fold")
    for policy, finding in rows:
        wrong = finding["message"]
        if finding["observed"]:
            wrong += f" (found: {finding['observed']})"
        if finding["expected"]:
            wrong += f" (expected: {finding['expected']})"
        # Text, not str: what a store is named must not be read as markup.
        table.add_row(policy, *[Text(printable(value)) for value in (finding["entity"], wrong, finding["remedy"])])
    width = max(80, shutil.get_terminal_size((120, 24)).columns)
    written = io.StringIO()
    Console(file=written, width=width, color_system=None, force_terminal=False).print(table)
    return written.getvalue()
