"""The report as SARIF, held to the schema that OASIS publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from gates import CHECKOUT
from reports import clean, everything, problem, result, stopped, summary

from mlflow_compliance.audit.results import BaselineFacts, Report
from mlflow_compliance.report.formats import text_of

SCHEMA = json.loads((CHECKOUT / "tests" / "support" / "schemas" / "sarif-2.1.0.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)


def run_of(report: Report) -> Any:
    log = json.loads(text_of("sarif", report))
    VALIDATOR.validate(log)
    (run,) = log["runs"]
    return run


@pytest.mark.parametrize("report", [everything(), clean(), stopped()])
def test_it_keeps_the_schema(report: Report) -> None:
    run = run_of(report)
    rules = run["tool"]["driver"]["rules"]
    for item in run.get("results", ()):
        assert rules[item["ruleIndex"]]["id"] == item["ruleId"]
    prints = [item["partialFingerprints"]["mlflowCompliance/v1"] for item in run.get("results", ())]
    assert len(set(prints)) == len(prints)


def test_levels_states_and_places() -> None:
    run = run_of(everything())
    by_text = {item["message"]["text"].partition(":")[0]: item for item in run["results"]}
    assert (by_text["experiment e1"]["level"], by_text["experiment e1"]["baselineState"]) == ("error", "new")
    assert by_text["experiment e3"]["level"] == "warning"
    place = by_text["experiment e3"]["locations"][0]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "conf%20dir/compliance.toml", "uriBaseId": "SRCROOT"},
        "region": {"startLine": 12},
    }
    assert place["logicalLocations"] == [{"name": "e3", "kind": "experiment", "fullyQualifiedName": "experiment:3"}]
    assert by_text["experiment e4"]["level"] == "note"
    assert by_text["experiment e6"]["baselineState"] == "unchanged"
    waived = by_text["experiment e7"]
    assert waived["suppressions"][0]["justification"].startswith("not today")
    assert "baselineState" not in waived
    assert all(item["suppressions"] == [] for item in run["results"] if item is not waived)
    unjudged = [item for item in run["results"] if item["kind"] == "open"]
    assert {item["ruleId"] for item in unjudged} == {"MOD001", "MOD002"}
    assert {item["level"] for item in unjudged} == {"none"}


def test_names_make_no_links_and_no_escapes() -> None:
    for item in run_of(everything())["results"]:
        assert "](" not in item["message"]["text"]
        assert item["message"]["text"].isprintable()


def test_without_a_baseline_there_is_no_state() -> None:
    run = run_of(Report(summary(), (result("EXP001", problem(1)),)))
    assert "baselineState" not in run["results"][0]


def test_a_warning_is_never_an_error() -> None:
    found = problem(1, severity="critical", status="warning")
    assert run_of(Report(summary(), (result("EXP001", found),)))["results"][0]["level"] == "warning"
    known = problem(1, severity="critical", status="known")
    facts = summary(baseline=BaselineFacts("b.json", 1))
    assert run_of(Report(facts, (result("EXP001", known),)))["results"][0]["level"] == "error"


def test_what_stopped_is_no_success() -> None:
    (invocation,) = run_of(stopped())["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "the store cannot be read" in invocation["toolExecutionNotifications"][0]["message"]["text"]
    assert run_of(clean())["invocations"][0]["executionSuccessful"] is True


@pytest.mark.parametrize(
    "report",
    [
        stopped(),
        Report(summary(), ()),
        Report(summary(stopped="pytest was interrupted"), (result("EXP001", problem(1)), result("EXP002"))),
    ],
    ids=["before it began", "without a check", "half-way"],
)
def test_what_stopped_closes_no_alert(report: Report) -> None:
    """An empty or a short list of results is taken for what is left of an earlier one."""
    run = run_of(report)
    assert "results" not in run
    assert run["invocations"][0]["executionSuccessful"] is False
    assert run_of(clean())["results"] == []


def test_rules_say_what_to_do() -> None:
    rules = {rule["id"]: rule for rule in run_of(clean())["tool"]["driver"]["rules"]}
    assert "rename it" in rules["EXP001"]["help"]["text"]
    assert "EU AI Act Art. 12" in rules["EXP001"]["properties"]["tags"]
    assert rules["EXP002"]["defaultConfiguration"] == {"level": "warning", "enabled": False}


def test_that_of_the_demo_store(demo_reports: dict[str, Path]) -> None:
    log = json.loads(demo_reports["sarif"].read_text())
    VALIDATOR.validate(log)
    document = json.loads(demo_reports["json"].read_text())
    told = sum(len(item["findings"]) + len(item["unevaluated"]) for item in document["results"])
    assert len(log["runs"][0]["results"]) == told
    named = {item["locations"][0]["physicalLocation"]["region"]["startLine"] for item in log["runs"][0]["results"]}
    assert max(named) > 1, "some finding names its line of the settings"
