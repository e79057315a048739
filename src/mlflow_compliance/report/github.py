"""The report as workflow commands of GitHub Actions: printed in a job, each becomes an annotation."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING, WARNING
from mlflow_compliance.report.problems import place_of, problems_of
from mlflow_compliance.report.verdict import parts_of

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import Report

MOST = 9
"""Annotations of one level in one step: GitHub shows ten, and one of them is the verdict."""
_COMMANDS = {FAILING: "error", WARNING: "warning"}


def as_github(report: Report) -> str:
    """The verdict, then what is wrong, the worst first; what is known or waived is only counted."""
    lines = [_command("notice" if report.ok else "error", "MLflow compliance", "   ".join(parts_of(report)))]
    shown: Counter[str] = Counter()
    for problem in problems_of(report):
        level = _COMMANDS.get(problem.status, "")
        shown[level] += 1
        if level and shown[level] <= MOST:
            file, line = place_of(problem, report)
            title = f"{problem.policy} {problem.severity}: {problem.title}"
            lines.append(_command(level, title, problem.text, file=file, line=str(line)))
    more = [f"{shown[level] - MOST} more {level}s" for level in _COMMANDS.values() if shown[level] > MOST]
    apart = {"in the baseline": report.counts.known, "waived": report.counts.waived}
    more += [f"{sum(numbers.values())} {word}" for word, numbers in apart.items() if numbers]
    if more:
        lines.append(_command("notice", "MLflow compliance", f"not shown here: {', '.join(more)}"))
    return "\n".join(lines) + "\n"


def _command(level: str, title: str, text: str, **facts: str) -> str:
    told = ",".join(f"{name}={_property(value)}" for name, value in {**facts, "title": title}.items())
    return f"::{level} {told}::{_data(text)}"


def _data(text: str) -> str:
    """A line break would end the command, and begin one that somebody wrote into the name of an experiment."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
