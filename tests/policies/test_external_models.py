"""Models that are hosted elsewhere have no files and are fine; what only lost its files is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from gates import POLICIES, Gate, told
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from producing import settings_for
from repairs import findings
from stores import Lab

EXTERNAL = "mlflow.model.isExternal"
DUMMY = {"MLmodel": b"flavors: {}\nmetadata:\n  mlflow.model.isExternal: true\n"}
"""What MLflow writes, in essence, so that such a model can be registered."""
ABOUT_FILES = ("ART002", "ART003", "ART005", "MOD001", "REG002")
PRODUCT = """
[[products]]
name = "credit"
primary = "credit_delivery"
experiments = ["credit_*"]
[products.production]
registered_model = "credit"
"""


@pytest.fixture
def store(make_lab: Callable[..., Lab], gate: Gate) -> Lab:
    """A production run in an experiment of its own, beside a root with files; its model is still to come."""
    lab = make_lab(**settings_for(registered_model="credit"))
    lab.run(
        lab.experiment("credit_delivery", lifecycle="production"),
        files={"note.txt": b"the root is there"},
        stage="production",
    )
    (gate.folder / "compliance.toml").write_text(f'[store]\ntracking_uri = "{lab.uri}"\n{PRODUCT}')
    return lab


def production(lab: Lab) -> str:
    return str(lab.runs("1")[0].info.run_id)


def logged(
    lab: Lab, value: str | None = "true", *, files: dict[str, bytes] | None = None, status: str = "READY", run: str = ""
) -> str:
    """A logged model with a tag about where it is hosted; MLflow's own call makes them through its global state."""
    run = run or production(lab)
    made = lab.client.create_logged_model(
        "1", name="hosted", source_run_id=run, tags={EXTERNAL: value} if value is not None else {}
    )
    lab.client.log_outputs(run, [LoggedModelOutput(made.model_id, 0)])
    if files:
        lab.upload(made.artifact_location, files)
    if status != "PENDING":
        lab.client.finalize_logged_model(made.model_id, LoggedModelStatus(status))
    return str(made.model_id)


def codes(lab: Lab, *ids: str) -> list[tuple[str, str]]:
    return [(item.policy, item.code) for item in findings(lab, *(ids or ABOUT_FILES))]


@pytest.mark.parametrize("files", [None, DUMMY], ids=["without files", "with MLflow's dummy"])
@pytest.mark.parametrize("value", ["true", "True"])
def test_an_external_model_in_production_breaks_no_rule(
    store: Lab, gate: Gate, value: str, files: dict[str, bytes] | None
) -> None:
    model = logged(store, value, files=files)
    store.registered("credit", f"models:/{model}", production(store), alias="production")
    assert codes(store) == []
    result = gate("--fix", rules=[POLICIES, "--compliance-rules=ART*,EXP*,MOD*,PRD*,REG*,RUN*,SRV001,STO*"])
    text = told(result)
    assert result.ret == 0, text
    assert "MOD001: run run: its model is hosted elsewhere, so there are no files to look at" in text
    assert (
        "not applicable: MOD003, MOD004, PRD007, SRV001: the production model of product credit is hosted elsewhere ("
        in text
    )
    assert "0 changes to 0 entities" in text


def test_versions_of_external_models_wherever_they_come_from(store: Lab) -> None:
    store.model("1", production(store))
    other = store.run("1", "agent")
    store.registered("agents", f"models:/{logged(store, run=other)}", other)
    store.registered("agents", f"models:/{logged(store, run=other)}")
    assert codes(store) == []


@pytest.mark.parametrize("value", ["false", "", "yes", None])
def test_a_model_that_is_hosted_here_and_has_no_files_is_told(store: Lab, value: str | None) -> None:
    """The other direction: it is the tag's value that counts, not the tag."""
    model = logged(store, value)
    store.registered("credit", f"models:/{model}", production(store), alias="production")
    assert codes(store) == [("ART003", "unreachable"), ("MOD001", "no-model"), ("REG002", "no-model")]


def test_a_version_without_files_beside_one_of_an_external_model_is_told(store: Lab) -> None:
    store.registered("credit", f"models:/{logged(store, files=DUMMY)}", production(store))
    lost = logged(store, None, files={"MLmodel": b"flavors: {a: {data: model.pkl}}", "model.pkl": b"weights"})
    store.registered("credit", f"models:/{lost}", production(store))
    shutil.rmtree(store.location_of(lost))
    found = [item for item in findings(store, "REG002") if item.code == "no-model"]
    assert [item.entity.key for item in found] == ["credit/2"]


def test_an_external_model_does_not_stand_for_one_whose_files_are_gone(store: Lab) -> None:
    logged(store)
    lost = store.model("1", production(store))
    assert codes(store, "MOD001") == []
    shutil.rmtree(store.location_of(lost))
    assert codes(store, "MOD001") == [("MOD001", "no-model")]


@pytest.mark.parametrize("status", ["PENDING", "FAILED"])
def test_a_model_that_was_never_finished_beside_it_asks_for_nothing(store: Lab, status: str) -> None:
    logged(store)
    logged(store, None, status=status)
    assert codes(store, "MOD001") == []


def test_an_incomplete_model_is_told_whatever_its_neighbour_is(store: Lab) -> None:
    logged(store, files=DUMMY)
    (store.location_of(store.model("1", production(store))) / "model.pkl").unlink()
    assert codes(store, "ART005", "MOD001") == [("ART005", "incomplete"), ("MOD001", "incomplete")]


def test_a_model_with_files_is_looked_at_whatever_its_tag_says(store: Lab) -> None:
    logged(store, files={"MLmodel": b"flavors: {a: {data: model.pkl}}", "model.pkl": b""})
    assert codes(store, "MOD001") == [("MOD001", "incomplete")]


def test_an_alias_on_the_external_model_of_another_run_is_told(store: Lab) -> None:
    """What would be loaded is not the production run's, files or none."""
    logged(store)
    other = store.run("1", "agent")
    store.registered("credit", f"models:/{logged(store, run=other)}", other, alias="production")
    assert codes(store, "SRV001") == [("SRV001", "files-missing")]
