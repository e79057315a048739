"""RUN001: a run that says RUNNING for too long."""

from __future__ import annotations

import time
from collections.abc import Callable

from repairs import carry_out, findings, plan_for, take_back, unfixed
from stores import START, Lab


def test_run001_runs_that_ended_or_are_at_work(lab: Lab) -> None:
    lab.run("0")
    lab.run("0", "at work", start=int(time.time() * 1000), status="RUNNING")
    still_logging = lab.run("0", "began long ago and still logs", status="RUNNING")
    lab.client.log_metric(still_logging, "auc", 0.5)
    assert findings(lab, "RUN001") == []


def test_run001_a_stuck_run_is_killed_at_its_last_known_time(lab: Lab) -> None:
    silent = lab.run("0", "silent", status="RUNNING")
    logged = lab.run("0", "logged", status="RUNNING", metrics={"auc": 0.5})
    assert {finding.entity.key for finding in findings(lab, "RUN001")} == {silent, logged}
    done = carry_out(lab, plan_for(lab, "RUN001"))
    assert done.differing == []
    ends = {run.info.run_name: (run.info.status, run.info.end_time) for run in lab.runs("0")}
    assert ends == {"silent": ("KILLED", START), "logged": ("KILLED", START + 1000)}
    assert findings(lab, "RUN001") == []


def test_run001_a_run_without_any_date_is_for_people(lab: Lab) -> None:
    run_id = lab.run("0", status="RUNNING")
    lab.sql("UPDATE runs SET start_time = NULL WHERE run_uuid = ?", run_id)
    assert [finding.observed for finding in findings(lab, "RUN001")] == ["nothing about it is dated"]
    plan = plan_for(lab, "RUN001")
    assert plan.changes == ()
    assert "no end can be given" in unfixed(plan, "RUN001")[0].reason


def test_run001_a_run_without_a_start_ends_when_it_last_logged(lab: Lab) -> None:
    run_id = lab.run("0", status="RUNNING", metrics={"auc": 0.5})
    lab.sql("UPDATE runs SET start_time = NULL WHERE run_uuid = ?", run_id)
    done = carry_out(lab, plan_for(lab, "RUN001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    run = lab.read([run_id]).runs[run_id]  # MLflow's own client cannot read it
    assert (run.status, run.start_time, run.end_time) == ("KILLED", None, START + 1000)
    take_back(lab, done.lines)
    assert lab.read([run_id]).runs[run_id].status == "RUNNING"


def test_run002_one_production_run_that_finished(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    lab.run(key, stage="production")
    lab.run(key, "another", stage="superseded")
    assert findings(lab, "RUN002") == []


def test_run002_none_or_one_that_did_not_finish(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    assert [finding.message for finding in findings(lab, "RUN002")] == ["no run is marked as production"]
    lab.run(key, status="FAILED", stage="production")
    assert [finding.observed for finding in findings(lab, "RUN002")] == ["FAILED"]


def test_run002_two_production_runs_of_which_none_is_known_to_be_in_force(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    runs = {lab.run(key, name, stage="production") for name in ("one", "two")}
    assert {finding.entity.key for finding in findings(lab, "RUN002")} == runs
    # Nothing says which of them is in force, and there is nothing to build a third one from.
    assert {
        '`model = "models/model.pkl"`' in refusal.reason for refusal in unfixed(plan_for(lab, "RUN002"), "RUN002")
    } == {True}


def test_run002_a_mark_in_an_archived_experiment(lab: Lab) -> None:
    """It is not counted as a production run, and found by everybody who searches for the mark."""
    lab.run(lab.experiment("credit_delivery"), stage="production")
    old = lab.run(lab.experiment("credit_old", lifecycle="archived"), stage="production")
    (found,) = findings(lab, "RUN002")
    assert (found.entity.key, found.message) == (old, "is marked as production in an archived experiment")
    assert "take the mark off the run" in unfixed(plan_for(lab, "RUN002"), "RUN002")[0].reason


def test_run002_keeps_the_run_that_a_repair_built_last(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    old = lab.run(key, "old", stage="production", note="keep me")
    built = {"compliance.built_for": "credit", "compliance.build": "complete"}
    earlier = lab.run(key, "built", stage="production", **built)
    new = lab.run(key, "built again", start=START + 1, stage="production", **built)
    done = carry_out(lab, plan_for(lab, "RUN002"))
    assert (done.differing, findings(lab, "RUN002")) == ([], [])
    tags = {run_id: lab.client.get_run(run_id).data.tags for run_id in (old, earlier, new)}
    assert [tags[run_id]["stage"] for run_id in (old, earlier, new)] == ["superseded", "superseded", "production"]
    assert {tags[run_id]["compliance.superseded_by"] for run_id in (old, earlier)} == {new}
    # What the tag said stays on record.
    assert (tags[old]["compliance.superseded.stage"], tags[old]["note"]) == ("production", "keep me")


def test_run002_a_run_that_counts_for_two_products_is_superseded_for_none(make_lab: Callable[..., Lab]) -> None:
    """Nobody wrote which experiments are whose, so both products cover everything."""
    lab = make_lab(products=[{"name": name, "primary": f"{name}_live"} for name in ("credit", "fraud")])
    built = {"compliance.built_for": "credit", "compliance.build": "complete"}
    lab.run(lab.experiment("credit_live"), "built", stage="production", **built)
    other = lab.run(lab.experiment("fraud_live"), "in force", stage="production")
    plan = plan_for(lab, "RUN002", "EXP001", "MOD001")
    assert plan.changes == ()
    assert any(
        item.finding.entity.key == other and "counts as production of credit, fraud" in item.reason
        for item in unfixed(plan, "RUN002")
    )
