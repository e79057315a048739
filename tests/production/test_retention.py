"""What a hold and the retention of production cover: by rows of a real store, for a day that the settings name."""

from __future__ import annotations

from typing import Any

from mlflow.entities import LoggedModelInput
from stores import Lab

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.retention import Retained, retained
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.store import open_store

DAY = 86_400_000


def with_retention(lab: Lab, **retention: Any) -> Context:
    settings = Settings.model_validate({**lab.settings.model_dump(exclude_unset=True), "retention": retention})
    return Context(open_store(lab.uri, settings, str(lab.folder)).read(artifacts=False), settings)


def held(context: Context) -> dict[str, set[str]]:
    """Kind -> keys."""
    found: dict[str, set[str]] = {}
    for kind, key in retained(context):
        found.setdefault(kind, set()).add(key)
    return found


def test_nothing_said_nothing_held(lab: Lab) -> None:
    lab.client.delete_run(lab.run("0", stage="production"))
    context = with_retention(lab, deleted_days=180)
    assert retained(context) == {}
    assert len(context.snapshot.row_facts) == 1


def test_a_hold_on_an_experiment_covers_what_is_in_it(lab: Lab) -> None:
    home, other = lab.experiment("Größe  fraud 2024"), lab.experiment("other")
    run, gone = lab.run(home), lab.run(home)
    model, lost = lab.model(home, run), lab.model(home, gone)
    read = lab.model(other, lab.run(other, "maker"), "base")
    lab.client.log_inputs(run, models=[LoggedModelInput(read)])
    version = lab.registered("fraud", f"models:/{model}", run)
    lab.registered("fraud", f"models:/{read}")
    lab.run(other)
    lab.client.delete_logged_model(lost)
    lab.client.delete_run(gone)
    context = with_retention(lab, hold=[{"experiments": ["GRO\u0308SSE  FRAUD*"], "reason": "case 7"}])
    assert held(context) == {
        "experiment": {home, other},
        "run": {run, gone},
        "logged_model": {model, lost, read},
        "registered_model": {"fraud"},
        "model_version": {f"fraud/{version}"},
    }
    (why,) = retained(context)["logged_model", lost]
    assert why == Retained("hold", f"legal hold on experiment Größe  fraud 2024 (case 7)", None)
