"""Hooks of pytest-html: what the report's functions make is put where that plugin shows it."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_compliance.report.html import COLUMNS, cells_of, empty_cells, header_cells, stopped
from mlflow_compliance.report.markup import deeply_safe, safe
from mlflow_compliance.session.state import REPORT, STOPPED, audit_of, result_of


class HtmlReport:
    """Hooks of pytest-html. Its own cells, summary and environment are not escaped, so nothing goes in as it is."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.header: list[str] = []
        self.policies = False
        """Whether a row told of a policy."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """The environment table comes from the surroundings (CI variables, --metadata) and is put into the page as
        HTML.
        """
        from pytest_metadata.plugin import metadata_key

        facts = self.config.stash.get(metadata_key, None)
        if facts is not None:
            for key in list(facts):
                facts[safe(key)] = deeply_safe(facts.pop(key))

    def pytest_html_report_title(self, report: Any) -> None:
        report.title = f"Compliance audit: {report.title}"

    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        self.header = header_cells()
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
            report._report.table_header = [
                cell.replace(">Gate<", ">Result<") for cell in report._report.table_header if cell not in self.header
            ]
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
        cells[1] = f'<td class="col-testId">{safe(report.nodeid)}</td>'
        if self.header:
            result = result_of(report)
            self.policies = self.policies or result is not None
            cells[1:1] = cells_of(result) if result else empty_cells()

    def pytest_html_results_table_html(self, report: pytest.TestReport, data: list[str]) -> None:
        """The outcome column tells the findings, with what --fix would do: no need to tell them again below."""
        result = result_of(report)
        if result and (result.reported or report.passed or result.reason) and not report.sections:
            data.clear()

    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        reason, report = self.config.stash.get(STOPPED, None), self.config.stash.get(REPORT, None)
        if reason is not None:
            prefix += stopped(reason)
        elif report is not None:
            from mlflow_compliance.report.page import page_of

            prefix += page_of(report)
