"""What is in production and what each experiment takes, of real stores through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from gates import Gate
from stores import BIG, Lab

from mlflow_compliance.audit.facts import experiments_of, products_of
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.schema import Settings


def summary_of(gate: Gate, *flags: str) -> dict[str, Any]:
    gate("--compliance-report=json:audit.json", *flags)
    found: dict[str, Any] = json.loads((gate.folder / "audit.json").read_text())["summary"]
    return found


def test_bytes_and_repeats_are_those_of_each_experiment(gate: Gate, messy: Lab) -> None:
    summary = summary_of(gate)
    found = {item["name"]: item for item in summary["experiments"]}
    assert list(found) == [
        "Default",
        "credit_delivery",
        "credit_production",
        "test_experiment",
        "credit_selection",
    ]
    selection = found["credit_selection"]
    assert (selection["bytes"], selection["reclaimable"], selection["runs"]) == (2 * len(BIG), len(BIG), 3)
    assert (found["test_experiment"]["bytes"], found["test_experiment"]["reclaimable"]) == (0, 0)
    assert found["credit_production"]["bytes"] > 0
    # What no experiment has is in the total alone: nothing here is.
    assert summary["reclaimable"] == sum(item["reclaimable"] for item in found.values())


def test_where_no_file_was_read_no_bytes_are_told(gate: Gate, messy: Lab) -> None:
    summary = summary_of(gate, "--compliance-metadata-only")
    assert {(item["bytes"], item["reclaimable"]) for item in summary["experiments"]} == {(None, None)}
    assert summary["reclaimable"] is None


def test_the_owner_of_an_experiment_is_who_settings_or_tags_name(lab: Lab) -> None:
    lab.experiment("fraud-lgbm", owner="somebody else")
    lab.experiment("churn", team="crm", owner="  ")
    lab.run(lab.experiment("scratch"))
    settings = Settings.model_validate({"owners": [{"experiments": "fraud-*", "team": "fraud"}]})
    found = {item.name: item.owner for item in experiments_of(Context(lab.read(), settings))}
    assert found == {"Default": "", "fraud-lgbm": "fraud", "churn": "crm", "scratch": ""}


def test_what_files_share_is_counted_once(lab: Lab) -> None:
    """After a repair two paths are one copy: it counts where its first path lies."""
    first, second = lab.experiment("a"), lab.experiment("b")
    for key in (first, second):
        lab.run(key, "run", files={"shap.bin": BIG})
    snapshot = lab.read()
    one, other = sorted(path for path in snapshot.artifacts.files if path.endswith("shap.bin"))
    before = {item.name: (item.bytes, item.reclaimable) for item in experiments_of(Context(snapshot, lab.settings))}
    assert (before["a"], before["b"]) == ((len(BIG), 0), (len(BIG), len(BIG)))
    linked = replace(snapshot, artifacts=snapshot.artifacts.linked(other, one))
    after = {item.name: (item.bytes, item.reclaimable) for item in experiments_of(Context(linked, lab.settings))}
    assert (after["a"], after["b"]) == ((len(BIG), 0), (0, 0))


def test_a_place_that_was_not_looked_at_has_no_bytes(lab: Lab) -> None:
    key = lab.experiment("far")
    lab.run(key, "run")
    lab.sql("UPDATE experiments SET artifact_location = 's3://nobody/far' WHERE experiment_id = ?", key)
    lab.sql("UPDATE runs SET artifact_uri = 's3://nobody/far/x' WHERE experiment_id = ?", key)
    found = {item.name: item.bytes for item in experiments_of(Context(lab.read(), lab.settings))}
    assert found["far"] is None
    assert found["Default"] == 0


def test_production_is_what_programs_load(produced_built: Lab) -> None:
    """The version behind the alias, its run, the threshold in force and the hash that the repair put on record."""
    lab = produced_built
    (product,) = products_of(Context(lab.read(), lab.settings))
    version = lab.client.get_model_version_by_alias(product.registered_model, product.alias)
    run = lab.client.get_run(version.run_id)
    assert (product.version, product.run_id, product.run) == (str(version.version), version.run_id, run.info.run_name)
    assert product.experiment_id == run.info.experiment_id
    assert product.model_sha256 == run.data.tags["compliance.sha256.model"]
    assert datetime.fromisoformat(product.since).timestamp() == run.info.start_time // 1000
    assert product.threshold == "0.4"


def test_without_production_the_facts_are_empty(lab: Lab) -> None:
    lab.experiment("credit_selection")
    (product,) = products_of(Context(lab.read(), lab.settings))
    assert (product.name, product.run_id, product.since, product.version, product.model_sha256) == (
        "credit",
        "",
        "",
        "",
        "",
    )


def test_a_run_that_is_marked_is_found_without_an_alias(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    run = lab.run(key, "champion", stage="production", metrics={"threshold": 0.338})
    (product,) = products_of(Context(lab.read(), lab.settings))
    assert (product.run_id, product.run, product.experiment, product.threshold) == (
        run,
        "champion",
        "credit_delivery",
        "0.338",
    )
    assert product.since.startswith("2025-06")
