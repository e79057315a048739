"""check_run: one run is judged as if it were in production, by the rules of an audit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import mlflow
import pytest
from gates import POLICIES, Gate, state
from stores import Lab

from mlflow_compliance import RunReport, check_run
from mlflow_compliance.audit.results import Result
from mlflow_compliance.errors import ComplianceError, StoreError

REQUIRED = """
[products.production]
required_params = ["depth"]
required_metrics = ["auc"]
required_tags = ["description"]
required_artifacts = ["plots/roc.png"]
"""
PNG = {"plots/roc.png": b"\x89PNG" * 20}


def found_in(report: RunReport) -> dict[str, str]:
    """Rule and code -> the fingerprint of its finding."""
    return {f"{result.policy} {finding.code}": finding.fingerprint for result, finding in report.findings}


def outcomes(report: RunReport) -> dict[str, str]:
    return {result.policy: result.outcome for result in report.results}


@pytest.fixture
def delivery(lab: Lab, gate: Gate) -> str:
    """Id of the product's experiment, which has a production run already."""
    gate.settings(lab.uri, REQUIRED)
    experiment = lab.experiment("credit_delivery")
    lab.run(experiment, "in force", stage="production")
    return experiment


def test_what_a_run_lacks_is_what_an_audit_would_say(gate: Gate, lab: Lab, delivery: str) -> None:
    run_id = lab.run(delivery, "candidate", files=PNG)
    before = state(lab.folder)
    report = check_run(run_id, tracking_uri=lab.uri)
    assert state(lab.folder) == before
    found = found_in(report)
    assert found.keys() == {"PRD001 missing", "PRD002 missing", "PRD003 missing", "MOD001 no-model", "MOD004 no-model"}
    assert not report.ok
    assert {finding.name for _, finding in report.findings if finding.kind == "run"} == {"candidate"}
    assert outcomes(report)["PRD004"] == "passed"
    # The same run in production: an audit has the same findings, by the same fingerprints.
    for run in lab.runs(delivery):
        lab.client.delete_tag(run.info.run_id, "stage") if "stage" in run.data.tags else None
    lab.client.set_tag(run_id, "stage", "production")
    gate("--compliance-report=json:audit.json", "--compliance-rules=PRD00*,MOD001,MOD004", rules=[POLICIES])
    results = [Result.of(item) for item in json.loads((gate.folder / "audit.json").read_text())["results"]]
    told = {f"{item.policy} {each.code}": each.fingerprint for item in results for each in item.findings}
    assert found.items() <= told.items()


def test_a_run_that_has_all_is_ok(lab: Lab, delivery: str) -> None:
    run_id = lab.run(delivery, "candidate", files=PNG, metrics={"auc": 0.7}, description="why")
    lab.client.log_param(run_id, "depth", "3")
    report = check_run(run_id, tracking_uri=lab.uri)
    assert {result.policy for result in report.results if result.policy.startswith("PRD") and result.fails} == set()
    assert {outcomes(report)[f"PRD00{number}"] for number in range(1, 5)} == {"passed"}


def test_only_the_rules_of_its_experiment_are_asked_of_another_one(lab: Lab, gate: Gate, delivery: str) -> None:
    del delivery
    run_id = lab.run(lab.experiment("fraud_trials"), "other", status="RUNNING")
    report = check_run(run_id, tracking_uri=lab.uri)
    assert found_in(report).keys() == {"EXP003 unclassified", "RUN001 stuck"}
    assert "belongs to no product" in str(report)
    as_product = check_run(run_id, tracking_uri=lab.uri, product="credit")
    assert "PRD001 missing" in found_in(as_product)
    with pytest.raises(ComplianceError, match="the settings name no product 'x': they name credit"):
        check_run(run_id, tracking_uri=lab.uri, product="x")


def test_production_by_alias_is_no_hindrance(lab: Lab, gate: Gate, delivery: str) -> None:
    text = (gate.folder / "compliance.toml").read_text()
    text = text.replace('name = "credit"\n', 'name = "credit"\nproduction_by = "alias"\n')
    (gate.folder / "compliance.toml").write_text(f'{text}registered_model = "credit"\n')
    report = check_run(lab.run(delivery, "candidate"), tracking_uri=lab.uri)
    assert {"PRD001 missing", "MOD001 no-model"} <= found_in(report).keys()


def test_what_is_waived_or_switched_off_fails_nothing(lab: Lab, gate: Gate, delivery: str) -> None:
    waiver = '[[waivers]]\npolicy = "PRD*"\nentity = "*"\nreason = "r"\nowner = "o"\nexpires = 2999-01-01\n'
    off = "".join(f"[policies.{rule}]\nenabled = false\n" for rule in ("MOD001", "MOD004"))
    gate.settings(lab.uri, REQUIRED + waiver + off)
    report = check_run(lab.run(delivery, "candidate"), tracking_uri=lab.uri)
    assert report.ok
    assert outcomes(report)["PRD001"] == "waived"
    assert "MOD001" not in outcomes(report)


@pytest.fixture
def told_to_mlflow(lab: Lab) -> Iterator[str]:
    mlflow.set_tracking_uri(lab.uri)
    yield lab.uri
    # None, and not what it was: one that is set wins over the environment, in which other tests name their stores.
    mlflow.set_tracking_uri(None)


def test_the_store_is_the_one_that_mlflow_uses(lab: Lab, gate: Gate, delivery: str, told_to_mlflow: str) -> None:
    run_id = lab.run(delivery, "candidate")
    gate.settings("sqlite:////no/such/place.db")  # what the script wrote to counts, as it does for MLflow
    assert check_run(run_id).summary.uri == told_to_mlflow
    with pytest.raises(StoreError, match=r"there is no run 'x\?y' in sqlite"):
        check_run("x?y")


def test_names_come_to_life_nowhere(lab: Lab, delivery: str) -> None:
    report = check_run(lab.run(delivery, "<b>bold\x1b[31m\u202e"), tracking_uri=lab.uri)
    text, html = str(report), report._repr_html_()
    assert text.startswith("FAIL: run <b>bold\\x1b[31m\\u202e (")
    assert all(line.isprintable() for line in text.splitlines())
    assert "<b>bold" not in html
    assert html.count("<tr>") == 1 + len(report.findings)


def test_a_report_of_a_run_stays_one(lab: Lab, delivery: str) -> None:
    report = check_run(lab.run(delivery, "candidate"), tracking_uri=lab.uri)
    assert isinstance(replace(report, results=report.results[:1]), RunReport)


def test_importing_the_package_imports_nothing_of_it() -> None:
    line = "import sys, mlflow_compliance; print([n for n in ('mlflow', 'pydantic', 'sqlalchemy') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout == "[]\n"
