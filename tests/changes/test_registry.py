"""Run tags and the registry, held to the laws of every Change."""

from __future__ import annotations

import pytest
from stores import Lab, there_and_back

from mlflow_compliance.changes import RegisterVersion, SetAlias, SetRunTag
from mlflow_compliance.changes.registry import version_of
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.write.writer import StoreWriter


@pytest.mark.parametrize(
    ("key", "value", "before"),
    [("new", "größer", None), ("stage", "superseded", "production"), ("stage", None, "production")],
)
def test_set_run_tag(lab: Lab, key: str, value: str | None, before: str | None) -> None:
    run_id = lab.run(lab.experiment("credit_delivery"), stage="production")
    between, _ = there_and_back(lab, SetRunTag(run_id, key, value, before))
    assert between.runs[run_id].tags.get(key) == value


def test_a_run_tag_that_somebody_changed_meanwhile_stays(lab: Lab) -> None:
    run_id = lab.run(lab.experiment("credit_delivery"), stage="canary")
    with pytest.raises(ChangeError, match="is now 'canary' and was 'production'"):
        StoreWriter(lab.store, {}).write(SetRunTag(run_id, "stage", "superseded", "production"))
    assert lab.client.get_run(run_id).data.tags["stage"] == "canary"


@pytest.mark.parametrize("known", [False, True], ids=["a new registered model", "one that is there"])
def test_register_and_alias(lab: Lab, known: bool) -> None:
    key = lab.experiment("credit_delivery")
    run_id = lab.run(key, stage="production")
    model_id = lab.model(key, run_id)
    if known:
        other = lab.model(key, run_id, "other")
        lab.registered("credit", f"models:/{other}", run_id, alias="production")
        lab.registered("credit", f"models:/{other}", run_id)
        # A version that was deleted keeps its number from being given again.
        lab.client.delete_model_version("credit", "2")
    changes = [
        RegisterVersion("credit", model_id, run_id, key, makes_model=not known),
        SetAlias("credit", "production", version_of(model_id), "1" if known else None),
    ]
    between, binding = there_and_back(lab, *changes)
    number = binding[version_of(model_id)]
    assert number == ("3" if known else "1")
    assert between.registered_models["credit"].aliases == {"production": number}
    assert [item.name for item in lab.client.search_registered_models()] == (["credit"] if known else [])


def test_taking_an_alias_away(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    run_id = lab.run(key)
    lab.registered("credit", f"models:/{lab.model(key, run_id)}", run_id, alias="production")
    between, _ = there_and_back(lab, SetAlias("credit", "production", None, "1"))
    assert between.registered_models["credit"].aliases == {}


def test_an_alias_that_somebody_moved_meanwhile_stays(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    run_id = lab.run(key)
    lab.registered("credit", f"models:/{lab.model(key, run_id)}", run_id, alias="production")
    with pytest.raises(ChangeError, match="is now '1' and was None"):
        StoreWriter(lab.store, {}).write(SetAlias("credit", "production", "1", None))


def test_what_does_not_apply_is_refused_when_it_is_planned(lab: Lab) -> None:
    lab.experiment("credit_delivery")
    with pytest.raises(ChangeError, match="logged model m-1 is not there"):
        RegisterVersion("credit", "m-1", "r", "1", makes_model=True).predict(lab.read())
    with pytest.raises(ChangeError, match="has no version 7"):
        SetAlias("credit", "production", "7", None).predict(lab.read())
