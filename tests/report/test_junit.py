"""The report as JUnit XML, held to the schema of Jenkins' xUnit plugin."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from gates import CHECKOUT
from reports import clean, everything, stopped

from mlflow_compliance.audit.results import Report
from mlflow_compliance.report.formats import text_of

SCHEMA = xmlschema.XMLSchema(str(CHECKOUT / "tests" / "support" / "schemas" / "junit-10.xsd"))


def root_of(report: Report) -> ElementTree.Element:
    text = text_of("junit", report)
    SCHEMA.validate(text)
    return ElementTree.fromstring(text)


@pytest.mark.parametrize("report", [everything(), clean(), stopped()])
def test_it_keeps_the_schema_and_counts_right(report: Report) -> None:
    root = root_of(report)
    cases = list(root.iter("testcase"))
    assert len(cases) == len(report.results) + 1 == int(root.get("tests", ""))
    assert len(list(root.iter("failure"))) == sum(item.fails for item in report.results)
    assert int(root.get("failures", "")) == sum(item.fails for item in report.results)
    for suite in root.iter("testsuite"):
        assert int(suite.get("tests", "")) == len(list(suite.iter("testcase")))
    broken = list(root.iter("error")) + list(root.iter("failure"))
    assert bool(broken) is not report.ok


def test_each_check_says_what_it_is() -> None:
    root = root_of(everything())
    suites = {
        suite.find("testcase").get("name"): {  # type: ignore[union-attr]
            (item.get("name"), item.get("value")) for item in suite.findall("properties/property")
        }
        for suite in root.iter("testsuite")
        if suite.find("testcase") is not None
    }
    assert suites["EXP001 The rule EXP001: experiment e1"] == {
        ("policy", "EXP001"), ("severity", "high"), ("outcome", "failed"), ("entity", "experiment e1"),
        ("fingerprint", f"{1:016x}"), ("status", "failing"), ("owner", "fraud"),
    }  # fmt: skip


def test_what_stopped_is_an_error() -> None:
    error = root_of(stopped()).find(".//error")
    assert error is not None
    assert "the store cannot be read" in (error.get("message") or "")


def test_that_of_the_demo_store(demo_reports: dict[str, Path]) -> None:
    SCHEMA.validate(str(demo_reports["junit"]))
