"""The report of one run for who logged it: as text, and as a table for a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING
from mlflow_compliance.safe_text import WHOLE, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.audit.results import Report

Row = tuple[str, str, str, str]
"""What it counts as, the rule, what is wrong, and what people can do."""


def as_text(report: Report) -> str:
    lines = [printable(_verdict(report))]
    for status, rule, text, advice in _rows(report):
        lines.append(f"  {status:<13} {rule}  {text}")
        lines += [f"  {'':<13} what you can do: {advice}"] if advice else []
    return "\n".join(lines)


def as_table(report: Report) -> str:
    """Nothing of it comes to life: texts of a store are escaped."""
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(report))
    head = "".join(f"<th>{cell}</th>" for cell in ("", "rule", "what is wrong", "what you can do"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return f"<p><b>{escape(printable(_verdict(report)))}</b></p>{table}"


def _verdict(report: Report) -> str:
    asked = {result.policy for result in report.results}
    word = "OK" if report.ok else "FAIL"
    return f"{word}: {report.summary.head[0]}; {len(asked)} rule{'s' * (len(asked) != 1)} asked"


def _rows(report: Report) -> Iterator[Row]:
    """What fails first."""
    rows = []
    for result, finding in report.findings:
        status = finding.severity if finding.status == FAILING else finding.status
        rows.append((finding.status != FAILING, (status, result.policy, finding.text, finding.advice)))
    for result in report.results:
        rows += [
            (not result.fails, ("not judged", result.policy, f"{item.entity}: {item.reason}", ""))
            for item in result.unevaluated
        ]
    for _, (status, policy, text, advice) in sorted(rows, key=lambda row: row[0]):
        yield status, policy, printable(text, WHOLE), printable(advice, WHOLE)
