"""The report as GitLab's code quality, held to what its documentation asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from reports import clean, everything, stopped

from mlflow_compliance.audit.results import Report
from mlflow_compliance.report.formats import text_of

ASKED: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^(?!\\./).+"},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}


def issues_in(text: str) -> Any:
    issues = json.loads(text)
    jsonschema.validate(issues, ASKED)
    prints = [item["fingerprint"] for item in issues]
    assert len(set(prints)) == len(prints), "of two with one fingerprint GitLab shows the first alone"
    return issues


@pytest.mark.parametrize(("report", "number"), [(everything(), 9), (clean(), 0), (stopped(), 1)])
def test_each_issue_has_all_that_is_asked(report: Report, number: int) -> None:
    assert len(issues_in(text_of("gitlab", report))) == number


def test_severities_and_places() -> None:
    issues = {
        item["description"].rpartition("experiment ")[2]: item for item in issues_in(text_of("gitlab", everything()))
    }
    assert issues["e1: is odd; found: odd"]["severity"] == "blocker"
    assert issues["e3: is odd; found: odd"]["location"] == {"path": "conf dir/compliance.toml", "lines": {"begin": 12}}
    assert issues["e5: is odd; found: odd"]["severity"] == "info"
    assert "e7: is odd; found: odd" not in issues
    assert {item["check_name"] for item in issues.values()} >= {"MOD001", "MOD002"}


def test_what_stopped_is_a_blocker() -> None:
    (issue,) = issues_in(text_of("gitlab", stopped()))
    assert (issue["check_name"], issue["severity"]) == ("STOPPED", "blocker")


def test_that_of_the_demo_store(demo_reports: dict[str, Path]) -> None:
    assert len(issues_in(demo_reports["gitlab"].read_text())) > 10
