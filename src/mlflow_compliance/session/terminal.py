"""What pytest itself shows of policies: a word and a letter for each check, and in its own sections at the end nothing
that ours tells.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlflow_compliance.session.state import result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pytest

    Status = tuple[str, str, str | tuple[str, Mapping[str, bool]]]

_SHORT = "short_test_summary"
_SECTIONS = (
    "summary_errors",
    "summary_failures",
    "summary_xfailures",
    "summary_passes",
    "summary_xpasses",
    _SHORT,
)
"""Methods of pytest's terminal reporter that show reports one by one."""
_CRASHED = "crashed"
"""Code of a finding whose traceback is needed."""
_PRINTED = ("Captured stdout", "Captured stderr")
_LETTERS = {"warning": "!", "known": "k", "waived": "w"}
"""Of the outcomes of checks with findings none of which fails the gate."""


def status(report: pytest.TestReport) -> Status | None:
    """FIXED for a check that failed before the repair and passes now; the outcomes that pytest does not know."""
    result = result_of(report)
    if result is None:
        return None
    if result.fixed:
        return "fixed", "f", ("FIXED (removed)" if result.removed else "FIXED", {"green": True, "bold": True})
    if result.outcome == "not evaluated":
        return (
            "not evaluated",
            "?",
            ("NOT EVALUATED", {"red": report.failed, "yellow": not report.failed, "bold": True}),
        )
    if result.outcome == "not applicable":
        return "not applicable", "-", ("NOT APPLICABLE", {"cyan": True})
    letter = _LETTERS.get(result.outcome)
    return (result.outcome, letter, (result.outcome.upper(), {"yellow": True})) if letter else None


@contextmanager
def policies_left_out(reporter: Any) -> Iterator[None]:
    """Keep the reports of policies out of pytest's own sections. Nothing else sees them less: not its last line, not
    the exit code, not other plugins.
    """
    replaced = [name for name in _SECTIONS if callable(getattr(reporter, name, None))]
    for name in replaced:
        setattr(reporter, name, _without_policies(reporter, getattr(reporter, name), short=name == _SHORT))
    try:
        yield
    finally:
        for name in replaced:
            reporter.__dict__.pop(name, None)


def _without_policies(reporter: Any, section: Callable[[], None], *, short: bool) -> Callable[[], None]:
    def shown() -> None:
        before: dict[str, list[Any]] = reporter.stats
        reporter.stats = {
            # What another plugin keeps under a name of its own is not a list of reports.
            name: [each for each in reports if not _told(each, short=short)] if isinstance(reports, list) else reports
            for name, reports in before.items()
        }
        try:
            section()
        finally:
            reporter.stats = before

    return shown


def _told(report: Any, *, short: bool) -> bool:
    """Whether our section tells all of it: a check that crashed has a traceback to show, and one that printed
    something what it printed.
    """
    result = result_of(report)
    if result is None or any(finding.code == _CRASHED for finding in result.findings):
        return False
    return short or not any(name.startswith(_PRINTED) for name, _ in getattr(report, "sections", ()))
