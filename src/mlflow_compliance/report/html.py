"""The rows of pytest-html's table of all checks, with everything that a store brought along escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mlflow_compliance.report.markup import prose, safe
from mlflow_compliance.safe_text import to_copy

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import FoundProblem, Result

COLUMNS = ("policy", "severity", "entity", "outcome")
MOST = 500
"""Findings shown in one row; the number of those left out is told."""
OPEN = 12
"""A longer list starts folded."""


def header_cells() -> list[str]:
    """The heads of the columns that a policy's row has more than a test's."""
    return [f'<th class="sortable compliance" data-column-type="{name}">{name.capitalize()}</th>' for name in COLUMNS]


def empty_cells() -> list[str]:
    """The same columns in the row of a test that is no policy."""
    return [f'<td class="col-{name}"></td>' for name in COLUMNS]


def stopped(reason: str) -> list[str]:
    """What the page says of a run that ended before its checks."""
    from mlflow_compliance.report.page import style

    return [style(), f'<p class="compliance-FAILED">Stopped before the checks: {safe(reason)}</p>']


def cells_of(result: Result) -> list[str]:
    """The cells of a policy's row."""
    outcome = "FIXED (removed)" if result.removed else result.outcome.upper()
    return [
        f'<td class="col-policy" title="{safe(result.title)}">{safe(result.policy)}</td>',
        f'<td class="col-severity {safe(result.severity)}">{safe(result.severity)}</td>',
        f'<td class="col-entity">{safe(result.entity)}</td>',
        (
            f'<td class="col-outcome"><span class="compliance-{_class(outcome)}">{outcome}</span>: '
            f"{safe(result.title)}{_items(result)}</td>"
        ),
    ]


def _class(outcome: str) -> str:
    """The outcome as a name of a class; what was removed looks as what was fixed."""
    return "FIXED" if outcome.startswith("FIXED") else outcome.replace(" ", "-")


def _items(result: Result) -> str:
    items = [f"<li>{safe(line)}</li>" for line in result.done[:MOST]]
    items += [_finding(finding) for finding in result.findings[:MOST]]
    items += [f"<li>{safe(item.entity)}: not evaluated: {safe(item.reason)}</li>" for item in result.unevaluated[:MOST]]
    items += [f"<li>{safe(result.reason)}</li>"] if result.reason else []
    entries = len(result.done) + len(result.findings) + len(result.unevaluated)
    left = entries + bool(result.reason) - len(items)
    items += [f"<li>... and {left} more</li>"] if left else []
    if not items:
        return ""
    listed = f"<ul>{''.join(items)}</ul>"
    return listed if len(items) <= OPEN else f"<details><summary>{entries} entries</summary>{listed}</details>"


def _finding(finding: FoundProblem) -> str:
    from mlflow_compliance.report.ways_out import by_fix  # not in sessions without a policy

    advice = f"<br>what you can do: {prose(finding.advice)}" if finding.advice else ""
    return (
        f'<li>{safe(finding.text)}<br><span class="compliance-remedy">what --fix would do: '
        f"{prose(by_fix(finding))}{advice}</span>{_to_copy(finding)}</li>"
    )


def _to_copy(finding: FoundProblem) -> str:
    lines = to_copy([finding.toml])
    return f"<pre>{escape(chr(10).join(lines), quote=True)}</pre>" if lines else ""
