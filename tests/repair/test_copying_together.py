"""Runs that are copied together: a process killed at any moment leaves no half copy that looks whole, and the next
repair finishes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from killing import arm
from mlflow.tracking import MlflowClient
from repairs import carry_out, hashes, plan_for, state
from stores import BIG, CREDIT, Lab

from mlflow_compliance.settings.schema import load_settings
from mlflow_compliance.snapshot.entities import Run
from mlflow_compliance.snapshot.tags import COMPLETE, COPY_STATE, SOURCE_RUN
from mlflow_compliance.store.write import compare_copies
from mlflow_compliance.store.write.copies import INCOMPLETE, RunCopier

MOMENTS = {
    # what is called for the n-th time when the process dies
    "the rows are there and no file": "mlflow_compliance.store.write.copies:RunCopier.copy_files:1",
    "a file is on the disk under a temporary name": "mlflow_compliance.store.storage.files:_publish:5",
    "the files are there, and some of the rest": "mlflow_compliance.store.write.copies:add_history:3",
    "all but the marks": "mlflow_compliance.store.write.copies:RunCopier._count:2",
    "the journal does not know yet": "mlflow_compliance.repair.journal:Journal.done_all:1",
}
RUNS = 4


@pytest.fixture(scope="module")
def built(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rival of four runs, one with everything and one with a parent. Nobody opens it after this, only copies of
    it.
    """
    folder = tmp_path_factory.mktemp("rival") / "store"
    lab = Lab.new(folder, empty_store, {})
    lines = "\n".join(f"{key} = {value!r}" for key, value in CREDIT.items() if isinstance(value, str | list))
    (folder / "compliance.toml").write_text(f"[[products]]\n{lines}\n")
    delivery, production = lab.experiment("credit_delivery"), lab.experiment("credit_production")
    lab.run(delivery, "in force", files={"data.bin": BIG})
    parent = lab.rich_run(production, "champion", base_in="0")
    lab.run(
        production,
        "child",
        metrics={"auc": 0.5},
        files={"big.bin": BIG, "small.txt": b"c"},
        **{"mlflow.parentRunId": parent},
    )
    for name in ("third", "fourth"):
        key = lab.run(production, name, metrics={"auc": 0.25}, files={"big.bin": BIG, "own.txt": name.encode()})
        lab.model(production, key)
    return folder


@pytest.fixture(scope="module")
def undisturbed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    lab = Lab.moved(built, tmp_path_factory.mktemp("undisturbed") / "store")
    with pytest.MonkeyPatch.context() as patch:
        # What could not be copied with the others would be copied by this.
        patch.delattr(RunCopier, "copy")
        done = carry_out(lab, plan_for(lab, "EXP001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert len(copies(lab)) == RUNS
    return outcome(lab)


def outcome(lab: Lab) -> dict[str, Any]:
    """What a repair brings, but for ids and places: in an MLmodel there are ids."""
    found = state(lab)
    groups = sorted((group.size, len(group.paths)) for group in found.pop("duplicates"))
    texts = {path: digest for path, digest in found.pop("readable").items() if not path.endswith("MLmodel")}
    # ART001 names the first path, which is another one with every id.
    findings = [text for text in found.pop("findings") if "stored" not in text]
    return {**found, "findings": findings, "duplicates": groups, "readable": texts}


def copies(lab: Lab, marked: str = COMPLETE) -> list[Run]:
    """The copies that readers take for whole ones, or those that are marked otherwise."""
    found = lab.read(artifacts=False)
    details, _ = lab.store.details([run.info.run_id for key in found.experiments for run in lab.runs(key)])
    return [run for run in details.values() if run.lifecycle == "active" and run.tags.get(COPY_STATE) == marked]


def repair_and_die(built: Path, folder: Path, moment: str) -> int:
    """Repair a copy of the store in a process of its own that dies at a moment; how it ended. A fork has everything
    imported already.
    """
    child = os.fork()
    if not child:
        try:
            lab = Lab.moved(built, folder)
            plan = plan_for(lab, "EXP001")
            arm(moment)
            carry_out(lab, plan)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_group_of_copies_that_is_killed_is_finished_by_the_next_repair(
    built: Path, undisturbed: dict[str, Any], tmp_path: Path, moment: str
) -> None:
    folder = tmp_path / "store"
    before = hashes(built)
    assert repair_and_die(built, folder, MOMENTS[moment]) == -signal.SIGKILL
    lab = Lab(folder, load_settings(folder / "compliance.toml"))
    assert len(copies(lab)) == (RUNS if "journal" in moment else 0), "whole or not at all"
    if moment != "all but the marks":
        assert {run.status for run in copies(lab, INCOMPLETE)} <= {"RUNNING"}, (
            "it would be found by who looks for a finished run"
        )
    assert not before.keys() - hashes(folder).keys(), "a content is lost"
    assert lab.client.get_experiment_by_name("credit_production").lifecycle_stage == "active", (
        "the sources are there until all of them are copied"
    )

    done = carry_out(lab, plan_for(lab, "EXP001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert outcome(lab) == undisturbed
    made = copies(lab)
    assert len({run.tags[SOURCE_RUN] for run in made}) == len(made) == RUNS
    sources, _ = lab.store.details([run.tags[SOURCE_RUN] for run in made])
    for run in made:
        source = sources[run.tags[SOURCE_RUN]]
        assert (run.metrics, run.params, run.datasets, run.start_time, run.end_time, len(run.models)) == (
            source.metrics,
            source.params,
            source.datasets,
            source.start_time,
            source.end_time,
            len(source.models),
        )
    assert not before.keys() - hashes(folder).keys()
    assert {path.parts[len(lab.mlruns.parts)] for path in lab.mlruns.rglob(".compliance.tmp.*")} <= {".quarantine"}
    assert plan_for(lab, "EXP001").steps == ()


def test_what_a_run_got_after_an_earlier_repair_copied_it_is_not_retired_with_it(built: Path, tmp_path: Path) -> None:
    """The repair died between the copies and the retirement, and the team went on logging to runs that had ended."""
    folder = tmp_path / "store"
    assert repair_and_die(built, folder, MOMENTS["the journal does not know yet"]) == -signal.SIGKILL
    lab = Lab(folder, load_settings(folder / "compliance.toml"))
    made = {run.name: run for run in copies(lab)}
    for name in ("child", "third"):
        source = made[name].tags[SOURCE_RUN]
        if name == "child":
            lab.client.log_metric(source, "recall", 0.75, step=3)
        else:
            lab.client.log_text(source, "later", "later.txt")
        plan = plan_for(lab, "EXP001")
        assert not plan.changes
        assert [
            f"run {source} got other {'metrics' if name == 'child' else 'artifacts'} after" in item.reason
            for item in plan.unfixed
        ] == [True]
        lab.client.delete_run(made[name].run_id)
    done = carry_out(lab, plan_for(lab, "EXP001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    now = {run.name: run for run in copies(lab)}
    assert len(now) == RUNS
    assert [point.value for point in now["child"].metrics["recall"]] == [0.75]
    assert [item.path for item in lab.client.list_artifacts(now["third"].run_id)] == ["big.bin", "later.txt", "own.txt"]


@pytest.mark.parametrize("what", ["tags", "artifacts"])
def test_what_is_logged_while_runs_are_copied_stops_the_retirement(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Somebody logs to a run that has ended and was copied a moment ago: it is told, and the next repair asks for a
    new copy.
    """
    lab = Lab.moved(built, tmp_path / "store")
    rename = MlflowClient.rename_experiment

    def logged_meanwhile(client: MlflowClient, experiment_id: str, name: str) -> None:
        child = next(run for run in lab.runs(experiment_id) if run.info.run_name == "child")
        if what == "tags":
            lab.client.set_tag(child.info.run_id, "verdict", "good")
        else:  # as long as what was there
            lab.client.log_text(child.info.run_id, "d", "small.txt")
        rename(client, experiment_id, name)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "rename_experiment", logged_meanwhile)
        done = carry_out(lab, plan_for(lab, "EXP001"))
    assert len(done.outcome.failed) == 1
    assert f"got other {what} after it was copied to run " in done.outcome.failed[0][1]
    rival = lab.client.get_experiment_by_name("credit_production (retired 2)")
    assert (rival.lifecycle_stage, len(lab.runs(rival.experiment_id))) == ("active", RUNS)
    if what == "artifacts":
        with monkeypatch.context() as patch:
            patch.setattr(compare_copies, "got_files_since", lambda *_: os.listdir(tmp_path / "not there"))
            refused = carry_out(lab, plan_for(lab, "EXP001"))
        assert "could not be compared with their copies" in refused.outcome.failed[0][1]
        assert lab.client.get_experiment(rival.experiment_id).lifecycle_stage == "active"
    else:
        plan = plan_for(lab, "EXP001")
        assert not plan.changes
        assert "it is copied anew" in plan.unfixed[0].reason
    (copy,) = (run.run_id for run in copies(lab) if run.name == "child")
    lab.client.delete_run(copy)
    again = carry_out(lab, plan_for(lab, "EXP001"))
    assert (again.differing, again.outcome.failed) == ([], [])
    (copy,) = (run.run_id for run in copies(lab) if run.name == "child")
    assert lab.client.get_run(copy).data.tags.get("verdict") == ("good" if what == "tags" else None)
    assert (lab.folder_of(copy) / "small.txt").read_text() == ("c" if what == "tags" else "d")
