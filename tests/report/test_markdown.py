"""The report as Markdown, put into HTML by a program that we did not write."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from reports import HOSTILE, clean, everything, problem, result, stopped, summary

from mlflow_compliance.audit.results import Report
from mlflow_compliance.report.formats import text_of
from mlflow_compliance.report.markdown import code

OURS = {"h2", "h3", "p", "code", "table", "thead", "tbody", "tr", "th", "td", "sub", "ul", "li"}


def page(text: str) -> ElementTree.Element:
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    return ElementTree.fromstring(f"<div>{html}</div>")


@pytest.mark.parametrize("report", [everything(), clean(), stopped()])
def test_what_a_store_says_stays_text(report: Report) -> None:
    made = page(text_of("markdown", report))
    assert {item.tag for item in made.iter()} - {"div"} <= OURS
    for item in made.iter():
        if item.tag != "code":  # there nothing is a mention, a link or a tag
            assert "@" not in (item.text or "")
            assert "evil" not in f"{item.text}{item.tail}"


@pytest.mark.parametrize("text", [HOSTILE, "`", "``a`", "a`", "|", "\\|", "a\nb", " ", "a\\"])
def test_a_code_span_holds_what_it_is_given(text: str) -> None:
    made = page(f"| a | b |\n|---|---|\n| {code(text)} | end |\n")
    cells = ["".join(item.itertext()) for item in made.iter("td")]
    assert len(cells) == 2
    assert cells[1] == "end"


def test_the_verdict_comes_first() -> None:
    lines = text_of("markdown", everything()).splitlines()
    assert lines[0] == "## MLflow compliance: FAIL"
    assert text_of("markdown", clean()).startswith("## MLflow compliance: PASS")
    assert text_of("markdown", stopped()).startswith("## MLflow compliance: FAIL")
    assert "the store cannot be read" in text_of("markdown", stopped())


def test_it_tells_waivers_products_and_what_is_apart() -> None:
    text = text_of("markdown", everything())
    assert re.search(r"### Waived: 1\n\n.*\n.*\n\| high .*2027-03-31 \(ann\): not today", text)
    assert "### In the baseline: 1" in text
    assert "`credit 3 @prod`" in text
    assert "could not be judged" in text


def test_it_is_short() -> None:
    rules = (result(f"EXP{number:03}", *(problem(number * 100 + item) for item in range(50))) for number in range(60))
    text = text_of("markdown", Report(summary(), tuple(rules)))
    assert len(text) < 65_536
    assert len(text.splitlines()) < 50
    assert "and 35 more" in text


def test_that_of_the_demo_store(demo_reports: dict[str, Path]) -> None:
    text = demo_reports["markdown"].read_text()
    assert {item.tag for item in page(text).iter()} - {"div"} <= OURS
    assert len(text.splitlines()) < 60
