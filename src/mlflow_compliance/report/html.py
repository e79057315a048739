"""The audit report as HTML: rows and a head for pytest-html, with everything that a store brought along escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from mlflow_compliance.safe_text import printable, to_copy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_compliance.audit.results import FoundProblem, Result, Summary

COLUMNS = ("policy", "severity", "entity", "outcome")
MOST = 500
"""Findings shown in one row; the number of those left out is told."""
OPEN = 12
"""A longer list starts folded."""
STYLE = """<style>
  body { min-width: 60rem; }
  #results-table td { vertical-align: top; overflow-wrap: anywhere; }
  #results-table td.col-outcome { min-width: 24rem; }
  #results-table td.col-testId { max-width: 22rem; font-size: smaller; }
  .compliance-FAILED { color: #a00; font-weight: bold; } .compliance-FIXED { color: #05630f; font-weight: bold; }
  .compliance-NOT-EVALUATED { color: #8a5200; font-weight: bold; } .compliance-NOT-APPLICABLE { color: #555; }
  .compliance-PASSED { color: #05630f; }
  .compliance-head { margin: 0 0 1em; padding-left: 1.2em; overflow-wrap: anywhere; }
  td.col-outcome ul { margin: .3em 0; padding-left: 1.2em; } td.col-outcome li { margin: .2em 0; }
  .compliance-remedy { color: #555; }
  .logwrapper:not(:has(.log)) { display: none; }
  .compliance-head, #results-table td { color: #333; } td.col-policy { white-space: nowrap; }
  td.col-severity.critical, td.col-severity.high { font-weight: bold; }
</style>"""


def header_cells() -> list[str]:
    """The heads of the columns that a policy's row has more than a test's."""
    return [f'<th class="sortable compliance" data-column-type="{name}">{name.capitalize()}</th>' for name in COLUMNS]


def empty_cells() -> list[str]:
    """The same columns in the row of a test that is no policy."""
    return [f'<td class="col-{name}"></td>' for name in COLUMNS]


def head_of(summary: Summary, examined: int, notes: Iterable[str]) -> list[str]:
    """The head of the report: what was audited, what was repaired, what to know."""
    lines = [*summary.head, f"read at: {summary.read_at}; {examined} entities examined by {summary.policies} policies"]
    lines += [line.text for line in summary.repair]
    lines += [
        "A check that passes is evidence about this store at this time; it is not a statement of legal compliance."
    ]
    lines += [f"note: {note}" for note in notes]
    return [STYLE, '<ul class="compliance-head">', *(f"<li>{safe(line)}</li>" for line in lines), "</ul>"]


def stopped(reason: str) -> list[str]:
    """The head of the report of a run that ended before its checks."""
    return [STYLE, f'<p class="compliance-FAILED">Stopped before the checks: {safe(reason)}</p>']


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
    items += [
        (
            f'<li>{safe(finding.text)}<br><span class="compliance-remedy">--fix: '
            f"{safe(finding.way_out)}</span>{_to_copy(finding)}</li>"
        )
        for finding in result.findings[:MOST]
    ]
    items += [f"<li>{safe(item.entity)}: not evaluated: {safe(item.reason)}</li>" for item in result.unevaluated[:MOST]]
    items += [f"<li>{safe(result.reason)}</li>"] if result.reason else []
    entries = len(result.done) + len(result.findings) + len(result.unevaluated)
    left = entries + bool(result.reason) - len(items)
    items += [f"<li>... and {left} more</li>"] if left else []
    if not items:
        return ""
    listed = f"<ul>{''.join(items)}</ul>"
    return listed if len(items) <= OPEN else f"<details><summary>{entries} entries</summary>{listed}</details>"


def _to_copy(finding: FoundProblem) -> str:
    lines = to_copy([finding.toml])
    return f"<pre>{escape(chr(10).join(lines), quote=True)}</pre>" if lines else ""


def safe(text: object) -> str:
    """A text that may stand in a page as it is."""
    return escape(printable(str(text), 2000), quote=True)


def deeply_safe(value: Any) -> Any:
    """Plain values with every text in them safe."""
    if isinstance(value, dict):
        return {safe(key): deeply_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [deeply_safe(item) for item in value]
    return safe(value)
