"""The report as GitHub's workflow commands, read as a runner reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reports import clean, everything, problem, result, stopped, summary

from mlflow_compliance.audit.results import Report
from mlflow_compliance.report.formats import text_of

COMMAND = re.compile(r"::(error|warning|notice) ((?:[a-z]+=[^,:]*)(?:,[a-z]+=[^,:]*)*)::(.*)")


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    found = []
    for line in text.splitlines():
        match = COMMAND.fullmatch(line)
        assert match, line
        facts = dict(part.split("=", 1) for part in match[2].split(","))
        found.append((match[1], {name: _back(value) for name, value in facts.items()}, _back(match[3])))
    return found


def _back(text: str) -> str:
    assert "\r" not in text
    for escaped, char in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(escaped, char)
    return text


def test_the_verdict_then_the_worst() -> None:
    found = commands(text_of("github", everything()))
    assert found[0][0] == "error"
    assert found[0][2].startswith("FAIL ")
    assert found[1][:2] == (
        "error",
        {"file": "conf dir/compliance.toml", "line": "1", "title": "EXP001 critical: The rule EXP001"},
    )
    assert [level for level, _, text in found if "e5" in text] == ["warning"]
    assert found[-1] == ("notice", {"title": "MLflow compliance"}, "not shown here: 1 in the baseline, 1 waived")
    assert not [text for _, _, text in found if "e6" in text or "e7" in text]


def test_names_make_no_commands() -> None:
    text = text_of("github", everything())
    assert "%250A" in text  # what a name holds comes back as it was
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("::error::")]


def test_no_more_than_is_shown() -> None:
    many = Report(summary(), (result("EXP001", *(problem(number) for number in range(500))),))
    found = commands(text_of("github", many))
    assert len([1 for level, _, _ in found if level == "error"]) == 10
    assert found[-1][2] == "not shown here: 491 more errors"


@pytest.mark.parametrize(("report", "level"), [(clean(), "notice"), (stopped(), "error")])
def test_a_pass_and_a_stop(report: Report, level: str) -> None:
    found = commands(text_of("github", report))
    assert {item[0] for item in found} == {level}


def test_that_of_the_demo_store(demo_reports: dict[str, Path]) -> None:
    assert commands(demo_reports["github"].read_text())[0][0] == "error"
