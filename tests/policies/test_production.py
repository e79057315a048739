"""PRD001 to PRD007: what a production run carries, and whether its numbers are true."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gates import CHECKOUT, POLICIES, Gate
from mlflow.entities import Metric, Param
from producing import PRODUCTION, THRESHOLD, copied, lay_out, settings_for
from repairs import EVERY, carry_out, findings, plan_for, unfixed, verdict
from stores import CREDIT, START, Lab

from mlflow_compliance.rules.outcome import Outcome

REAL = CHECKOUT.parent / "shared" / "data" / "credit_scoring" / "static_model_predictions.parquet"
LabMaker = Callable[..., Lab]


@pytest.fixture
def whole(produced_built: Lab, tmp_path: Path) -> Lab:
    """A store with a production run that a repair built: it keeps every rule."""
    return copied(produced_built, tmp_path / "store")


def current(lab: Lab) -> Any:
    """The production run, as MLflow gives it."""
    (run,) = [run for run in lab.runs("1") if run.data.tags.get("stage") == "production"]
    return run


def test_a_whole_run_keeps_every_rule(whole: Lab) -> None:
    assert [str(finding) for finding in findings(whole, EVERY)] == []


@pytest.mark.parametrize(
    ("rule", "kind", "name"),
    [
        ("PRD001", "params", "max_depth"),
        ("PRD001", "params", "optimal_threshold"),
        ("PRD002", "metrics", "roc_auc"),
        ("PRD003", "tags", "status"),
        ("PRD004", "artifacts", "model.pkl"),
        ("PRD004", "artifacts", "predictions/*"),
        ("PRD004", "artifacts", "model"),
    ],
)
def test_a_required_name_that_is_missing(whole: Lab, rule: str, kind: str, name: str) -> None:
    run = current(whole)
    table = {"params": "params", "metrics": "latest_metrics", "tags": "tags"}.get(kind)
    if table:
        whole.sql(f"DELETE FROM {table} WHERE run_uuid = ? AND key = ?", run.info.run_id, name)
        if kind == "metrics":
            whole.sql("DELETE FROM metrics WHERE run_uuid = ? AND key = ?", run.info.run_id, name)
    else:
        folder = Path(run.info.artifact_uri)
        for path in folder.glob(name) if name != "model" else (folder.parents[1] / "models").rglob("*.*"):
            path.unlink() if path.is_file() else None
        for path in (folder.parents[1] / "models").rglob("MLmodel") if name == "model" else ():
            path.unlink()
    found = findings(whole, rule)
    assert [(finding.entity.key, finding.message) for finding in found] == [
        (run.info.run_id, f"has no {kind[:-1]} {name}")
    ]
    if kind == "tags":  # all of them are mended the same way, and building takes seconds
        done = carry_out(whole, plan_for(whole, rule, "RUN002"))
        assert (done.differing, done.outcome.failed, findings(whole, rule)) == ([], [], [])
        assert current(whole).info.run_id != run.info.run_id
        assert whole.client.get_run(run.info.run_id).data.tags["compliance.superseded_by"] == current(whole).info.run_id


def test_an_empty_artifact_is_none(whole: Lab) -> None:
    (Path(current(whole).info.artifact_uri) / "model.pkl").write_bytes(b"")
    assert [finding.message for finding in findings(whole, "PRD004")] == ["has no artifact model.pkl"]


def test_a_name_that_nothing_gives_is_for_people(make_lab: LabMaker) -> None:
    lab = make_lab(**settings_for(required_metrics=["lift"]))
    lab.run(lab.experiment("credit_delivery"), stage="production")
    assert [finding.message for finding in findings(lab, "PRD002")] == ["has no metric lift"]
    assert "[products.production] has no `run_name" in unfixed(plan_for(lab, "PRD002"), "PRD002")[0].reason


def test_without_a_production_run_nothing_is_carried(make_lab: LabMaker) -> None:
    lab = make_lab(
        **settings_for(required_params=["a"], required_metrics=["b"], required_tags=["c"], required_artifacts=["d"])
    )
    lab.experiment("credit_delivery")
    assert len(findings(lab, "PRD001", "PRD002", "PRD003", "PRD004")) == 4


def metrics(lab: Lab, run_id: str, **values: float) -> None:
    lab.client.log_batch(run_id, metrics=[Metric(key, value, START + 10**11, 1) for key, value in values.items()])


def test_prd005_a_number_that_does_not_follow(whole: Lab) -> None:
    run = current(whole)
    metrics(whole, run.info.run_id, roc_auc=0.9)
    (found,) = findings(whole, "PRD005")
    assert found.message == "metric roc_auc does not follow from its predictions"
    assert found.observed == "0.9"
    assert found.expected == (
        f"{run.data.metrics['roc_auc']:.6g} from predictions.parquet (600 rows) at threshold {THRESHOLD:g}, "
        "within 0.001 (built in)"
    )


def test_prd005_numbers_that_contradict_one_another_need_no_predictions(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    run_id = lab.run(key, stage="production", metrics={"precision": 0.192, "recall": 0.671, "f1": 0.299})
    assert findings(lab, "PRD005") == []
    metrics(lab, run_id, f1=0.35)
    (found,) = findings(lab, "PRD005")
    assert found.observed.startswith("f1 is 0.35 and follows as 0.29")


def test_prd005_the_number_that_counts_is_the_one_that_mlflow_shows(whole: Lab) -> None:
    """That of the highest step, whatever was logged after it."""
    run = current(whole)
    shown = run.data.metrics["roc_auc"]
    whole.client.log_metric(run.info.run_id, "roc_auc", 0.99, step=10)
    whole.client.log_metric(run.info.run_id, "roc_auc", shown, step=0)
    assert current(whole).data.metrics["roc_auc"] == 0.99
    assert [finding.observed for finding in findings(whole, "PRD005") if "roc_auc" in finding.message] == ["0.99"]


@pytest.mark.parametrize(("value", "observed"), [(math.inf, "infinity"), (-math.inf, "infinity"), (math.nan, "NaN")])
def test_prd002_a_metric_that_is_no_number(make_lab: Callable[..., Lab], value: float, observed: str) -> None:
    lab = make_lab(products=[{**CREDIT, "production": {"required_metrics": ["auc"]}}])
    lab.run(lab.experiment("credit_delivery"), stage="production", metrics={"auc": value})
    assert [finding.observed for finding in findings(lab, "PRD002")] == [observed]


def test_prd005_predictions_that_are_not_those_on_record(whole: Lab) -> None:
    path = Path(current(whole).info.artifact_uri) / "predictions" / "predictions.parquet"
    import pandas as pd

    frame = pd.read_parquet(path)
    frame["PROBABILITY"] = 1 - frame["PROBABILITY"]
    frame.to_parquet(path)
    (found,) = findings(whole, "PRD005")
    assert "is not the file on record" in found.observed


@pytest.mark.skipif(not REAL.exists(), reason="the shared folder with real predictions is not there")
@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ({"accuracy": 0.712, "roc_auc": 0.812}, pytest.ExitCode.TESTS_FAILED),
        ({"accuracy": 0.7459, "roc_auc": 0.7839, "business_cost": 151536.0}, pytest.ExitCode.OK),
    ],
)
def test_prd005_real_predictions_through_the_command_line(
    lab: Lab, gate: Gate, metrics: dict[str, float], code: pytest.ExitCode
) -> None:
    run_id = lab.run(lab.experiment("credit_delivery"), "real", stage="production", metrics=metrics)
    lab.client.log_param(run_id, "optimal_threshold", "0.48")
    lab.client.log_artifact(run_id, str(REAL), "predictions")
    gate.settings(lab.uri, f'[products.production]\npredictions = "{REAL.name}"\nfalse_negative_cost = 10\n')
    done = gate("--html=audit.html", "--self-contained-html", rules=[POLICIES / "test_production.py"])
    text = done.stdout.str()
    if code:
        # A run with nothing else breaks other rules too: what is asked is that both numbers, said and true, are shown.
        assert done.ret == code
        report = (gate.folder / "audit.html").read_text()
        for said, true in (("0.712", "0.74586"), ("0.812", "0.783854")):
            assert said in text
            assert true in text
            assert said in report
            assert true in report
    else:
        assert not [line for line in text.splitlines() if line.startswith(" PRD005")]


def test_prd005_rounding_is_no_contradiction(whole: Lab) -> None:
    run = current(whole)
    ratios = {
        key: round(value, 3)
        for key, value in run.data.metrics.items()
        if key in ("accuracy", "precision", "recall", "f1", "roc_auc")
    }
    metrics(whole, run.info.run_id, **ratios)
    assert findings(whole, "PRD005") == []


def test_prd006_two_thresholds(whole: Lab) -> None:
    other = whole.run("1", "earlier work")
    whole.client.log_batch(other, params=[Param("optimal_threshold", "0.338")])
    (found,) = findings(whole, "PRD006")
    assert found.message == "threshold has 2 values"
    assert f"0.338 in param optimal_threshold of run {other}" in found.observed
    assert found.expected == f"one value under optimal_threshold, threshold (built in), {THRESHOLD} by the settings"
    done = carry_out(whole, plan_for(whole, "PRD006"))
    assert (done.differing, findings(whole, "PRD006")) == ([], [])
    kept = whole.client.get_run(other).data
    assert kept.params == {"optimal_threshold": "0.338"}
    assert kept.tags["compliance.superseded_by"] == current(whole).info.run_id


def test_prd006_without_a_decision_it_is_a_finding_and_not_a_guess(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    for name, value in (("one", "0.338"), ("two", "0.480"), ("three", "0.48")):
        lab.client.log_batch(lab.run(key, name), params=[Param("optimal_threshold", value)])
    (found,) = findings(lab, "PRD006")
    assert found.message == "threshold has 2 values"
    assert "nobody has decided" in unfixed(plan_for(lab, "PRD006"), "PRD006")[0].reason


def test_prd006_sees_the_registry(whole: Lab) -> None:
    whole.client.set_model_version_tag("credit", "1", "threshold", "0.9")
    (found,) = findings(whole, "PRD006")
    assert "0.9 in tag threshold of model_version credit version 1" in found.observed


@pytest.mark.parametrize(("key", "value"), [("max_depth", "9"), ("n_features", "11")])
def test_prd007_a_param_that_is_not_the_models(whole: Lab, key: str, value: str) -> None:
    whole.sql("UPDATE params SET value = ? WHERE key = ? AND run_uuid = ?", value, key, current(whole).info.run_id)
    (found,) = findings(whole, "PRD007")
    assert found.message == f"{key} differs from the model on the run"
    assert found.observed == value


def test_prd007_metadata_that_is_not_the_models(whole: Lab) -> None:
    path = Path(current(whole).info.artifact_uri) / "model_metadata.json"
    document = json.loads(path.read_text())
    document["features"][0], document["features"][1] = document["features"][1], document["features"][0]
    document["hyperparameters"]["num_leaves"] = "7"
    path.write_text(json.dumps(document))
    assert [finding.message for finding in findings(whole, "PRD007")] == [
        "num_leaves differs from the model in model_metadata.json",
        "feature names differ from the model in model_metadata.json",
    ]


def test_prd007_metadata_that_cannot_be_read(whole: Lab) -> None:
    (Path(current(whole).info.artifact_uri) / "model_metadata.json").write_text("{")
    assert [finding.message for finding in findings(whole, "PRD007")] == ["its model_metadata.json cannot be used"]


def test_prd003_a_description_is_taken_over_from_the_one_that_the_ui_shows(whole: Lab) -> None:
    """As of a run that an earlier version of this program built: no new run is built for it."""
    run = current(whole)
    assert run.data.tags["description"] == run.data.tags["mlflow.note.content"] != ""
    path = whole.folder / "compliance.toml"
    path.write_text(path.read_text().replace('required_tags = ["status"]', 'required_tags = ["status", "description"]'))
    whole.reload()
    whole.client.delete_tag(run.info.run_id, "description")
    assert [finding.message for finding in findings(whole, "PRD003")] == ["has no tag description"]
    plan = plan_for(whole)
    assert [change.describe() for change in plan.changes] == [
        f"set tag description of run {run.info.run_id} to {run.data.tags['mlflow.note.content']!r}"
    ]
    done = carry_out(whole, plan)
    assert (done.differing, done.outcome.failed, findings(whole, "PRD003")) == ([], [], [])
    assert (current(whole).info.run_id, current(whole).data.tags) == (run.info.run_id, run.data.tags)


def test_prd003_wants_a_description_where_the_settings_say_nothing(lab: Lab, gate: Gate) -> None:
    """A tag of spaces alone is none; a run that nothing describes is for people."""
    key = lab.experiment("credit_delivery")
    lab.run(key, "delivery", stage="production", description=" ", **{"mlflow.note.content": "In force since June.\n"})
    gate.settings(lab.uri, '[products.production]\nrun_name = "delivery"\n')
    rules = [POLICIES / "test_production.py", "-k", "PRD003"]
    first = gate(rules=rules)
    assert "has no tag description" in first.stdout.str()
    assert gate("--fix", rules=rules).ret == 0
    (run,) = lab.runs(key)
    assert run.data.tags["description"] == "In force since June.\n"
    for tag in ("description", "mlflow.note.content"):
        lab.client.delete_tag(run.info.run_id, tag)
    again = gate("--fix", rules=rules)
    assert again.ret == pytest.ExitCode.TESTS_FAILED
    assert "0 changes" in again.stdout.str()
    gate.settings(lab.uri, '[products.production]\nrequired_tags = ["stage"]\n')
    assert gate(rules=rules).ret == 0


def test_prd003_another_tag_is_not_made_up_from_the_description(lab: Lab) -> None:
    lab.run(lab.experiment("credit_delivery"), stage="production", **{"mlflow.note.content": "In force."})
    lab.settings = lab.settings.model_validate(settings_for(required_tags=["status"]))
    assert plan_for(lab, "PRD003").changes == ()


def test_nothing_is_built_into_an_experiment_that_is_only_named_like_production(make_lab: LabMaker) -> None:
    """It counts, being the only one, and a built-in pattern changes nothing."""
    lab = make_lab(products=[{"name": "credit", "production": {**PRODUCTION, "features": None}}])
    lay_out(lab.folder)
    lab.run(lab.experiment("credit_production"))
    plan = plan_for(lab, "RUN002", "MOD001")
    assert plan.changes == ()
    assert {"only named like production" in item.reason for item in plan.unfixed} == {True}


def test_prd006_overrules_no_run_of_an_experiment_that_is_only_named_like_production(make_lab: LabMaker) -> None:
    lab = make_lab(
        products=[{"name": "credit", "primary": "credit_delivery", "production": {"decisions": {"threshold": "0.5"}}}]
    )
    run_id = lab.run(lab.experiment("credit_delivery"), stage="production")
    lab.client.log_param(run_id, "threshold", "0.5")
    other = lab.run(lab.experiment("old_production"))
    lab.client.log_param(other, "threshold", "0.3")
    assert len(findings(lab, "PRD006")) == 1
    plan = plan_for(lab, "PRD006")
    assert plan.changes == ()
    assert "only named like production (built in)" in plan.unfixed[0].reason


CSV = "TARGET,PROBABILITY\n0,0.2\n1,0.9\n1,0.4\n0,0.6\n"


@pytest.mark.parametrize(
    ("files", "named", "params", "wanted"),
    [
        ({}, None, {}, Outcome.NOT_APPLICABLE),
        ({}, "gone.csv", {"threshold": "0.5"}, Outcome.NOT_EVALUATED),
        ({"predictions/p.csv": CSV}, None, {"threshold": "0.5"}, Outcome.PASSED),
        ({"predictions/p.csv": CSV}, None, {}, Outcome.NOT_EVALUATED),
        ({"predictions/p.csv": "a,b\n1,2\n"}, None, {"threshold": "0.5"}, Outcome.NOT_EVALUATED),
        ({"predictions.parquet": "PAR1 cut off"}, None, {"threshold": "0.5"}, Outcome.NOT_EVALUATED),
        ({"predictions/p.csv": CSV, "predictions/q.csv": CSV}, None, {"threshold": "0.5"}, Outcome.NOT_EVALUATED),
        ({"predictions/p.csv": CSV}, None, {"threshold": "high"}, Outcome.FAILED),
    ],
)
def test_prd005_says_what_it_rests_on(
    make_lab: LabMaker,
    tmp_path: Path,
    files: dict[str, str],
    named: str | None,
    params: dict[str, str],
    wanted: Outcome,
) -> None:
    """Without predictions there is nothing to judge by; those that are there and cannot be read prove nothing."""
    lab = make_lab(**settings_for(**({"predictions": str(tmp_path / named)} if named else {})))
    contents = {name: text.encode() for name, text in files.items()}
    run_id = lab.run(lab.experiment("credit_delivery"), stage="production", metrics={"auc": 0.712}, files=contents)
    lab.client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
    assert verdict(lab, "PRD005", "credit").outcome == wanted


def test_prd005_finds_a_typed_number_by_predictions_that_only_the_run_knows(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    logged = {"predictions/scored.csv": CSV.encode()}
    run_id = lab.run(key, stage="production", metrics={"accuracy": 0.99}, files=logged)
    lab.client.log_param(run_id, "threshold", "0.5")
    (found,) = findings(lab, "PRD005")
    assert found.expected.startswith("0.5 from scored.csv (4 rows) at threshold 0.5")
