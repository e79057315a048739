"""The report as JSON keeps its schema, whatever is in it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from reports import clean, everything, stopped

from mlflow_compliance.audit.results import Report, Result
from mlflow_compliance.report.formats import text_of

SCHEMA = json.loads(resources.files("mlflow_compliance").joinpath("schemas/report.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize(("report", "ok"), [(everything(), False), (clean(), True), (stopped(), False)])
def test_it_keeps_the_schema_and_loses_nothing(report: Report, ok: bool) -> None:
    document = json.loads(text_of("json", report))
    VALIDATOR.validate(document)
    assert document["ok"] is ok
    assert tuple(map(Result.of, document["results"])) == report.results


def test_the_schema_refuses_what_is_none() -> None:
    document = json.loads(text_of("json", everything()))
    document["results"][0]["findings"][0]["status"] = "fine"
    assert not VALIDATOR.is_valid(document)


def test_that_of_the_demo_store(demo_reports: dict[str, Path]) -> None:
    document = json.loads(demo_reports["json"].read_text())
    VALIDATOR.validate(document)
    assert {"critical", "high"} <= document["counts"]["failing"].keys()
