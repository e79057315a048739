"""The audit report: columns and a head for pytest-html, with everything that a store brought along escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.safe_text import printable, to_copy
from mlflow_compliance.session.state import MARK, STOPPED, audit_of
from mlflow_compliance.session.xdist import heading_of

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.audit.heading import Heading

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
  .compliance-PASSED { color: #05630f; } .compliance-head { margin: 0 0 1em; padding-left: 1.2em; overflow-wrap: anywhere; }
  td.col-outcome ul { margin: .3em 0; padding-left: 1.2em; } td.col-outcome li { margin: .2em 0; } .compliance-remedy { color: #555; }
  .logwrapper:not(:has(.log)) { display: none; }
  .compliance-head, #results-table td { color: #333; } td.col-policy { white-space: nowrap; }
  td.col-severity.critical, td.col-severity.high { font-weight: bold; }
</style>"""


class HtmlReport:
    """Hooks of pytest-html. Its own cells, summary and environment are not escaped, so nothing goes in as it is."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.header: list[str] = []
        self.notes: list[str] = []
        self.examined: set[tuple[str, str]] = set()
        self.policies = False
        """Whether a row told of a policy."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """The environment table comes from the surroundings (CI variables, --metadata) and is put into the page as HTML."""
        from pytest_metadata.plugin import metadata_key

        facts = self.config.stash.get(metadata_key, None)
        if facts is not None:
            for key in list(facts):
                facts[_safe(key)] = _deep(facts.pop(key))

    def pytest_html_report_title(self, report: Any) -> None:
        report.title = f"Compliance audit: {report.title}"

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        self.header = [f'<th class="sortable compliance" data-column-type="{name}">{name.capitalize()}</th>' for name in COLUMNS]
        cells[0] = cells[0].replace(">Result<", ">Gate<")
        cells[1:1] = self.header

    def pytest_collection_finish(self) -> None:
        """Without policies in the session, its report looks as it would without this plugin."""
        if audit_of(self.config) is None:
            self._as_without_us()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """The controller of pytest-xdist collects nothing: there the rows tell whether policies were run."""
        if audit_of(self.config) is None and not self.policies and STOPPED not in self.config.stash:
            self._as_without_us()

    def _as_without_us(self) -> None:
        if not self.header:
            return
        for report in self._reports():
            report._report.table_header = [cell.replace(">Gate<", ">Result<") for cell in report._report.table_header if cell not in self.header]
            report._report.title = report._report.title.removeprefix("Compliance audit: ")
            for rows in report._report.data["tests"].values():
                for row in rows:
                    del row["resultsTableRow"][1 : 1 + len(COLUMNS)]
        self.header = []

    def _reports(self) -> list[Any]:
        from pytest_html.basereport import BaseReport

        return [plugin for plugin in self.config.pluginmanager.get_plugins() if isinstance(plugin, BaseReport)]

    @pytest.hookimpl(trylast=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        if not cells:
            return
        cells[1] = f'<td class="col-testId">{_safe(report.nodeid)}</td>'
        if self.header:
            facts = getattr(report, MARK, None)
            self.policies = self.policies or bool(facts)
            cells[1:1] = _cells(facts) if facts else [f'<td class="col-{name}"></td>' for name in COLUMNS]
            if facts:
                self.notes += [f"{facts['policy']}: {note}" for note in facts["notes"]]
                self.examined |= set(map(tuple, facts["examined"]))

    def pytest_html_results_table_html(self, report: pytest.TestReport, data: list[str]) -> None:
        """The outcome column tells the findings, with what --fix would do: no need to tell them again below."""
        facts = getattr(report, MARK, None)
        if facts and (facts["told"] or report.passed) and not report.sections:
            data.clear()

    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        head, stopped = heading_of(self.config), self.config.stash.get(STOPPED, None)
        if stopped is not None:
            prefix += [STYLE, f'<p class="compliance-FAILED">Stopped before the checks: {_safe(stopped)}</p>']
        elif head is not None:
            lines = [*_head(head, len(self.examined), audit_of(self.config)), *(f"note: {note}" for note in sorted(self.notes))]
            prefix += [STYLE, '<ul class="compliance-head">', *(f"<li>{_safe(line)}</li>" for line in lines), "</ul>"]


def _head(head: Heading, examined: int, audit: Audit | None) -> list[str]:
    lines = [*head.lines, f"read at: {head.read_at}; {examined} entities examined by {head.policies} policies"]
    lines += [line for line, _ in audit.repair.lines()] if audit and audit.repair else []
    return [*lines, "A check that passes is evidence about this store at this time; it is not a statement of legal compliance."]


def _cells(facts: dict[str, Any]) -> list[str]:
    outcome = "FIXED (removed)" if facts["removed"] else facts["outcome"].upper()
    return [
        f'<td class="col-policy" title="{_safe(facts["title"])}">{_safe(facts["policy"])}</td>',
        f'<td class="col-severity {_safe(facts["severity"])}">{_safe(facts["severity"])}</td>',
        f'<td class="col-entity">{_safe(facts["entity"])}</td>',
        f'<td class="col-outcome"><span class="compliance-{_class(outcome)}">{outcome}</span>: {_safe(facts["title"])}{_items(facts)}</td>',
    ]


def _class(outcome: str) -> str:
    """The outcome as a name of a class; what was removed looks as what was fixed."""
    return "FIXED" if outcome.startswith("FIXED") else outcome.replace(" ", "-")


def _items(facts: dict[str, Any]) -> str:
    items = [f"<li>{_safe(line)}</li>" for line in facts["done"][:MOST]]
    items += [
        f'<li>{_safe(finding["text"])}<br><span class="compliance-remedy">--fix: {_safe(finding["remedy"])}</span>{_to_copy(finding)}</li>'
        for finding in facts["findings"][:MOST]
    ]
    items += [f"<li>{_safe(item['entity'])}: not evaluated: {_safe(item['reason'])}</li>" for item in facts["unevaluated"][:MOST]]
    items += [f"<li>{_safe(facts['reason'])}</li>"] if facts["reason"] else []
    entries = len(facts["done"]) + len(facts["findings"]) + len(facts["unevaluated"])
    left = entries + bool(facts["reason"]) - len(items)
    items += [f"<li>... and {left} more</li>"] if left else []
    if not items:
        return ""
    listed = f"<ul>{''.join(items)}</ul>"
    return listed if len(items) <= OPEN else f"<details><summary>{entries} entries</summary>{listed}</details>"


def _to_copy(finding: dict[str, Any]) -> str:
    lines = to_copy([finding["toml"]])
    return f"<pre>{escape(chr(10).join(lines), quote=True)}</pre>" if lines else ""


def _safe(text: object) -> str:
    return escape(printable(str(text), 2000), quote=True)


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {_safe(key): _deep(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_deep(item) for item in value]
    return _safe(value)
