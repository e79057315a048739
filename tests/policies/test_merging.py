"""EXP001 where what is merged lies on two file systems, or names one dataset from two places: it ends as planned,
or is refused beforehand.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gates import Gate, owned, told
from mlflow.entities import Dataset, DatasetInput, InputTag
from repairs import carry_out, findings, plan_for, take_back, unfixed
from stores import BIG, START, Lab

from mlflow_compliance.snapshot.tags import SOURCE_DATASETS


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on another file system than the temporary folder."""
    place = Path("/dev/shm")
    if not place.is_dir() or place.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    folder = Path(tempfile.mkdtemp(dir=place))
    yield folder
    shutil.rmtree(folder)


def logged(
    lab: Lab, experiment_id: str, source: str, *, name: str = "train", schema: str | None = None, start: int = START
) -> str:
    """A run that was given a dataset under one name and digest, from a source."""
    run_id = lab.run(
        experiment_id, "with data", start=start, status="RUNNING", files={"notes.bin": BIG + source.encode()[:100]}
    )
    dataset = Dataset(name, "abc123", "local", json.dumps({"uri": source}), schema, None)
    lab.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])])
    lab.client.set_terminated(run_id, end_time=start + 1000)
    return run_id


def copies(lab: Lab, experiment_id: str) -> dict[str, str]:
    """Id of the source -> that of its copy."""
    tags = {run.info.run_id: run.data.tags for run in lab.runs(experiment_id)}
    return {
        item["compliance.source_run_id"]: key for key, item in tags.items() if item.get("compliance.copy") == "complete"
    }


def test_a_dataset_from_two_sources_keeps_both(lab: Lab) -> None:
    primary, rival = lab.experiment("credit_delivery"), lab.experiment("credit_production")
    own, other = logged(lab, primary, "/data/train.csv"), logged(lab, rival, "/mnt/old/train.csv", schema='{"a": 1}')
    same = logged(lab, rival, "/data/other.csv", name="other")
    done = carry_out(lab, plan_for(lab, "EXP001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert findings(lab, "EXP001") == []
    made = copies(lab, primary)
    copy = lab.client.get_run(made[other])
    (dataset,) = copy.inputs.dataset_inputs
    assert (dataset.dataset.source, dataset.tags[0].value) == ('{"uri": "/data/train.csv"}', "train")
    (kept,) = json.loads(copy.data.tags[SOURCE_DATASETS])
    assert (kept["name"], kept["digest"], kept["source"], kept["schema"]) == (
        "train",
        "abc123",
        '{"uri": "/mnt/old/train.csv"}',
        '{"a": 1}',
    )
    assert SOURCE_DATASETS not in lab.client.get_run(made[same]).data.tags
    assert lab.client.get_run(own).inputs.dataset_inputs[0].dataset.source == '{"uri": "/data/train.csv"}'
    assert not list(lab.mlruns.rglob(".quarantine"))
    take_back(lab, done.lines)
    assert lab.client.get_experiment(rival).lifecycle_stage == "active"


def test_two_rivals_with_one_dataset_from_two_sources(lab: Lab) -> None:
    """The first copy brings the dataset; the second finds it there, as its plan knew."""
    primary = lab.experiment("credit_delivery")
    runs = [
        logged(lab, lab.experiment(name), f"/{name}/train.csv") for name in ("credit_production", "credit_a_production")
    ]
    done = carry_out(lab, plan_for(lab, "EXP001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    made = copies(lab, primary)
    assert made.keys() == set(runs)
    assert sum(SOURCE_DATASETS in lab.client.get_run(key).data.tags for key in made.values()) == 1


def test_a_merge_that_was_broken_off_goes_on_with_both_sources(lab: Lab) -> None:
    """What the first repair copied is compared with its source: the dataset that stands for another one is no
    difference.
    """
    primary, rival = lab.experiment("credit_delivery"), lab.experiment("credit_production")
    logged(lab, primary, "/data/train.csv")
    logged(lab, rival, "/mnt/old/train.csv")
    plan = plan_for(lab, "EXP001")
    lab.carry_out(plan.changes[0])
    logged(lab, rival, "/mnt/old/train.csv", start=START + 5)
    done = carry_out(lab, plan_for(lab, "EXP001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert len(copies(lab, primary)) == 2


def test_a_source_that_no_tag_can_hold_is_refused_before_anything_is_written(lab: Lab) -> None:
    primary, rival = lab.experiment("credit_delivery"), lab.experiment("credit_production")
    logged(lab, primary, "/data/train.csv")
    logged(lab, rival, "/mnt/old/train.csv", schema=json.dumps({f"column {number}": "double" for number in range(400)}))
    before = lab.database.read_bytes()
    for _ in range(2):
        plan = plan_for(lab, "EXP001")
        assert plan.changes == ()
        assert "the dataset 'train' from another source" in unfixed(plan, "EXP001")[0].reason
        carry_out(lab, plan)
    assert lab.database.read_bytes() == before
    assert not list(lab.mlruns.rglob(".quarantine"))


Where = Callable[[Lab, Path], tuple[str, str]]


def _rival_in_memory(lab: Lab, memory: Path) -> tuple[str, str]:
    primary = lab.experiment("credit_delivery")
    return primary, lab.client.create_experiment("credit_production", artifact_location=str(memory / "rival"))


def _primary_in_memory(lab: Lab, memory: Path) -> tuple[str, str]:
    primary = lab.client.create_experiment("credit_delivery", artifact_location=str(memory / "mlruns" / "1"))
    return primary, lab.experiment("credit_production")


def _primary_linked_to_memory(lab: Lab, memory: Path) -> tuple[str, str]:
    primary = lab.experiment("credit_delivery")
    os.symlink(memory, lab.mlruns / primary)
    return primary, lab.experiment("credit_production")


PLACES: dict[str, Where] = {
    "the rival elsewhere": _rival_in_memory,
    "the primary elsewhere": _primary_in_memory,
    "the primary behind a link": _primary_linked_to_memory,
}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("used", [True, False], ids=["used", "yet to come"])
def test_a_merge_across_two_file_systems_ends_as_planned(lab: Lab, memory: Path, where: str, used: bool) -> None:
    primary, rival = PLACES[where](lab, memory)
    if used:
        lab.run(primary, files={"own.bin": BIG + b"own"})
    run_id = lab.run(rival, files={"data.bin": BIG, "small.txt": b"x", "deep/data.bin": BIG * 2})
    lab.model(rival, run_id, files={"weights.bin": BIG + b"weights"})
    done = carry_out(lab, plan_for(lab, "EXP001"))
    assert (done.differing, done.outcome.failed) == ([], [])
    (copy,) = copies(lab, primary).values()
    assert (lab.folder_of(copy) / "data.bin").read_bytes() == BIG
    assert lab.client.get_experiment(rival).lifecycle_stage == "deleted"


def test_a_merge_across_two_file_systems_is_told_as_verified(
    make_lab: Callable[..., Lab], gate: Gate, memory: Path
) -> None:
    lab = make_lab()
    primary, rival = _rival_in_memory(lab, memory)
    lab.run(primary)
    lab.run(rival, files={"data.bin": BIG})
    gate.settings(lab.uri)
    text = told(gate("--fix", "-k", "EXP001"))
    assert "verified: the store, read anew, is what was planned" in text
    # What cannot share its bytes is told, and stays.
    away = [owned(root.path) for root in lab.read().artifacts.roots if root.path.startswith(str(memory))]  # type: ignore[union-attr]
    text = told(gate("-k", "ART001", "--fix-dry-run", *away))
    assert "its copies lie on different file systems" in text
