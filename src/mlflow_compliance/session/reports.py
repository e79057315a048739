"""Writes the report in the formats that --compliance-report asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.writable import why_unwritable

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import Report


def asked_in(given: tuple[str, ...], folder: Path) -> list[tuple[str, Path]]:
    """Format and file of each --compliance-report. Raises ComplianceError where one cannot be written."""
    from mlflow_compliance.report.formats import writer_of

    found = []
    for text in given:
        name, _, file = text.partition(":")
        if not file.strip():
            raise ComplianceError(f"--compliance-report takes FORMAT:FILE, such as json:audit.json, not {text!r}")
        writer_of(name)
        path = folder / Path(file).expanduser()
        if not path.parent.is_dir():
            raise ComplianceError(f"--compliance-report={text}: there is no folder {path.parent}; make it first")
        reason = why_unwritable(path)
        if reason:
            raise ComplianceError(f"--compliance-report={text}: the file cannot be written ({reason}); name another")
        found.append((name, path))
    return found


def write_reports(report: Report, session: pytest.Session) -> None:
    """Write each file that was asked for; on a worker of pytest-xdist nothing, its controller has all results."""
    from mlflow_compliance.report.formats import writer_of

    config = session.config
    if hasattr(config, "workerinput"):
        return
    for name, path in asked_in(tuple(config.option.compliance_report or ()), config.invocation_params.dir):
        try:
            path.write_text(writer_of(name)(report), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise pytest.UsageError(
                f"the report {path} could not be written ({error.strerror}): free the way to it"
            ) from error
