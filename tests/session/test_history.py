"""[history] folder: each audit leaves its report there, and later ones tell what was."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from gates import POLICIES, RULES, Gate, told
from stores import Lab

from mlflow_compliance.audit.results import iso

SCHEMA = json.loads(resources.files("mlflow_compliance").joinpath("schemas/report.schema.json").read_text("utf-8"))
FOLDER = '[history]\nfolder = "audits"\n'
FLAGS = ("--compliance-report=json:audit.json",)


@pytest.fixture
def kept(gate: Gate, messy: Lab) -> Lab:
    gate.settings(messy.uri, FOLDER)
    return messy


def audit(gate: Gate, *flags: str, process: bool = False, rules: Any = (POLICIES,)) -> Any:
    told(gate(*FLAGS, *flags, rules=rules, process=process))
    return json.loads((gate.folder / "audit.json").read_text())


def names(gate: Gate) -> list[str]:
    return sorted(os.listdir(gate.folder / "audits"))


def test_each_audit_is_kept_and_told_by_the_next(gate: Gate, kept: Lab) -> None:
    first = audit(gate)
    assert first["summary"]["history"] == []
    (name,) = names(gate)
    assert name.endswith("Z-fail.json")
    text = (gate.folder / "audits" / name).read_bytes()
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    kept.client.set_terminated(next(run for run in kept.runs("4") if run.info.status == "RUNNING").info.run_id)
    (gate.folder / "audits" / "20200101T000000Z-fail.json").write_text("{}")
    (gate.folder / "audits" / "notes.json").write_text("{}")
    second = audit(gate)
    (point,) = second["summary"]["history"]
    assert (point["ok"], point["at"]) == (False, iso(first["summary"]["read_at"]))
    assert point["failing"] == first["counts"]["failing"]
    assert point["production"].keys() == {"credit"}
    before = {finding["fingerprint"] for item in first["results"] for finding in item["findings"]}
    now = {finding["fingerprint"] for item in second["results"] for finding in item["findings"]}
    assert set(point["fingerprints"]) == before
    assert now < before
    assert ["20200101T000000Z-fail.json is no report" in line for line in second["summary"]["warnings"]] == [True]
    assert len(names(gate)) == 4
    assert (gate.folder / "audits" / name).read_bytes() == text
    # Points of before the last one carry no fingerprints; a file does not carry those that came before it.
    third = audit(gate)
    assert [item["fingerprints"] is None for item in third["summary"]["history"]] == [True, False]
    assert all(json.loads(path.read_text()).get("summary", {}).get("history", []) == [] for path in _files(gate))


def _files(gate: Gate) -> list[Path]:
    return list((gate.folder / "audits").glob("*.json"))


@pytest.mark.usefixtures("kept")
def test_partial_audits_are_marked_and_no_points(gate: Gate) -> None:
    assert audit(gate, "--compliance-rules=EXP002", rules=RULES)["partial"]
    audit(gate, "--compliance-rules=EXP002", rules=RULES)
    assert all("-fail-partial" in name for name in names(gate))
    assert len(names(gate)) == 2
    assert audit(gate, "--compliance-rules=EXP002", "-n", "2", process=True)["summary"]["history"] == []
    assert len(names(gate)) == 3  # through workers it is kept once


def test_the_history_of_another_store_is_not_told(gate: Gate, kept: Lab, make_lab: Any) -> None:
    audit(gate)
    other = make_lab()
    other.experiment("credit_delivery")
    gate.settings(other.uri, FOLDER)
    assert audit(gate)["summary"]["history"] == []
    gate.settings(kept.uri, FOLDER)
    assert len(audit(gate)["summary"]["history"]) == 1


@pytest.mark.usefixtures("messy")
def test_without_the_setting_nothing_is_kept(gate: Gate) -> None:
    before = {*os.listdir(gate.folder)}
    audit(gate, "--compliance-rules=EXP002", rules=RULES)
    assert {*os.listdir(gate.folder)} - before == {"audit.json"}


def test_a_folder_that_cannot_be_is_told(gate: Gate, messy: Lab) -> None:
    (gate.folder / "audits").write_text("a file")
    gate.settings(messy.uri, FOLDER)
    result = gate("--compliance-rules=STO003")
    assert (result.ret, "ERROR: [history] folder: " in told(result)) == (4, True)


def test_an_audit_that_stops_leaves_none(gate: Gate) -> None:
    gate.settings(f"sqlite:///{gate.folder}/gone.db", FOLDER)
    assert gate().ret == 4
    assert not (gate.folder / "audits").exists()
