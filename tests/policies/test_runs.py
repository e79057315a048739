"""RUN001: a run that says RUNNING for too long."""

from __future__ import annotations

import time

from repairs import carry_out, findings, plan_for, refusals
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
    assert done.unlike == []
    ends = {run.info.run_name: (run.info.status, run.info.end_time) for run in lab.runs("0")}
    assert ends == {"silent": ("KILLED", START), "logged": ("KILLED", START + 1000)}
    assert findings(lab, "RUN001") == []


def test_run001_a_run_without_any_date_is_for_people(lab: Lab) -> None:
    run_id = lab.run("0", status="RUNNING")
    lab.sql("UPDATE runs SET start_time = NULL WHERE run_uuid = ?", run_id)
    assert "no end can be given" in refusals(plan_for(lab), "RUN001")[0].reason
