"""The formats that a Report can be written in, by name. One is one module and one line here; other distributions bring
theirs as entry points of the group `mlflow_compliance.reports`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from mlflow_compliance.errors import ComplianceError, first_line

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import Report

GROUP = "mlflow_compliance.reports"
Writer = Callable[["Report"], str]
"""Makes the whole text of a file."""
_FORMATS = {
    "github": "mlflow_compliance.report.github:as_github",
    "gitlab": "mlflow_compliance.report.gitlab:as_gitlab",
    "json": "mlflow_compliance.report.json_report:as_json",
    "junit": "mlflow_compliance.report.junit:as_junit",
    "markdown": "mlflow_compliance.report.markdown:as_markdown",
    "oscal": "mlflow_compliance.report.oscal:as_assessment_results",
    "oscal-poam": "mlflow_compliance.report.oscal:as_poam",
    "sarif": "mlflow_compliance.report.sarif:as_sarif",
}


def names() -> list[str]:
    """Of every format that is at hand."""
    return sorted({*_FORMATS, *(item.name for item in entry_points(group=GROUP))})


def writer_of(name: str) -> Writer:
    """What writes a format. Raises ComplianceError where none has that name, or where it cannot be loaded."""
    if name in _FORMATS:
        module, _, function = _FORMATS[name].partition(":")
        found: Writer = getattr(import_module(module), function)
        return found
    for item in entry_points(group=GROUP, name=name):
        try:
            loaded: Writer = item.load()
        except Exception as error:
            raise ComplianceError(
                f"the report format {name!r} of {_brought_by(item)} cannot be loaded "
                f"({type(error).__name__}: {first_line(error)}): mend or remove that distribution"
            ) from error
        return loaded
    raise ComplianceError(f"--compliance-report knows no format {name!r}: it knows {', '.join(names())}")


def text_of(name: str, report: Report) -> str:
    """The report in a format. Raises ComplianceError where its writer fails: it may be somebody else's."""
    write = writer_of(name)
    try:
        return write(report)
    except Exception as error:
        raise ComplianceError(
            f"the report format {name!r} could not be made ({type(error).__name__}: {first_line(error)}): "
            "tell those who wrote it"
        ) from error


def _brought_by(item: object) -> str:
    return str(getattr(getattr(item, "dist", None), "name", "a distribution"))
