"""MOD006 and TRC001: what was begun and not brought to its end, and files of traces without a row."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from living import HOUR, ago, silent, traced
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelStatus, TraceState
from repairs import findings, notes, plan_for, unfixed, verdict
from stores import Lab

DAY = 24 * HOUR


def half_made(lab: Lab, days: float, *, home: str = "0", run_id: str | None = None, failed: bool = False) -> str:
    """A logged model without files whose row says that nothing happened to it for some days."""
    model = lab.client.create_logged_model(home, name="halfway", source_run_id=run_id).model_id
    if failed:
        lab.client.finalize_logged_model(model, LoggedModelStatus.FAILED)
    dated(lab, model, days)
    return str(model)


def dated(lab: Lab, model: str, days: float) -> None:
    lab.sql(
        "UPDATE logged_models SET creation_timestamp_ms = ?, last_updated_timestamp_ms = ? WHERE model_id = ?",
        ago(24 * days),
        ago(24 * days),
        model,
    )


def failed_version(lab: Lab, name: str, days: float, status: str = "FAILED_REGISTRATION") -> None:
    lab.sql(
        "UPDATE model_versions SET status = ?, creation_time = ?, last_updated_time = ? WHERE name = ?",
        status,
        ago(24 * days),
        ago(24 * days),
        name,
    )


def test_mod006_what_is_ready_or_fresh(lab: Lab) -> None:
    run_id = lab.run("0")
    model = lab.model("0", run_id)
    lab.registered("churn", f"models:/{model}")
    lab.registered("fresh", f"models:/{model}", alias="champion")
    failed_version(lab, "fresh", 2)
    lab.client.register_prompt("greeting", "Hello {{name}}")
    failed_version(lab, "greeting", 40)
    for days in (0, 2):
        half_made(lab, days)
        half_made(lab, days, failed=True)
    lab.client.delete_logged_model(half_made(lab, 40))
    assert findings(lab, "MOD006") == []
    told = [note for note in notes(lab, "MOD006", "") if "fresh version 1" in note]
    assert len(told) == 1
    assert "FAILED_REGISTRATION" in told[0]
    assert told[0].endswith("it still loads; alias champion leads to it")


def test_mod006_what_is_half_made_for_days(lab: Lab) -> None:
    run_id = lab.run("0")
    pending, failed = half_made(lab, 40, run_id=run_id), half_made(lab, 4.5, failed=True)
    undated = half_made(lab, 5)
    lab.sql(
        "UPDATE logged_models SET creation_timestamp_ms = 0, last_updated_timestamp_ms = 0 WHERE model_id = ?", undated
    )
    found = {finding.entity.key: (finding.message, finding.observed) for finding in findings(lab, "MOD006")}
    assert found == {
        pending: ("half made for 40 days", "PENDING; there is no model to load"),
        failed: ("half made for 4 days", "FAILED; there is no model to load"),
        undated: ("half made, and nothing of it is dated", "PENDING; there is no model to load"),
    }
    plan = plan_for(lab, "MOD006")
    assert plan.changes == ()
    assert all(
        f'delete_logged_model("{refusal.finding.entity.key}")' in refusal.reason for refusal in unfixed(plan, "MOD006")
    )


def test_mod006_what_still_loads_is_said_to(lab: Lab) -> None:
    """MLflow looks at no status when it loads."""
    run_id = lab.run("0")
    model = lab.model("0", run_id)
    lab.registered("churn", f"models:/{model}", alias="champion")
    failed_version(lab, "churn", 40)
    broken = lab.model("0", run_id)
    lab.registered("churn", f"models:/{broken}", alias="next")
    lab.sql("UPDATE logged_models SET status = 3 WHERE model_id = ?", broken)
    dated(lab, broken, 10)
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": lab.uri}):
        for uri in ("models:/churn@champion", f"models:/{broken}"):
            assert "MLmodel" in os.listdir(download_artifacts(uri, tracking_uri=lab.uri))
    found = {finding.entity.key: finding.observed for finding in findings(lab, "MOD006")}
    assert found == {
        "churn/1": "FAILED_REGISTRATION; it still loads; alias champion leads to it",
        # A version may be READY whose model is not.
        broken: "FAILED; it still loads; model_version churn version 2 leads to it",
    }
    failed_version(lab, "churn", 0, status="READY")
    (lab.location_of(broken) / "model.pkl").unlink()
    assert "FAILED; its model is not complete: missing: model.pkl" in findings(lab, "MOD006")[0].observed
    lab.sql("UPDATE logged_models SET artifact_location = 'gs://bucket/model' WHERE model_id = ?", broken)
    assert "whether it loads is not known" in findings(lab, "MOD006")[0].observed


def test_mod006_what_a_run_is_making_is_alive(lab: Lab) -> None:
    """A search registers its model first and trains for a week."""
    working, silent_one = silent(lab, hours=24 * 8), silent(lab, hours=24 * 8)
    lab.client.log_metric(working, "auc", 0.5, timestamp=ago(1))
    pending, left = half_made(lab, 8, run_id=working), half_made(lab, 8, run_id=silent_one)
    failed = half_made(lab, 8, run_id=working, failed=True)
    assert {finding.entity.key for finding in findings(lab, "MOD006")} == {left, failed}
    (note,) = notes(lab, "MOD006", "")
    assert "halfway is PENDING and being made: " in note
    assert f"run {working}, 20" in note
    assert pending in {item.ref.key for item in lab.read(artifacts=False).half_made}


def test_mod006_what_went_with_its_experiment_is_nobodys_business(lab: Lab) -> None:
    home = lab.experiment("gone")
    half_made(lab, 40, home=home)
    lab.client.delete_experiment(home)
    assert findings(lab, "MOD006") == []


def test_mod006_the_settings_say_how_long(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(models={"half_made_max_days": 30})
    half_made(lab, 20)
    assert findings(lab, "MOD006") == []
    half_made(lab, 40)
    assert [finding.expected for finding in findings(lab, "MOD006")] == ["READY within 30 days (the settings)"]


def with_files(lab: Lab, trace: str, home: str = "0") -> Path:
    """The files of a trace, where MLflow before 3.7 puts its spans and any version its attachments."""
    path = lab.mlruns / home / "traces" / trace / "artifacts" / "traces.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"spans": []}')
    return path


def test_trc001_what_ended_or_is_at_work(lab: Lab) -> None:
    with_files(lab, traced(lab, "0", "", ago(100)))
    traced(lab, "0", "", ago(1), TraceState.IN_PROGRESS)
    traced(lab, "0", "", ago(100), TraceState.ERROR)
    said = verdict(lab, "TRC001", "")
    assert (said.findings, said.unevaluated) == ((), ())


def test_trc001_in_progress_for_hours(lab: Lab) -> None:
    app, gone = lab.experiment("app"), lab.experiment("gone")
    first = traced(lab, app, "", ago(100), TraceState.IN_PROGRESS)
    more = [traced(lab, app, "", ago(30), TraceState.IN_PROGRESS) for _ in range(2)]
    traced(lab, "0", "", ago(30), TraceState.IN_PROGRESS)
    traced(lab, gone, "", ago(30), TraceState.IN_PROGRESS)
    lab.client.delete_experiment(gone)
    found = {finding.entity.key: finding for finding in findings(lab, "TRC001")}
    assert {key: item.message for key, item in found.items()} == {
        app: "3 traces in progress for more than 24 hours",
        "0": "1 trace in progress for more than 24 hours",
    }
    assert found[app].observed.endswith(f"such as {min(first, *more)}")
    assert plan_for(lab, "TRC001").changes == ()


def test_trc001_files_that_deleting_a_trace_leaves(lab: Lab) -> None:
    app = lab.experiment("app")
    kept, deleted = (traced(lab, app, "", ago(100)) for _ in range(2))
    for trace in (kept, deleted):
        with_files(lab, trace, app)
    assert findings(lab, "TRC001") == []
    lab.client.delete_traces(app, trace_ids=[deleted])
    assert (lab.mlruns / app / "traces" / deleted).is_dir(), "MLflow takes the row alone"
    assert "restored from a backup" in unfixed(plan_for(lab, "TRC001"), "TRC001")[0].reason
    (found,) = findings(lab, "TRC001")
    assert (found.code, found.entity.key) == ("files-without-row", app)
    assert found.observed == f"1 folder with 1 file, 13 bytes, in mlruns/{app}/traces, such as {deleted}"
    aside = lab.mlruns / ".quarantine" / "20250601T000000Z-abcdef" / app / "traces"
    aside.mkdir(parents=True)
    shutil.move(lab.mlruns / app / "traces" / deleted, aside)
    assert findings(lab, "TRC001") == [], "what is in quarantine was seen to"


@pytest.mark.parametrize("other", ["a backup knows it", "a database that cannot be read"])
def test_trc001_files_that_another_store_may_own(lab: Lab, other: str) -> None:
    trace = traced(lab, "0", "", ago(100))
    with_files(lab, trace)
    shutil.copy(lab.database, lab.folder / "other.db")
    lab.client.delete_traces("0", trace_ids=[trace])
    if other == "a database that cannot be read":
        (lab.folder / "other.db").write_bytes(lab.database.read_bytes()[:100] + b"\xff" * 5000)
    said = verdict(lab, "TRC001", "")
    assert said.findings == ()
    (unevaluated,) = said.unevaluated
    assert f"such as {trace}" in unevaluated.reason
    assert "other.db" in unevaluated.reason


def test_trc001_where_no_single_trace_is_asked_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As through a tracking server."""
    with_files(lab, traced(lab, "0", "", ago(100)))
    monkeypatch.setattr(type(lab.store.backend), "known_traces", lambda *_: None)
    said = verdict(lab, "TRC001", "")
    assert (said.findings, len(said.unevaluated)) == ((), 1)


def test_trc001_where_the_folder_was_not_looked_at(lab: Lab) -> None:
    app = lab.experiment("app")
    traced(lab, app, "", ago(100))
    lab.sql("UPDATE experiments SET artifact_location = 'gs://bucket/app' WHERE experiment_id = ?", int(app))
    said = verdict(lab, "TRC001", "")
    assert [(item.code, item.entity.key) for item in said.unevaluated] == [("not-looked-at", app)]
