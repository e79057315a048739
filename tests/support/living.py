"""Puts into a store, through MLflow's own calls, whatever may keep runs and experiments alive."""

from __future__ import annotations

import os
import time

from mlflow.entities import (
    GatewayEndpointModelConfig,
    GatewayModelLinkageType,
    LoggedModelInput,
    TraceInfo,
    TraceLocation,
    TraceState,
)
from stores import START, Lab

HOUR = 3_600_000
PARENT = "mlflow.parentRunId"
SCORER = '{"instructions_judge_pydantic_data": null, "name": "polite"}'


def ago(hours: float) -> int:
    return int(time.time() * 1000 - hours * HOUR)


def silent(lab: Lab, experiment_id: str = "0", hours: float = 60, **tags: str) -> str:
    """A run that has said nothing since it began."""
    return lab.run(experiment_id, "silent", start=ago(hours), status="RUNNING", **tags)


def traced(lab: Lab, experiment_id: str, run_id: str, at: int, state: TraceState = TraceState.OK, took: int = 5) -> str:
    """A trace that was logged for a run ('' for none)."""
    metadata = {"mlflow.sourceRun": run_id} if run_id else {}
    key = f"tr-{os.urandom(16).hex()}"
    place = TraceLocation.from_experiment_id(experiment_id)
    lab.client._tracking_client.store.start_trace(
        TraceInfo(key, place, at, state, execution_duration=took, trace_metadata=metadata)
    )
    return key


def prompt(lab: Lab, *experiments: str) -> None:
    """As `register_prompt` leaves it, which ties a prompt to its experiment from a thread of its own."""
    lab.client.create_prompt("greeting", tags={"_mlflow_experiment_ids": f",{','.join(experiments)},"})


def endpoint(lab: Lab, experiment_id: str, *, tracking: bool = True) -> None:
    store = lab.client._tracking_client.store
    secret = store.create_gateway_secret("key", {"api_key": "none"}, provider="openai")
    model = store.create_gateway_model_definition("gpt", secret.secret_id, "openai", "gpt-4")
    config = GatewayEndpointModelConfig(model.model_definition_id, GatewayModelLinkageType.PRIMARY)
    store.create_gateway_endpoint("chat", [config], experiment_id=experiment_id, usage_tracking=tracking)


def scorer(lab: Lab, experiment_id: str) -> None:
    lab.client._tracking_client.store.register_scorer(experiment_id, "polite", SCORER)


def read_model(lab: Lab, experiment_id: str, reader_in: str, status: str = "FINISHED") -> tuple[str, str]:
    """A model of an experiment and a run elsewhere that read it: their ids, the run's first."""
    model = lab.model(experiment_id, lab.run(experiment_id))
    reader = lab.run(reader_in, "reader", status="RUNNING")
    lab.client.log_inputs(reader, models=[LoggedModelInput(model)])
    if status != "RUNNING":
        lab.client.set_terminated(reader, status=status, end_time=START + 1)
    return reader, model


def everything_alive(lab: Lab) -> str:
    """A test experiment that everything keeps alive, and a silent run of which the same is true; the id of the
    experiment.
    """
    key, other = lab.experiment("test_alive"), lab.experiment("elsewhere")
    parent = silent(lab, other)
    child = lab.run(key, start=ago(50), **{PARENT: parent})
    lab.run("0", start=ago(40), status="RUNNING", metrics={"auc": 0.5}, **{PARENT: child})
    lab.client.log_metric(child, "late", 1.0, timestamp=ago(2))
    lab.client.delete_run(lab.run(other, start=ago(30), **{PARENT: child}))
    traced(lab, other, child, ago(1))
    traced(lab, key, "", ago(1))
    traced(lab, key, parent, ago(90), TraceState.IN_PROGRESS)
    lab.client._tracking_client.store.link_traces_to_run([traced(lab, other, "", ago(80))], parent)
    lab.client.create_logged_model(other, name="making", source_run_id=parent)
    lab.client.create_logged_model(key, name="loose")
    lab.client.create_dataset("golden questions", experiment_id=["0", key])
    prompt(lab, "0", key)
    endpoint(lab, key)
    scorer(lab, key)
    reader, model = read_model(lab, key, other)
    lab.client.delete_run(read_model(lab, key, other)[0])
    lab.registered("kept", f"models:/{model}", reader, alias="champion")
    return key
