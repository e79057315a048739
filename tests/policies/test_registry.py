"""REG001 to REG003: the alias leads to production, sources exist, stages are gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from producing import settings_for
from repairs import carry_out, findings, plan_for, unfixed
from stores import Lab

LabMaker = Callable[..., Lab]


@pytest.fixture
def served(make_lab: LabMaker) -> tuple[Lab, str, str]:
    """A store whose alias names the production run's model; the run and the model."""
    lab = make_lab(**settings_for(registered_model="credit"))
    key = lab.experiment("credit_delivery")
    run_id = lab.run(key, stage="production")
    model_id = lab.model(key, run_id)
    lab.registered("credit", f"models:/{model_id}", run_id, alias="production")
    return lab, run_id, model_id


def test_a_registry_in_order(served: tuple[Lab, str, str]) -> None:
    assert findings(served[0], "REG001", "REG002", "REG003") == []


def test_reg001_alias_of_another_run(served: tuple[Lab, str, str]) -> None:
    lab, run_id, _ = served
    other = lab.run("1", "other")
    lab.registered("credit", f"models:/{lab.model('1', other)}", other, alias="production")
    (found,) = findings(lab, "REG001")
    assert (found.observed, found.expected) == (f"run {other}", f"run {run_id} (alias: built in)")
    done = carry_out(lab, plan_for(lab, "REG001"))
    assert (done.differing, findings(lab, "REG001")) == ([], [])
    model = lab.client.get_registered_model("credit")
    # The version that was there is named again: nothing is registered twice.
    assert {key: str(value) for key, value in model.aliases.items()} == {"production": "1"}
    assert len(lab.client.search_model_versions("name = 'credit'")) == 2


@pytest.mark.parametrize("harm", ["alias", "model"])
def test_reg001_no_alias_or_no_registered_model(served: tuple[Lab, str, str], harm: str) -> None:
    lab, run_id, _ = served
    if harm == "alias":
        lab.client.delete_registered_model_alias("credit", "production")
    else:
        lab.client.delete_registered_model("credit")
    assert len(findings(lab, "REG001")) == 1
    assert carry_out(lab, plan_for(lab, "REG001")).differing == []
    assert findings(lab, "REG001") == []
    assert lab.client.get_model_version_by_alias("credit", "production").run_id == run_id


def test_reg001_is_not_asked_without_a_name(lab: Lab) -> None:
    lab.run(lab.experiment("credit_delivery"), stage="production")
    assert findings(lab, "REG001") == []


def test_reg001_which_model_is_not_guessed(served: tuple[Lab, str, str]) -> None:
    lab, run_id, _ = served
    lab.model("1", run_id, "second")
    lab.client.delete_registered_model_alias("credit", "production")
    assert "2 logged models" in unfixed(plan_for(lab, "REG001"), "REG001")[0].reason


@pytest.mark.parametrize("harm", ["folder", "file"])
def test_reg002_files_that_are_gone(served: tuple[Lab, str, str], harm: str) -> None:
    """Trap 10: the row says READY whatever became of the files."""
    lab, _, model_id = served
    folder = lab.location_of(model_id)
    lab.run(lab.experiment("other"), files={"a.txt": b"the root is there"})
    if harm == "folder":
        shutil.rmtree(folder)
    else:
        (folder / "model.pkl").unlink()
    (found,) = findings(lab, "REG002")
    assert found.entity.key == "credit/1"
    assert "put the files back" in unfixed(plan_for(lab, "REG002"), "REG002")[0].reason


def test_reg003_a_stage(served: tuple[Lab, str, str]) -> None:
    lab = served[0]
    lab.client.transition_model_version_stage("credit", "1", "Production")
    (found,) = findings(lab, "REG003")
    assert (found.entity.key, found.observed, found.expected) == ("credit/1", "Production", "an alias")
