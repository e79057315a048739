"""Our part of the HTML report, whole: style, first screen, panels, the data as JSON, and the script that shows it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from mlflow_compliance.report.first_screen import first_screen
from mlflow_compliance.report.json_report import document_of
from mlflow_compliance.report.markup import named, prose, safe, severity_mark, table
from mlflow_compliance.report.panels import panels_of
from mlflow_compliance.report.severities import rank
from mlflow_compliance.report.ways_out import by_fix
from mlflow_compliance.safe_text import WHOLE
from mlflow_compliance.words import several

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import FoundProblem, Report, Result

_WITHOUT_SCRIPT = 1000
"""Findings that are listed where no script runs; the number of those left out is told."""


def asset(name: str) -> str:
    """The text of a file that goes into every page."""
    return files("mlflow_compliance.report").joinpath("assets", name).read_text("utf-8")


def style() -> str:
    """The style sheet, and the width of a small screen."""
    return f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{asset("report.css")}</style>'


def page_of(report: Report) -> list[str]:
    """Everything of ours, for the place that pytest-html gives it."""
    panels = [("c-findings", "Findings", _findings(report)), *panels_of(report)]
    sections = "".join(
        f'<section class="c-panel" id="{key}" aria-labelledby="{key}-head">'
        f'<h2 id="{key}-head">{title}</h2>{html}</section>'
        for key, title, html in panels
    )
    return [
        style(),
        f'<main id="compliance" lang="en">{first_screen(report)}<div id="c-panels">{sections}</div></main>',
        f'<script type="application/json" id="compliance-data">{island_of(report)}</script>',
        f"<script>{asset('report.js')}</script>",
    ]


def island_of(report: Report) -> str:
    """The report's JSON document as it may stand in a script element: nothing in it ends the element, or begins a
    comment.
    """
    text = json.dumps(document_of(report), separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _findings(report: Report) -> str:
    """The place of the list that the script makes; the list itself where there is no script."""
    found = sorted(report.findings, key=lambda pair: (rank(pair[1].severity), pair[0].policy))
    if not found:
        return '<p class="c-calm">No check found anything.</p>'
    heads = ("severity", "rule", "finding", "what --fix would do", "what you can do")
    listed = table(heads, map(_row, found[:_WITHOUT_SCRIPT]), "Findings", "c-wide")
    left = len(found) - _WITHOUT_SCRIPT
    more = f"<p>and {several(left, 'more finding')}: open this page with JavaScript to see them</p>" if left > 0 else ""
    return f'<div id="c-list"></div><noscript>{listed}{more}</noscript>'


def _row(pair: tuple[Result, FoundProblem]) -> list[str]:
    result, finding = pair
    status = f" {safe(finding.status)}" if finding.status != "failing" else ""
    toml = f"<pre>{safe_lines(finding.toml)}</pre>" if finding.toml else ""
    facts = [f"found: {finding.observed}"] if finding.observed else []
    facts += [f"expected: {finding.expected}"] if finding.expected else []
    return [
        severity_mark(finding.severity) + status,
        safe(result.policy),
        f"{named(finding.entity, 200)}: {safe(finding.message)}<br>{safe('; '.join(facts), 400)}",
        prose(by_fix(finding)),
        f"{'<br>'.join(prose(line, 1000) for line in finding.advice.splitlines())}{toml}",
    ]


def safe_lines(text: str) -> str:
    """Lines that are there to be copied, each safe by itself."""
    return "\n".join(safe(line, WHOLE) for line in text.splitlines())
