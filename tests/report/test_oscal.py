"""The report as OSCAL, read and validated by compliance-trestle."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from reports import clean, everything, stopped

from mlflow_compliance.audit.results import Report
from mlflow_compliance.report.formats import text_of

trestle = pytest.importorskip("trestle.oscal", reason="compliance-trestle needs Python 3.11")
KINDS = ("oscal", "oscal-poam")


def is_valid(path: Path) -> bool:
    """What each of trestle's validators says of a document that trestle can read."""
    from trestle.core.validator_factory import validator_factory  # first: the others import it in a circle
    from trestle.oscal.assessment_results import AssessmentResults
    from trestle.oscal.poam import PlanOfActionAndMilestones

    kind = AssessmentResults if "assessment-results" in json.loads(path.read_text()) else PlanOfActionAndMilestones
    model = kind.oscal_read(path)
    assert model is not None
    return bool(validator_factory.get(SimpleNamespace(mode="all")).model_is_valid(model, True, path.parent))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("report", [everything(), clean(), stopped()])
def test_trestle_reads_it(tmp_path: Path, report: Report, name: str) -> None:
    path = tmp_path / f"{name}.json"
    path.write_text(text_of(name, report))
    assert is_valid(path)


def test_trestle_refuses_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "oscal.json"
    path.write_text(text_of("oscal", everything()).replace('"state": "not-satisfied"', '"state": "so so"'))
    with pytest.raises(Exception, match="so so"):
        is_valid(path)
    document = json.loads(text_of("oscal", everything()))
    observations = document["assessment-results"]["results"][0]["observations"]
    observations[0]["uuid"] = observations[1]["uuid"]
    path.write_text(json.dumps(document))
    assert not is_valid(path)


def result_of(report: Report) -> Any:
    return json.loads(text_of("oscal", report))["assessment-results"]["results"][0]


def test_rules_hold_or_do_not() -> None:
    findings = result_of(everything())["findings"]
    states = {item["target"]["target-id"]: item["target"]["status"]["state"] for item in findings}
    assert states["EXP001"] == states["RUN001"] == states["MOD001"] == "not-satisfied"
    assert states["MOD002"] == "not-satisfied"  # what nobody looked at is no evidence that it holds
    assert states["PRD001"] == states["PRD002"] == "satisfied"
    assert "EXP002" not in states  # it is switched off: nothing is said of it


def test_risks_are_open_or_waived_with_the_reason() -> None:
    risks = {item["description"].partition(":")[0]: item for item in result_of(everything())["risks"]}
    assert risks["experiment e1"]["status"] == "open"
    waived = risks["experiment e7"]
    assert waived["status"] == "deviation-approved"
    facts = {item["name"]: item["value"] for item in waived["props"]}
    assert facts["waived-until"] == "2027-03-31"
    assert facts["waived-because"].startswith("not today")


def test_a_plan_has_an_item_for_each_problem() -> None:
    def items(report: Report) -> Any:
        return json.loads(text_of("oscal-poam", report))["plan-of-action-and-milestones"]["poam-items"]

    assert len(items(everything())) == 10
    assert [item["title"] for item in items(clean())] == ["Nothing is open"]
    assert "the store cannot be read" in items(stopped())[0]["description"]


@pytest.mark.parametrize("name", KINDS)
def test_those_of_the_demo_store(demo_reports: dict[str, Path], name: str) -> None:
    assert is_valid(demo_reports[name])
