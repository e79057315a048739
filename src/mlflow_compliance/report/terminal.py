"""Our section of the terminal's output: it begins and ends with the verdict."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

from mlflow_compliance.audit.results import FAILING, WARNING
from mlflow_compliance.report.findings import every_row, rows_of
from mlflow_compliance.report.layout import Shown, folded, plain
from mlflow_compliance.report.severities import SEVERITIES
from mlflow_compliance.report.unjudged import every_unjudged, not_applicable, notes, unjudged
from mlflow_compliance.report.verdict import FAIL, INCOMPLETE, PASS, parts_of, verdict_of
from mlflow_compliance.safe_text import WHOLE, printable, to_copy
from mlflow_compliance.settings.flags import ALL, FINDINGS, SUMMARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_compliance.audit.results import Report, Result

OUTCOMES = (
    "failed",
    "not evaluated",
    "warning",
    "known",
    "waived",
    "fixed",
    "passed",
    "not applicable",
    "switched off",
)
TO_COPY = "to be copied into compliance.toml:"
_STYLES: dict[str, dict[str, bool]] = {
    FAIL: {"red": True, "bold": True},
    PASS: {"green": True, "bold": True},
    INCOMPLETE: {"yellow": True, "bold": True},
    "critical": {"red": True, "bold": True},
    "high": {"red": True},
    "medium": {"yellow": True},
    "low": {"cyan": True},
    "heading": {"bold": True},
    "label": {"cyan": True},
    "apart": {"yellow": True},
    "warning": {"yellow": True},
    "failing": {"red": True},
}
LINES = 60
"""Of all that a terminal shows of a store of many, pytest's own with them, unless all is asked for."""
MANY = 300
"""Checks."""
SCREEN = 40
"""Lines: of a store with fewer checks two such screens are shown."""
WIDE = 120
"""Columns for which that holds; on a narrow terminal the same takes more."""
_PYTEST = 10
_HEAD = 2
"""Lines of what was not asked."""
_COMMAND = "baseline written to "
"""How a fact begins that ends in what is to be copied: shown whole."""
_SOFTENED = "asks for less than is built in: "
_LATER = ("registered models: ", "audited by ", "other pytest plugins: ", "plugins without a version: ")
"""How facts begin that are shown where all is asked for: an auditor reads them."""
_SIZES = ("experiments: ", "artifacts: ")
"""How those begin that give way to findings."""


def lines_of(
    report: Report, show: str = FINDINGS, width: int | None = 120, columns: int | None = None
) -> Iterator[Shown]:
    """The section, line by line; without a width no line is broken. `columns` are those that pytest itself goes by."""
    verdict, results = list(_verdict(report, width)), sorted(report.results, key=lambda result: result.policy)
    yield from verdict
    if show == SUMMARY:
        if report.partial:
            yield from plain(printable(report.summary.head[0], WHOLE), width, "warning", _HEAD)
        yield from _told(report, width)
        yield from _rules(report, width)
    elif show == ALL:
        yield from _facts(report, width)
        yield from _told(report, width)
        yield from notes(results, width, whole=True)
        yield from _checks(report)
        yield from every_unjudged(results, width)
        yield from not_applicable(results, width, whole=True)
        yield from every_row(report, width)
        yield from _to_copy(report, None)
    else:
        before = [*_first_facts(report, width), *_told(report, width), *_beside(results, width)]
        copied = list(_to_copy(report, width))
        lines = LINES if len(results) > MANY else 2 * SCREEN
        lines = lines if width is None or width > WIDE else lines * WIDE // width
        room = lines - len(copied) - len(verdict) - 1 - _around(report, columns or width or WIDE)
        rows = list(rows_of(report, width, room - len(before)))
        if len(rows) > room - len(before):  # findings are told first
            before = [*_first_facts(report, width, _LATER + _SIZES), *_told(report, width), *unjudged(results, width)]
            rows = list(rows_of(report, width, room - len(before)))
        yield from before
        yield from rows
        yield from copied
    yield verdict[0]  # what did not fit beside it stands at the head alone: here nothing would say what it is


def _beside(results: Sequence[Result], width: int | None) -> Iterator[Shown]:
    """What is to be known beside the findings, in short."""
    yield from notes(results, width, whole=False)
    yield from unjudged(results, width)
    yield from not_applicable(results, width, whole=False)


def _around(report: Report, width: int) -> int:
    """About how many lines pytest itself writes around the section: a letter a check, a line a file."""
    letters = Counter(result.nodeid.partition("::")[0] for result in report.results)
    return _PYTEST + sum(-(-(len(file) + number) // (width - len(" [100%]"))) for file, number in letters.items())


def _verdict(report: Report, width: int | None) -> Iterator[Shown]:
    """The verdict; what does not fit beside it is a line of its own."""
    lines: list[str] = []
    for part in parts_of(report):
        joined = f"{lines[-1]}   {part}" if lines and lines[-1] else part
        if lines and width is not None and len(joined) > width:
            lines.append(f"      {part}")
        else:
            lines[-1:] = [joined]
    word = verdict_of(report)
    for number, line in enumerate(lines):
        yield Shown(line, word, 0 if number else len(word))


def _facts(report: Report, width: int | None) -> Iterator[Shown]:
    """What was audited, and what the verdict rests on."""
    for number, line in enumerate(report.summary.head):
        yield from plain(printable(line, WHOLE), width, "warning" if report.partial and not number else "")


def _first_facts(report: Report, width: int | None, left_out: tuple[str, ...] = _LATER) -> Iterator[Shown]:
    """The same in short: a line each, without who and with which programs, and what the settings soften once."""
    softened = [line for line in report.summary.head if line.startswith(_SOFTENED)]
    for number, line in enumerate(report.summary.head):
        if line.startswith(_SOFTENED) and line != softened[0]:
            continue
        text = f"{line} and {len(softened) - 1} more" if softened[1:] and line == softened[0] else line
        partial = report.partial and not number
        if not line.startswith(left_out):
            most = 0 if line.startswith(_COMMAND) else _HEAD if partial else 1
            yield from plain(printable(text, WHOLE), width, "warning" if partial else "", most)


def _told(report: Report, width: int | None) -> Iterator[Shown]:
    """What a repair did, and what is to be looked at soon. Why an audit stopped pytest itself tells, once."""
    for done in report.summary.repair:
        yield from plain(printable(done.text, WHOLE), width, "" if done.ok else "failing")
    for line in report.summary.warnings:
        yield from plain(printable(f"warning: {line}", WHOLE), width, "warning")


def _checks(report: Report) -> Iterator[Shown]:
    """How the checks ended."""
    counted = Counter(result.outcome for result in report.results)
    yield Shown(", ".join(f"{counted[name]} {name}" for name in OUTCOMES if counted[name]))


def _rules(report: Report, width: int | None) -> Iterator[Shown]:
    """The rules that fail by severity, each with its findings counted, and those that could not judge."""
    for severity in SEVERITIES:
        counted = Counter(
            result.policy
            for result, finding in report.findings
            if finding.status == FAILING and finding.severity == severity
        )
        if counted:
            told = ", ".join(f"{policy} {number:,}" for policy, number in sorted(counted.items()))
            yield from plain(f"{severity}: {told}", width, severity)
    unknown = sorted({result.policy for result in report.results if result.unevaluated})
    if unknown:
        yield from plain(f"not evaluated: {', '.join(unknown)}", width, "warning")


def _to_copy(report: Report, width: int | None) -> Iterator[Shown]:
    lines = to_copy(finding.toml for _, finding in report.findings if finding.status in (FAILING, WARNING))
    if lines:
        yield Shown(TO_COPY)
        yield from map(Shown, folded(lines, width))


def write_summary(reporter: Any, report: Report, show: str = FINDINGS) -> None:
    """Write the section to pytest's terminal, in colour where pytest writes in colour."""
    reporter.ensure_newline()  # else it would come behind the heading
    reporter.section("compliance", sep="=")
    columns = shutil.get_terminal_size((120, 24)).columns
    # Whoever asks for all of it somewhere else than on a terminal searches in it: there no line is broken.
    width = None if show == ALL and not reporter.isatty else columns
    writer = reporter.config.get_terminal_writer()
    markup = writer.markup
    for line in lines_of(report, show, width, writer.fullwidth):
        end = line.styled or len(line.text)
        reporter.write_line(markup(line.text[:end], **_STYLES.get(line.style, {})) + line.text[end:])
