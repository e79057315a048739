"""Stores of random rows, as Hypothesis draws them: experiments, runs with anything, aliases."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from mlflow.entities import DatasetInput, InputTag, LoggedModelInput, Metric, Param
from stores import EVAL, START, TRAIN, Lab

PARENT = "mlflow.parentRunId"
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
KEYS = st.sampled_from(["stage", "Stage", "owner", "mlflow.note.content", "a b/c"])
VALUES = st.one_of(st.floats(width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))
POINTS = st.lists(
    st.tuples(st.sampled_from(["auc", "loss"]), VALUES, st.integers(0, 3), st.integers(-1, 3)),
    max_size=6,
    unique_by=lambda point: (point[0], *point[2:]),
)


def named(values: st.SearchStrategy[str], most: int) -> st.SearchStrategy[dict[str, str]]:
    """Tags or params under names that no database takes for one another: MariaDB keeps `stage` or `Stage`, not both."""
    return st.dictionaries(KEYS, values, max_size=most).map(
        lambda found: {key: found[key] for key in {key.lower(): key for key in found}.values()}
    )


RUN = st.fixed_dictionaries(
    {
        "experiment": st.integers(0, 2),
        "status": st.sampled_from(["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]),
        "deleted": st.booleans(),
        "name": TEXT,
        "start": st.none() | st.integers(1, START),
        "points": POINTS,
        "params": named(TEXT, 2),
        "tags": named(TEXT | st.sampled_from(["production", " Production", "PRODUCTION\t"]), 3),
        "datasets": st.lists(st.sampled_from([TRAIN, EVAL]), max_size=2, unique_by=lambda item: item.name),
        "models": st.integers(0, 2),
        "copy": st.sampled_from(["", "", "incomplete", "complete", "retracted"]),
        "parent": st.sampled_from([None, None, 0, 1, 2, 3]),
    }
)
EXPERIMENT = st.tuples(
    st.sampled_from(["credit_production", "credit_delivery", "test_1", "other"]), named(TEXT, 2), st.booleans()
)


STORE = {
    "experiments": st.lists(EXPERIMENT, min_size=2, max_size=2, unique_by=lambda item: item[0]),
    "runs": st.lists(RUN, max_size=4),
    "aliases": st.lists(st.sampled_from(["champion", "old"]), max_size=2),
}
AS_IT_COMES = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def fill(
    lab: Lab, experiments: list[tuple[str, dict[str, str], bool]], runs: list[dict[str, Any]], aliases: list[str]
) -> None:
    keys = ["0", *(lab.experiment(name, **tags) for name, tags, _ in experiments)]
    read = lab.client.create_logged_model("0", name="base").model_id
    made = [write_run(lab, keys[spec["experiment"]], spec, read) for spec in runs]
    for run_id, spec in zip(made, runs, strict=True):
        if spec["parent"] is not None:
            # In circles too; what is past the last run is nobody.
            lab.client.set_tag(run_id, PARENT, [*made, *("f" * 32,) * 4][spec["parent"]])
        if spec["deleted"]:
            lab.client.delete_run(run_id)
    for number, alias in enumerate(aliases):
        lab.registered(f"model {number}", str(lab.folder / "elsewhere"), alias=alias)
    for key, (_, _, deleted) in zip(keys[1:], experiments, strict=True):
        if deleted:
            lab.client.delete_experiment(key)


def write_run(lab: Lab, experiment_id: str, spec: dict[str, Any], read: str) -> str:
    tags = {
        **spec["tags"],
        **({"compliance.copy": spec["copy"], "compliance.source_run_id": "1"} if spec["copy"] else {}),
    }
    run_id = lab.client.create_run(
        experiment_id, start_time=spec["start"], tags=tags, run_name=spec["name"] or None
    ).info.run_id
    models = [
        lab.client.create_logged_model(experiment_id, name="m", source_run_id=run_id, tags={"a": "b"}).model_id
        for _ in range(spec["models"])
    ]
    metrics = [
        Metric(key, value, START + at, step, model_id=next(iter(models), None))
        for key, value, at, step in spec["points"]
    ]
    lab.client.log_batch(run_id, metrics=metrics, params=[Param(key, value) for key, value in spec["params"].items()])
    inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "train")]) for data in spec["datasets"]]
    lab.client.log_inputs(run_id, inputs, [LoggedModelInput(read)] if models else None)
    if spec["status"] in ("FINISHED", "FAILED", "KILLED"):
        lab.client.set_terminated(run_id, status=spec["status"])
    else:
        lab.client.update_run(run_id, status=spec["status"])
    return str(run_id)
