"""RET001 and RET002: what must be kept and is deleted, and what is kept longer than the settings say."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from databases import SERVERS
from gates import POLICIES, Gate, told
from living import ago
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput
from places import Guest, Place
from repairs import carry_out, findings, notes, plan_for, take_back, unfixed, verdict
from servers import tracking_server
from stores import CREDIT, START, Lab, there_and_back

from mlflow_compliance.changes import RenameExperiment, RestoreExperiment
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.retention import retained
from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.settings.schema import Settings

LabMaker = Callable[..., Lab]
RULES = [POLICIES / "test_retention.py", POLICIES / "test_experiments.py"]
HOLD = {"experiments": ["fraud"], "reason": "case 7"}
KEPT = """
[retention]
deleted_days = 180
production_years = 10
superseded_years = 10
[[retention.hold]]
experiments = ["credit_scoring_final_delivery", "CREDIT_SCORING_model_selection"]
reason = "case 7"
until = 2099-12-31
"""
COPIED = {"compliance.copy": "complete", "compliance.source_run_id": ""}


def keys(lab: Lab) -> list[tuple[str, str, str]]:
    """Code, kind and key of every finding of RET001."""
    return [(item.code, item.entity.kind, item.entity.key) for item in findings(lab, "RET001")]


def stage(lab: Lab, run_id: str) -> str:
    return str(lab.client.get_run(run_id).info.lifecycle_stage)


def deleted(lab: Lab, home: str, days: float | None = 1, size: int = 100, **tags: str) -> str:
    run_id = lab.run(home, files={"a.bin": os.urandom(size)}, **tags)
    lab.client.delete_run(run_id)
    lab.sql("UPDATE runs SET deleted_time = ? WHERE run_uuid = ?", days and ago(24 * days), run_id)
    return run_id


def mended(lab: Lab, *ids: str) -> list[tuple[str, str, str]]:
    """What RET001 finds after a repair that is taken back and made once more on the way."""
    before = keys(lab)
    done = carry_out(lab, plan_for(lab, *(ids or ("RET001",))))
    assert (done.differing, done.outcome.failed) == ([], [])
    left = keys(lab)
    take_back(lab, done.lines)
    assert keys(lab) == before, "every remedy has an inverse"
    again = carry_out(lab, plan_for(lab, *(ids or ("RET001",))))
    assert (again.differing, again.outcome.failed, keys(lab)) == ([], [], left)
    assert plan_for(lab, *(ids or ("RET001",))).changes == (), "a second repair finds nothing to do"
    return left


def reasons(lab: Lab, policy: str, *ids: str) -> list[str]:
    return [item.reason for item in unfixed(plan_for(lab, *(ids or (policy,))), policy)]


def test_settings_that_say_nothing(lab: Lab) -> None:
    deleted(lab, "0", 1000, stage="production")
    for policy in ("RET001", "RET002"):
        assert verdict(lab, policy, "").outcome is Outcome.NOT_APPLICABLE


def test_a_store_in_order(make_lab: LabMaker) -> None:
    """What is held is there; what is deleted nothing covers, or a repair put it aside."""
    holds = [HOLD, {"runs": ["old", "source"], "reason": "case 8"}, {"models": ["*"], "reason": "case 9"}]
    lab = make_lab(retention={"production_years": 10, "hold": holds})
    home, other, retired = lab.experiment("Fraud"), lab.experiment("other"), lab.experiment("test_fraud")
    lab.registered("fraud", f"models:/{lab.model(home, lab.run(home))}")
    source = deleted(lab, other)
    lab.sql("UPDATE runs SET name = 'source' WHERE run_uuid = ?", source)
    lab.run(other, **{**COPIED, "compliance.source_run_id": source})
    taken_back = deleted(lab, home, **{"compliance.copy": "retracted"})
    deleted(lab, other)
    lab.run(retired, "old")
    lab.client.set_experiment_tag(retired, "compliance.retired_in", "20250601T000000Z-abcdef")
    lab.client.delete_experiment(retired)
    assert keys(lab) == []
    covered = retained(Context(lab.read(), lab.settings))
    assert {("run", source), ("run", taken_back), ("experiment", retired)} <= covered.keys(), "nothing purges them"


def test_runs_and_experiments_come_back(make_lab: LabMaker) -> None:
    """One run by itself, several of an experiment in one line; whole experiments with all their runs."""
    holds = [HOLD, {"runs": ["trial *"], "reason": "case 8"}, {"experiments": ["größe*"], "reason": "case 9"}]
    lab = make_lab(retention={"hold": holds})
    fraud, other, whole = lab.experiment("fraud"), lab.experiment("other"), lab.experiment("Größe 1")
    single = deleted(lab, fraud)
    lab.run(fraud)
    several = [lab.run(other, f"Trial {number}") for number in range(3)]
    rest = lab.run(other)
    inside = [lab.run(whole), deleted(lab, whole, 400)]
    for run_id in (*several, rest):
        lab.client.delete_run(run_id)
    lab.client.delete_experiment(whole)
    assert keys(lab) == [
        ("run-deleted", "run", single),
        ("run-deleted", "experiment", other),
        ("experiment-deleted", "experiment", whole),
    ]
    (line,) = [item for item in findings(lab, "RET001") if item.entity.key == other]
    assert line.message == "3 of its runs are deleted and must be kept"
    assert line.observed == ", ".join(sorted(several))
    assert "case 8" in line.expected
    assert plan_for(lab, "RET001").unfixed == (), "what came back with its experiment is missed no more"
    assert mended(lab) == []
    assert {stage(lab, run_id) for run_id in (single, *several, *inside)} == {"active"}
    assert stage(lab, rest) == "deleted"


def test_an_experiment_comes_back_under_its_own_name(make_lab: LabMaker) -> None:
    """One that somebody deleted, and whose name an earlier repair freed. EXP004 leaves its hands off."""
    lab = make_lab(retention={"hold": [HOLD]})
    key = lab.experiment("fraud", lifecycle="reference")
    lab.run(key)
    lab.client.delete_experiment(key)
    assert plan_for(lab, "EXP004").changes == ()
    assert "it is to be restored, under its own name: legal hold on" in reasons(lab, "EXP004")[0]
    held = lab.settings
    lab.settings = held.model_copy(update={"retention": Settings().retention})
    carry_out(lab, plan_for(lab, "EXP004"))
    name = f"fraud (retired {key})"
    assert lab.client.get_experiment(key).name == name
    counts = (("active", "FINISHED", 1),)
    there_and_back(lab, RestoreExperiment(key, (), counts), RenameExperiment(key, "fraud", name))
    lab.settings = held
    assert mended(lab) == []
    assert lab.client.get_experiment(key).name == "fraud"


def test_what_is_for_people(make_lab: LabMaker) -> None:
    """An experiment with something held in it, a logged model, a second production experiment."""
    held = ["fraud", "credit_production"]
    holds = [{"runs": ["lonely"], "reason": "case 7"}, {"experiments": held, "reason": "case 8"}]
    lab = make_lab(retention={"hold": holds})
    away, fraud, production = lab.experiment("away"), lab.experiment("fraud"), lab.experiment("credit_delivery")
    rival = lab.experiment("credit_production")
    lab.run(away, "lonely")
    lab.run(away, "other")
    lost = lab.model(fraud, lab.run(fraud))
    lab.run(production, stage="production")
    lab.run(rival, stage="production")
    lab.client.delete_logged_model(lost)
    for key in (away, rival):
        lab.client.delete_experiment(key)
    assert keys(lab) == [
        ("experiment-deleted", "experiment", away),
        ("model-deleted", "logged_model", lost),
        ("experiment-deleted", "experiment", rival),
    ]
    assert plan_for(lab, "RET001").changes == ()
    first, third, second = reasons(lab, "RET001")
    assert (
        f"not all of it must be kept: if it is to be kept, `mlflow experiments restore --experiment-id {away}`" in first
    )
    assert "a second production experiment of product credit" in second
    assert "MLflow cannot restore a logged model" in third
    again = lab.model(production, lab.run(production), "again", **{"compliance.source_model_id": lost})
    lab.client.restore_experiment(away)
    assert keys(lab) == [("experiment-deleted", "experiment", rival)]
    assert ("logged_model", again) in retained(Context(lab.read(), lab.settings)), "it is kept in the other one's place"


def test_production_that_was_deleted(make_lab: LabMaker) -> None:
    """Restored where there is no production run; one of two; not beside another one."""
    lab = make_lab(retention={"production_years": 10})
    key = lab.experiment("credit_delivery", lifecycle="production")
    first, second = deleted(lab, key, stage="production"), deleted(lab, key, stage="production")
    lab.client.delete_run(lab.run(key))
    assert keys(lab) == [("run-deleted", "experiment", key)]
    assert [item.entity.key for item in carry_out(lab, plan_for(lab, "RET001")).outcome.applied] in ([first], [second])
    (left,) = {first, second} - {run for run in (first, second) if stage(lab, run) == "active"}
    assert keys(lab) == [("run-deleted", "run", left)]
    assert "there is a production run already" in reasons(lab, "RET001")[0]


def test_a_hold_wins_over_retirement(make_lab: LabMaker) -> None:
    """A test experiment, one with a held run in it, a rival; each is retired as ever when the hold is over."""
    yesterday = datetime.now(timezone.utc).date() - timedelta(days=1)
    holds = [{"experiments": ["test_fraud", "credit_production"], "runs": ["lonely"], "reason": "case 7"}]
    over = [{**holds[0], "until": yesterday}]
    labs = [make_lab(retention={"hold": hold}) for hold in (holds, over)]
    for lab, refused in zip(labs, (True, False), strict=True):
        tests = lab.experiment("Test_fraud"), lab.experiment("some_test"), lab.experiment("test_other")
        primary, rival = lab.experiment("credit_delivery"), lab.experiment("credit_production")
        lab.run(tests[1], "Lonely")
        lab.run(primary, stage="production")
        lab.run(rival)
        plan = plan_for(lab, "EXP001", "EXP002", "RET001")
        retired = {change.entity.key for change in plan.changes if type(change).__name__ == "DeleteExperiment"}
        assert retired == ({tests[2]} if refused else {*tests, rival})
        told = [item.reason for policy in ("EXP001", "EXP002") for item in unfixed(plan, policy)]
        assert [text.partition(" covers it")[0] for text in sorted(told)] == (
            [
                "legal hold on experiment Test_fraud (case 7)",
                "legal hold on experiment credit_production (case 7)",
                next(text.partition(" covers it")[0] for text in told if "on run" in text),
            ]
            if refused
            else []
        )
        carry_out(lab, plan)
        assert keys(lab) == [], "what a repair retired is no finding"
    assert not any("RET001" in note for note in notes(labs[0], "RET001", ""))
    assert "ended on" in notes(labs[1], "RET001", "")[0]


def test_what_was_retired_before_the_hold_stays_retired_and_is_covered(make_lab: LabMaker) -> None:
    lab = make_lab()
    key = lab.experiment("test_fraud")
    run = lab.run(key)
    carry_out(lab, plan_for(lab, "EXP002"))
    assert lab.client.get_experiment(key).lifecycle_stage == "deleted"
    hold = {"retention": {"hold": [{"experiments": ["test_fraud"], "reason": "case 7"}]}}
    (lab.folder / "compliance.toml").write_text(
        '[experiments]\ntest_names = ["test_*"]\n[[retention.hold]]\nexperiments = ["test_fraud"]\nreason = "case 7"\n'
    )
    lab.reload()
    assert lab.settings.retention == Settings.model_validate(hold).retention
    assert keys(lab) == []
    covered = retained(Context(lab.read(), lab.settings))
    assert {("experiment", key), ("run", run)} <= covered.keys()
    assert plan_for(lab, "EXP002", "EXP004", "RET001").changes == ()


def test_default_is_held_too(make_lab: LabMaker) -> None:
    """EXP005 restores it without its runs, RET001 then those."""
    lab = make_lab(retention={"hold": [{"experiments": ["default"], "reason": "case 7"}]})
    runs = [lab.run("0"), deleted(lab, "0")]
    lab.client.delete_experiment("0")
    for ids in (("RET001",), ("EXP005", "RET001")):
        assert keys(lab) == [("experiment-deleted", "experiment", "0")]
        done = carry_out(lab, plan_for(lab, *ids))
        assert done.outcome.failed == []
        assert (done.differing, keys(lab)) == ([], [])
        assert {stage(lab, run) for run in runs} == {"active"}
        take_back(lab, done.lines)


def test_ret002_tells_what_is_older_than_the_settings_say(make_lab: LabMaker) -> None:
    lab = make_lab(retention={"deleted_days": 180, "hold": [{**HOLD, "runs": ["held"]}]})
    key, fraud = lab.experiment("churn"), lab.experiment("fraud")
    deleted(lab, key, 179, 1)
    deleted(lab, key, 181, 10)
    run = lab.run(key, files={"a.bin": b"x" * 100})
    model = lab.model(key, run, files={"weights.bin": b"x" * 1000})
    files = sum(path.stat().st_size for path in lab.location_of(model).iterdir())
    lab.client.delete_logged_model(model)
    lab.client.delete_run(run)
    lab.sql("UPDATE runs SET deleted_time = ? WHERE run_uuid = ?", ago(24 * 300), run)
    lab.sql("UPDATE logged_models SET last_updated_timestamp_ms = ?", ago(24 * 300))
    deleted(lab, key, None, 10000)
    deleted(lab, fraud, 1000, 100000)
    assert notes(lab, "RET002", "") == [
        (
            "deleted more than 180 days ago (deleted_days: the settings), and neither a hold nor production keeps "
            f"it: 2 runs and 1 logged model with {110 + files} bytes; --compliance-gc-preflight tells what else needs "
            "it"
        ),
        "deleted at a time that the store does not tell: 1 run with 10000 bytes",
    ]
    assert findings(lab, "RET002") == []


def test_ret002_tells_production_that_is_over(make_lab: LabMaker) -> None:
    lab = make_lab(retention={"superseded_years": 0.1, "production_years": 0.2})
    key = lab.experiment("credit_delivery")
    built = {"compliance.built_for": "credit", "compliance.build": "complete"}
    new = lab.run(key, start=START, stage="production", **built)
    old = lab.run(
        key,
        start=START - 1,
        files={"a.bin": b"x" * 777},
        **{"compliance.superseded.stage": "production", "compliance.superseded_by": new},
    )
    (note,) = notes(lab, "RET002", "")
    assert note.startswith("was in production and is kept longer than the settings say: 1 run with 777 bytes, such as ")
    assert f"run {old} of credit (production_years until 2025-08-" in note


def test_on_the_command_line(lab: Lab, gate: Gate) -> None:
    """What is found, what a repair restores, what is left; an end of yesterday, today and tomorrow."""
    today = datetime.now(timezone.utc).date()
    lab.run(lab.experiment("credit_delivery", lifecycle="production"), stage="production")
    homes = [lab.experiment(f"fraud {day}", lifecycle="reference") for day in ("one", "two", "three")]
    runs = [deleted(lab, key, size=2000) for key in homes]
    holds = "".join(
        f'[[retention.hold]]\nexperiments = ["FRAUD {word}"]\nreason = "case {word}"\n'
        f"until = {today + timedelta(days)}\n"
        for word, days in (("one", -1), ("two", 0), ("three", 1))
    )
    more = '[[retention.hold]]\nmodels = ["typo"]\nreason = "größe <b>"\n'
    gate.settings(lab.uri, f"[retention]\ndeleted_days = 0.5\n{holds}{more}")
    text = told(gate("-q", rules=RULES[:1]))
    assert f"the hold for 'case one' ended on {today + timedelta(-1)} and holds nothing any more" in text
    assert "the hold for 'größe <b>' holds nothing by models 'typo': there is nothing of that name" in text
    assert "neither a hold nor production keeps it: 1 run with 2000 bytes; --compliance-gc-preflight tells" in text
    assert f"run {runs[0]}" not in text
    assert all(f"legal hold on experiment fraud {word} (case {word}, until" in text for word in ("two", "three"))
    result = gate("--fix", "-q", rules=RULES)
    assert "2 of 2 changes made" in told(result)
    assert "verified: the store, read anew, is what was planned" in told(result)
    assert [stage(lab, run) for run in runs] == ["deleted", "active", "active"]
    assert gate("-q", "--compliance-metadata-only", rules=RULES).ret == 0


def test_settings_that_cannot_be_used(lab: Lab, gate: Gate) -> None:
    gate.settings(lab.uri, '[[retention.hold]]\nreason = "x"\nuntil = 2031-01-01T00:00:00Z\nruns = ["a"]\n')
    result = gate(rules=RULES[:1])
    assert result.ret == 4
    problem = "retention.hold[0].until: must be a date without quotes and time, such as 2031-12-31, not 2031-01-01T00"
    assert problem in told(result)


def test_through_a_tracking_server(make_lab: LabMaker) -> None:
    """The same is found and restored; of deleted logged models nobody is told there."""
    retention = {"production_years": 10, "hold": [HOLD, {"runs": ["trial"], "reason": "case 8"}]}
    lab = make_lab(retention=retention)
    fraud, other = lab.experiment("fraud"), lab.experiment("credit_delivery")
    runs = [deleted(lab, fraud), lab.run(other, "Trial"), lab.run(other, stage="production")]
    lab.model(fraud, lab.run(fraud))
    for run in runs[1:]:
        lab.client.delete_run(run)
    with tracking_server(lab.folder.parent, lab.uri, lab.mlruns) as server:
        guest = Guest(Place(server.url, str(lab.mlruns)), lab.folder, lab.settings)
        covered = retained(Context(lab.read(), lab.settings))
        assert retained(Context(guest.read(), lab.settings)).keys() == covered.keys()
        assert verdict(guest, "RET001", "").unevaluated[0].code == "models-not-shown"
        assert verdict(lab, "RET001", "").unevaluated == ()
        assert keys(guest) == keys(lab) == [("run-deleted", "run", runs[0]), ("run-deleted", "experiment", other)]
        done = carry_out(guest, plan_for(guest, "RET001"))
        assert (done.differing, done.outcome.failed, keys(guest)) == ([], [], [])
        assert {stage(lab, run) for run in runs} == {"active"}
        take_back(guest, done.lines)
        assert {stage(lab, run) for run in runs} == {"deleted"}


def test_the_demo_store_is_repaired_as_without_it(demo: Lab) -> None:
    """What the repair retires, copies and supersedes is its own doing: nothing of it is missed afterwards."""
    ids = ("EXP001", "EXP002", "EXP003", "RUN001", "RET001")
    before = plan_for(demo, *ids)
    assert any(type(change).__name__ == "DeleteExperiment" for change in before.changes)
    with (demo.folder / "compliance.toml").open("a") as settings:
        settings.write(KEPT)
    demo.reload()
    assert plan_for(demo, *ids).changes == before.changes
    assert carry_out(demo, plan_for(demo, *ids)).outcome.failed == []
    assert findings(demo, *ids) == []
    assert notes(demo, "RET001", "") == []


@pytest.mark.parametrize("name", SERVERS)
def test_on_a_database_server(name: str, tmp_path: Path) -> None:
    """Names, tags, models that a run read, times of deletion: every question that the tables are asked."""
    holds = [{"runs": ["TRIAL"], "experiments": ["größe"], "models": ["Churn"], "reason": "case 7"}]
    retention = {"deleted_days": 180, "production_years": 10, "hold": holds}
    settings = Settings.model_validate({"products": [CREDIT], "retention": retention})
    guest = Guest(Place(SERVERS[name]().store(f"{tmp_path}/mlruns"), f"{tmp_path}/mlruns"), tmp_path, settings)
    whole, other, production = guest.experiment("Größe"), guest.experiment("other"), guest.experiment("credit_delivery")
    trial, inside, marked = guest.run(other, "trial"), guest.run(whole), guest.run(production, stage="production")
    base = guest.model(other, guest.run(other, "maker"), "base")
    guest.client.log_inputs(trial, models=[LoggedModelInput(base)])
    guest.registered("churn", f"models:/{base}")
    lost = guest.model(whole, inside)
    guest.client.delete_logged_model(lost)
    for run_id in (trial, inside, marked):
        guest.client.delete_run(run_id)
    covered = retained(Context(guest.read(), settings))
    wanted = {("run", trial), ("logged_model", base), ("model_version", "churn/1"), ("run", marked)}
    assert wanted | {("logged_model", lost)} <= covered.keys()
    assert all(row.deleted_at > START for row in guest.read().row_facts.values() if row.lifecycle == "deleted")
    assert mended(guest) == [("model-deleted", "logged_model", lost)]
    assert {stage(guest, run_id) for run_id in (trial, inside, marked)} == {"active"}


def test_more_runs_than_are_read_at_a_time(make_lab: LabMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_compliance.production.lost.MOST", 1)
    lab = make_lab(retention={"hold": [HOLD]})
    key = lab.experiment("fraud")
    runs = [deleted(lab, key) for _ in range(2)]
    for left in (1, 0):
        assert carry_out(lab, plan_for(lab, "RET001")).differing == []
        assert [stage(lab, run) for run in runs].count("deleted") == left
        assert ["run --fix again" in reason for reason in reasons(lab, "RET001")] == []
    assert keys(lab) == []


def test_a_file_store(tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is audited; also the logged model, which MLflow shows nobody, and when its run was deleted."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = (tmp_path / "mlruns").as_uri()
    client = MlflowClient(tracking_uri=place, registry_uri=place)
    key = client.create_experiment("fraud", tags={"lifecycle": "reference"})
    run, other = (client.create_run(key, run_name=name).info.run_id for name in ("trial", "other"))
    for item in (run, other):
        client.set_terminated(item)
    model = client.create_logged_model(key, name="model", source_run_id=other).model_id
    client.delete_logged_model(model)
    client.delete_run(run)
    gate.settings(
        str(tmp_path / "mlruns"), '[retention]\ndeleted_days = 9\n[[retention.hold]]\nruns = ["*"]\nreason = "x"\n'
    )
    text = told(gate("-q", rules=RULES[:1]))
    assert "run trial: is deleted and must be kept" in text
    assert "logged_model model: is deleted and must be kept" in text
    assert "a file store is only audited" in text
