"""What is alive is neither ended nor retired, whatever keeps it so; what is not, is as before. The chain is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from gates import Gate, told
from living import HOUR, PARENT, ago, endpoint, prompt, read_model, scorer, silent, traced
from mlflow.entities import LoggedModelInput, TraceState
from mlflow.entities.entity_type import EntityAssociationType
from repairs import carry_out, chosen, findings, notes, plan_for, remedies, unfixed, verdict
from stores import START, Lab

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.reachability import kept_by
from mlflow_compliance.repair.plan import make_plan
from mlflow_compliance.snapshot.ties import How


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(experiments={"test_names": ["test_*"]})


# RUN001


def _child(lab: Lab, parent: str) -> str:
    child = silent(lab, hours=50, **{PARENT: parent})
    lab.client.log_metric(child, "auc", 0.5, timestamp=ago(1 / 60))
    return f"run {child} -> run {parent}"


def _grandchild(lab: Lab, parent: str) -> str:
    child = lab.run("0", start=ago(59), **{PARENT: parent})  # ended a minute after it began
    grandchild = lab.run(
        lab.experiment("elsewhere"), start=ago(50), status="RUNNING", metrics={"auc": 0.5}, **{PARENT: child}
    )
    lab.client.log_metric(grandchild, "auc", 0.6, timestamp=ago(1), step=1)
    return f"run {grandchild} -> run {child} -> run {parent}"


def _child_of_a_deleted_run(lab: Lab, parent: str) -> str:
    child = lab.run("0", start=ago(59), **{PARENT: parent})
    grandchild = lab.run("0", start=ago(0.1), **{PARENT: child})
    lab.client.delete_run(child)
    return f"run {grandchild} -> run {child} -> run {parent}"


def _trace(lab: Lab, run_id: str) -> str:
    traced(lab, lab.experiment("app"), run_id, ago(1))
    return f"traces of experiment 2 -> run {run_id}"


def _trace_in_progress(lab: Lab, run_id: str) -> str:
    """It began before the limit, and the last that it logged is fresh."""
    traced(lab, "0", run_id, ago(30), TraceState.IN_PROGRESS, took=29 * HOUR)
    return f"traces of experiment 0 -> run {run_id}"


def _trace_put_to_it(lab: Lab, run_id: str) -> str:
    lab.client._tracking_client.store.link_traces_to_run([traced(lab, "0", "", ago(1))], run_id)
    return f"traces of experiment 0 -> run {run_id}"


def _model(lab: Lab, run_id: str) -> str:
    model = lab.client.create_logged_model("0", name="m", source_run_id=run_id)
    return f"model {model.model_id} -> run {run_id}"


LIFE: dict[str, Callable[[Lab, str], str]] = {
    "a child that logs": _child,
    "a grandchild of another experiment": _grandchild,
    "a grandchild by a run that was deleted": _child_of_a_deleted_run,
    "a trace": _trace,
    "a trace in progress": _trace_in_progress,
    "a trace that was put to it": _trace_put_to_it,
    "a logged model": _model,
}


@pytest.mark.parametrize("by", LIFE)
def test_run001_a_silent_run_is_alive_by_what_is_at_work_for_it(lab: Lab, by: str) -> None:
    home = lab.experiment("search")
    run_id = silent(lab, home)
    assert [finding.entity.key for finding in findings(lab, "RUN001")] == [run_id]
    chain = LIFE[by](lab, run_id)
    said = verdict(lab, "RUN001", f"-{home}")
    assert (said.findings, said.unevaluated) == ((), ())
    assert chain in notes(lab, "RUN001", f"-{home}")[0]
    assert run_id not in {change.entity.key for change in plan_for(lab, "RUN001").changes}


def test_run001_old_children_keep_nothing_alive_and_date_its_end(lab: Lab) -> None:
    parent = silent(lab)
    last = lab.run("0", start=ago(40), **{PARENT: parent})
    traced(lab, "0", parent, ago(41))
    done = carry_out(lab, plan_for(lab, "RUN001"))
    assert done.differing == []
    assert lab.client.get_run(parent).info.end_time == lab.client.get_run(last).info.end_time


def test_run001_parents_in_a_circle(lab: Lab) -> None:
    one, other = silent(lab), silent(lab)
    lab.client.set_tag(one, PARENT, other)
    lab.client.set_tag(other, PARENT, one)
    assert {finding.entity.key for finding in findings(lab, "RUN001")} == {one, other}
    lab.client.log_metric(one, "auc", 0.5, timestamp=ago(1))
    assert findings(lab, "RUN001") == []


def write_files(lab: Lab, run_id: str, hours: float) -> None:
    path = lab.folder_of(run_id) / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("at work")
    os.utime(path, (ago(hours) / 1000,) * 2)


def test_run001_files_are_a_sign_of_life_where_their_times_hold(lab: Lab) -> None:
    for _ in range(3):
        write_files(lab, lab.run("0", start=ago(50)), 50)
    run_id = silent(lab)
    write_files(lab, run_id, 0.1)
    said = verdict(lab, "RUN001", "-0")
    assert said.findings == ()
    assert f"its files -> run {run_id}, written" in notes(lab, "RUN001", "-0")[0]


def test_run001_files_of_a_clone_are_none(lab: Lab) -> None:
    """All that ended has files that are newer than every row: they were written by whoever copied them."""
    for _ in range(3):
        write_files(lab, lab.run("0", start=ago(50)), 0.1)
    run_id = silent(lab)
    write_files(lab, run_id, 0.1)
    assert [finding.entity.key for finding in findings(lab, "RUN001")] == [run_id]


def test_run001_files_do_not_date_an_end(lab: Lab) -> None:
    run_id = lab.run("0", status="RUNNING", metrics={"auc": 0.5})
    write_files(lab, run_id, 48)
    carry_out(lab, plan_for(lab, "RUN001"))
    assert lab.client.get_run(run_id).info.end_time == START + 1000


# EXP002


def _dataset(lab: Lab, key: str) -> str:
    lab.client.create_dataset("golden questions", experiment_id=["0", key])
    return "evaluation dataset golden questions -> experiment 1"


def _prompt(lab: Lab, key: str) -> str:
    prompt(lab, "0", key)
    return "prompt greeting -> experiment 1"


def _endpoint(lab: Lab, key: str) -> str:
    endpoint(lab, key)
    return "gateway endpoint chat -> experiment 1"


def _scorer(lab: Lab, key: str) -> str:
    scorer(lab, key)
    return "scorer polite -> experiment 1"


def _read(lab: Lab, key: str, status: str = "FINISHED") -> tuple[str, str]:
    reader, model = read_model(lab, key, lab.experiment("champion"), status)
    return reader, f"run {reader} -> model {model} -> experiment {key}"


def _read_by_a_deleted_run(lab: Lab, key: str) -> str:
    reader, chain = _read(lab, key)
    lab.client.delete_run(reader)
    return chain


def _live_trace(lab: Lab, key: str) -> str:
    run_id = lab.run(key)
    traced(lab, "0", run_id, ago(1))
    return f"traces of experiment 0 -> run {run_id} -> experiment 1"


def _child_elsewhere(lab: Lab, key: str) -> str:
    parent = lab.run(key)
    middle = lab.run(lab.experiment("elsewhere"), **{PARENT: parent})
    child = lab.run("0", status="RUNNING", start=ago(1), **{PARENT: middle})
    return f"run {child} -> run {middle} -> run {parent} -> experiment 1"


def _by_an_alias(lab: Lab, key: str) -> str:
    run_id = lab.run(key)
    model = lab.model(key, run_id)
    lab.registered("credit", f"models:/{model}", run_id, alias="champion")
    return f"alias champion of credit -> version 1 -> model {model} -> run {run_id} -> experiment 1"


def _by_a_version_of_a_version(lab: Lab, key: str) -> str:
    """The source of the promoted version names another one, which is that of a run elsewhere and a path of which
    only the text is known.
    """
    folder = f"{lab.client.get_experiment(key).artifact_location}/handmade"
    lab.registered("credit", f"file://{folder}")
    lab.registered("promoted", str(lab.folder))
    lab.sql("UPDATE model_versions SET source = 'models:/credit/1', storage_location = NULL WHERE name = 'promoted'")
    return "credit version 1 -> experiment 1"


def _by_the_run_of_a_model(lab: Lab, key: str) -> str:
    """The model lies elsewhere; the run that wrote it does not."""
    run_id = lab.run(key)
    model = lab.model("0", run_id)
    lab.registered("credit", f"models:/{model}", alias="champion")
    lab.sql("UPDATE model_versions SET run_id = NULL")
    return f"alias champion of credit -> version 1 -> model {model} -> run {run_id} -> experiment 1"


KEPT: dict[str, Callable[[Lab, str], str]] = {
    "an evaluation dataset of two experiments": _dataset,
    "a prompt of two experiments": _prompt,
    "a gateway endpoint": _endpoint,
    "a scorer": _scorer,
    "a run that read its model": lambda lab, key: _read(lab, key)[1],
    "a run at work that read its model": lambda lab, key: _read(lab, key, "RUNNING")[1],
    "a failed run that read its model": lambda lab, key: _read(lab, key, "FAILED")[1],
    "a deleted run that read its model": _read_by_a_deleted_run,
    "a trace of a run in it": _live_trace,
    "traces that are logged to it": lambda lab, key: (
        traced(lab, key, "", ago(1)) and "traces of experiment 1 -> experiment 1"
    ),
    "a run at work below a run in it": _child_elsewhere,
    "an alias": _by_an_alias,
    "a version of a version": _by_a_version_of_a_version,
    "a version of a model that a run in it wrote": _by_the_run_of_a_model,
    "a model that is being made": lambda lab, key: (
        f"model {lab.client.create_logged_model(key, name='m').model_id} -> experiment 1"
    ),
}


@pytest.mark.parametrize("by", KEPT)
def test_exp002_what_is_reached_is_not_retired(lab: Lab, by: str) -> None:
    key = lab.experiment("test_1")
    chain = KEPT[by](lab, key)
    plan = plan_for(lab, "EXP002", "RUN001")
    assert {step.finding.policy for step in plan.steps} <= {"RUN001"}
    assert chain in unfixed(plan, "EXP002")[0].reason
    carry_out(lab, plan)
    again = plan_for(lab, "EXP002", "RUN001")
    assert again.changes == (), "nor by a later repair, when a run that was stuck has been ended"
    # The same without a look at files.
    snapshot = lab.read(artifacts=False)
    kept = kept_by(Context(snapshot, lab.settings), snapshot.experiments[key])
    assert kept is not None
    assert " -> ".join(kept.chain) == chain


GONE: dict[str, Callable[[Lab, str], Any]] = {
    "an endpoint that tracks no usage": lambda lab, key: endpoint(lab, key, tracking=False),
    "a prompt of an experiment whose number begins alike": lambda lab, key: _prompt(lab, f"{key}0"),
    "a trace of long ago": lambda lab, key: traced(lab, key, lab.run(key), ago(100)),
    "a run of its own that read its model": lambda lab, key: lab.client.log_inputs(
        run_id := lab.run(key), models=[LoggedModelInput(lab.model(key, run_id))]
    ),
    "a model that was made for one that ended": lambda lab, key: lab.model(key, lab.run(key)),
    "a child that ended": lambda lab, key: lab.run("0", **{PARENT: lab.run(key)}),
}


@pytest.mark.parametrize("by", GONE)
def test_exp002_what_nothing_reaches_is_retired(lab: Lab, by: str) -> None:
    key = lab.experiment("test_1")
    GONE[by](lab, key)
    done = carry_out(lab, plan_for(lab, "EXP002"))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert lab.client.get_experiment(key).lifecycle_stage == "deleted"


def test_exp002_one_test_experiment_that_another_relies_on(lab: Lab) -> None:
    """The first to go takes the reader with it."""
    one, other = lab.experiment("test_1"), lab.experiment("test_2")
    model = lab.model(one, lab.run(one))
    reader = lab.run(other, status="RUNNING")
    lab.client.log_inputs(reader, models=[LoggedModelInput(model)])
    lab.client.set_terminated(reader, end_time=START + 1)
    assert carry_out(lab, plan_for(lab, "EXP002")).differing == []
    assert {lab.client.get_experiment(key).lifecycle_stage for key in (one, other)} == {"deleted"}


def test_a_dataset_that_is_gone_keeps_nothing(lab: Lab) -> None:
    key = lab.experiment("test_1")
    store = lab.client._tracking_client.store
    store.delete_dataset(lab.client.create_dataset("gone", experiment_id=[key]).dataset_id)
    left = store.search_entities_by_destination(
        [key], EntityAssociationType.EXPERIMENT, EntityAssociationType.EVALUATION_DATASET
    )
    assert left.to_list() == []
    assert len(plan_for(lab, "EXP002").changes) == 7


# EXP001


@pytest.mark.parametrize("what", ["dataset", "prompt", "endpoint", "scorer"])
def test_exp001_what_a_merge_would_leave_behind_keeps_the_rival(lab: Lab, what: str) -> None:
    rival = lab.experiment("credit_production")
    lab.run(lab.experiment("credit_delivery"), stage="production")
    lab.run(rival)
    chain = {"dataset": _dataset, "prompt": _prompt, "endpoint": _endpoint, "scorer": _scorer}[what](lab, rival)
    before = lab.database.read_bytes()
    plan = plan_for(lab, "EXP001")
    assert plan.changes == ()
    assert chain in unfixed(plan, "EXP001")[0].reason
    assert lab.database.read_bytes() == before


def test_the_chain_is_told_at_the_command_line(make_lab: Callable[..., Lab], gate: Gate) -> None:
    lab = make_lab()
    lab.run(lab.experiment("credit_delivery"))
    key = lab.experiment("test_1")
    _, chain = _read(lab, key, "RUNNING")
    parent = silent(lab, "0")
    child = _child(lab, parent)
    gate.settings(lab.uri)
    text = told(gate("--fix", "-k", "EXP002 or RUN001"))
    assert chain in text
    assert child in text
    assert lab.client.get_run(parent).info.status == "RUNNING"
    assert lab.client.get_experiment(key).lifecycle_stage == "active"


def test_what_was_not_asked_retires_nothing(lab: Lab) -> None:
    """A server may refuse to tell what belongs to an experiment."""
    lab.experiment("test_1")
    snapshot = replace(lab.read(), untold={How.SCORER: "the user may not do this"})
    plan = make_plan(chosen(["EXP002"]), remedies(), Context(snapshot, lab.settings))
    assert plan.changes == ()
    assert "could not be asked for all of it (scorers: the user may not do this)" in plan.unfixed[0].reason
