"""Logging a production run: held to the laws of every Change, whole or not at all, wherever it is broken off."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gates import CHECKOUT
from producing import copied, unproduced
from repairs import carry_out, findings, plan_for, unfixed
from stores import Lab, there_and_back

from mlflow_compliance.changes import LogProductionRun
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.production.metadata import problems_in
from mlflow_compliance.store.write.writer import StoreWriter

KILLED = {
    "before the metadata": "mlflow_compliance.store.write.production:ProductionLogger._write_metadata:1",
    "before it is marked": "mlflow_compliance.store.write.production:ProductionLogger._read_back:1",
    "between version and alias": "mlflow.tracking:MlflowClient.set_registered_model_alias:1",
}


@pytest.fixture(scope="module")
def unbuilt(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A store with sources beside it and no production run yet: to be copied, not to be changed."""
    return unproduced(lambda: Lab.new(tmp_path_factory.mktemp("unbuilt") / "store", empty_store, {}))


@pytest.fixture
def lab(unbuilt: Lab, tmp_path: Path) -> Lab:
    return copied(unbuilt, tmp_path / "store")


def logged(lab: Lab) -> list[LogProductionRun]:
    return [change for change in plan_for(lab).changes if isinstance(change, LogProductionRun)]


def production(lab: Lab) -> list[Any]:
    """The runs that call themselves production."""
    return [
        run
        for run in lab.runs("1")
        if run.data.tags.get("stage") == "production" and run.info.lifecycle_stage == "active"
    ]


def test_there_and_back(lab: Lab) -> None:
    (change,) = logged(lab)
    between, binding = there_and_back(lab, change)
    assert between.runs[binding[change.run_id]].tags["stage"] == "production"


def of_model(lab: Lab, run_id: str, name: str) -> Path:
    (model,) = lab.client.search_logged_models(["1"], filter_string=f"source_run_id = '{run_id}'")
    return lab.location_of(model.model_id) / name


SINCE: dict[str, tuple[Callable[[Lab, str], object], str]] = {
    # what somebody did to the run: what the sentence says
    "a metric": (lambda lab, run_id: lab.client.log_metric(run_id, "late", 1.0), "got other metrics since"),
    "a tag": (lambda lab, run_id: lab.client.set_tag(run_id, "mine", "1"), "got other tags since"),
    "a file": (lambda lab, run_id: (lab.folder_of(run_id) / "a.txt").write_bytes(b"a"), "got other artifacts since"),
    "metadata": (
        lambda lab, run_id: (lab.folder_of(run_id) / "model_metadata.json").write_bytes(b"{}"),
        "got other artifacts since",
    ),
    "the model": (lambda lab, run_id: of_model(lab, run_id, "more").write_bytes(b"a"), "got other artifacts since"),
    "MLmodel": (lambda lab, run_id: of_model(lab, run_id, "MLmodel").write_bytes(b"a: 1"), "got other artifacts since"),
    "a child": (
        lambda lab, run_id: lab.run("1", "child", **{"mlflow.parentRunId": run_id}),
        "names it as its parent",
    ),
}


def test_what_somebody_went_on_with_stays(lab: Lab) -> None:
    """One store for all: each of them is enough."""
    (change,) = logged(lab)
    inverses, _, binding = lab.carry_out(change)
    run_id, writer = binding[change.run_id], StoreWriter(lab.store, {})
    kept = {path: path.read_bytes() for path in lab.mlruns.rglob("*") if path.is_file()}
    for meanwhile, sentence in SINCE.values():
        state = lab.database.read_bytes()
        meanwhile(lab, run_id)
        with pytest.raises(ChangeError, match=f"{run_id}.* {sentence}"):
            writer.write(inverses[0])
        assert lab.client.get_run(run_id).info.lifecycle_stage == "active"
        # As it was, for the next one.
        lab.database.write_bytes(state)
        for path in [path for path in lab.mlruns.rglob("*") if path.is_file()]:
            if path in kept:
                path.write_bytes(kept[path])
            else:
                path.unlink()
    writer.write(inverses[0])
    assert lab.client.get_run(run_id).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize("gone", [False, True], ids=["its bundle is there", "its bundle is gone"])
def test_logged_again_after_it_was_taken_back(lab: Lab, gone: bool) -> None:
    (change,) = logged(lab)
    _, binding = there_and_back(lab, change)
    if gone:
        shutil.rmtree(change.bundle)
    _, after, again = lab.carry_out(change)
    first, second = binding[change.run_id], again[change.run_id]
    assert first != second
    assert after.runs[second].params == change.params
    held = {path: sha256 for path, _, sha256 in (*change.files, *change.model_files) if path != "MLmodel"}
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in (lab.folder_of(second), of_model(lab, second, "MLmodel").parent)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("MLmodel", "model_metadata.json")
    }
    assert found == held
    assert f"run_id: {second}\n" in of_model(lab, second, "MLmodel").read_text()
    assert [found for found in findings(lab, "MOD001") if found.entity.key == second] == []


def test_what_it_was_built_from_is_gone_altogether(lab: Lab) -> None:
    (change,) = logged(lab)
    there_and_back(lab, change)
    shutil.rmtree(change.bundle)
    for aside in lab.mlruns.glob(".quarantine/*-retracted/1/*/artifacts/model.pkl"):
        aside.unlink()
    with pytest.raises(ChangeError, match="is gone: its bundle, and what was taken back of it; run --fix"):
        lab.carry_out(change)
    assert [run.info.run_name for run in production(lab)] == ["old"]


def test_its_metadata_keeps_the_schema_and_names_the_run(produced_built: Lab) -> None:
    (run,) = production(produced_built)
    document = json.loads((Path(run.info.artifact_uri) / "model_metadata.json").read_text())
    assert problems_in(document) == []
    (model,) = produced_built.client.search_logged_models(["1"])
    assert (document["run_id"], document["model_id"], document["experiment_id"]) == (
        run.info.run_id,
        model.model_id,
        "1",
    )
    assert [item["role"] for item in document["sources"]] == ["model", "predictions"]
    assert document["supersedes"] == [
        item.info.run_id for item in produced_built.runs("1") if item.info.run_name == "old"
    ]


def test_a_refusal_half_way_leaves_nothing_that_looks_complete(lab: Lab) -> None:
    (change,) = logged(lab)
    (Path(change.bundle) / "artifacts" / "feature_importance.csv").write_text("something else\n")
    binding = {"⟨journal⟩": "20250601T000000Z-abcdef", "⟨time of writing⟩": "2025-06-01T00:00:00+00:00"}
    with pytest.raises(ChangeError, match="does not hold what was planned"):
        StoreWriter(lab.store, binding).write(change)
    assert [run.info.run_name for run in production(lab)] == ["old"]
    assert [run.info.run_name for run in lab.runs("1") if run.info.lifecycle_stage == "active"] == ["old"]
    assert not list((lab.mlruns / "1" / "models").glob("m-*"))


@pytest.mark.parametrize("moment", KILLED)
def test_killed_at_any_moment_and_finished_by_the_next_repair(lab: Lab, moment: str) -> None:
    rules = ["policies", "--fix", "-k", "MOD001 or RUN002 or REG001", "-p", "no:cacheprovider", "-p", "killing"]
    command = [sys.executable, "-m", "pytest", *rules]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests" / "support"), "KILL_AT": KILLED[moment]}
    options = [f"--tracking-uri={lab.uri}", f"--compliance-config={lab.folder}/compliance.toml"]
    assert (
        subprocess.run([*command, *options], cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL).returncode
        == -signal.SIGKILL
    )
    for run in production(lab):
        assert run.info.run_name == "old" or run.data.tags["compliance.build"] == "complete"
    done = carry_out(lab, plan_for(lab, "MOD001", "RUN002", "REG001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert findings(lab, "MOD001", "RUN002", "REG001") == []
    assert [run.info.run_name for run in production(lab)] == ["production_v2"]
    assert plan_for(lab, "MOD001", "RUN002", "REG001").steps == ()


SOURCES: dict[str, tuple[Callable[[Lab], object], str]] = {
    "no model": (
        lambda lab: (lab.folder / "models" / "model.pkl").unlink(),
        "models/model.pkl (products.production.model) cannot be read",
    ),
    "hostile model": (
        lambda lab: (lab.folder / "models" / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR."),
        "is not safe to load",
    ),
    "no predictions": (
        lambda lab: (lab.folder / "results" / "predictions.parquet").write_bytes(b"x"),
        "predictions.parquet",
    ),
}


@pytest.mark.parametrize("harm", SOURCES)
def test_sources_that_cannot_be_used_are_told_and_nothing_is_built(lab: Lab, harm: str) -> None:
    break_it, told = SOURCES[harm]
    break_it(lab)
    plan = plan_for(lab)
    assert not [change for change in plan.changes if isinstance(change, LogProductionRun)]
    assert told in unfixed(plan, "MOD001")[0].reason
