"""MOD001: the production run has its model."""

from __future__ import annotations

import shutil

import pytest
from repairs import findings, plan_for, unfixed
from stores import Lab, model_files


@pytest.mark.parametrize("kind", ["logged", "of the old style"])
def test_mod001_a_model_with_all_its_files(lab: Lab, kind: str) -> None:
    key = lab.experiment("credit_delivery")
    if kind == "logged":
        run_id = lab.run(key, stage="production")
        lab.model(key, run_id)
    else:
        run_id = lab.run(
            key,
            stage="production",
            files={f"model/{name}": content for name, content in model_files("", "", "model", {}).items()},
        )
    assert findings(lab, "MOD001") == []


def test_mod001_no_production_run(lab: Lab) -> None:
    lab.run(lab.experiment("credit_delivery"))
    assert [finding.message for finding in findings(lab, "MOD001")] == ["no run is marked as production"]


@pytest.mark.parametrize(
    ("harm", "message", "observed"),
    [
        ("never logged", "has no model artifact", "no MLmodel"),
        ("folder gone", "has no model artifact", "no MLmodel"),
        ("file gone", "its model is not complete", "missing: model.pkl"),
        ("file empty", "its model is not complete", "empty: model.pkl"),
        ("MLmodel broken", "its model is not complete", "MLmodel"),
    ],
)
def test_mod001_ready_proves_nothing(lab: Lab, harm: str, message: str, observed: str) -> None:
    """Trap 10: the rows say READY whatever became of the files."""
    key = lab.experiment("credit_delivery")
    run_id = lab.run(key, files={"note.txt": b"its root is there"}, stage="production")
    if harm != "never logged":
        folder = lab.location_of(lab.model(key, run_id))
        if harm == "folder gone":
            shutil.rmtree(folder)
        elif harm == "file gone":
            (folder / "model.pkl").unlink()
        elif harm == "file empty":
            (folder / "model.pkl").write_bytes(b"")
        else:
            (folder / "MLmodel").write_bytes(b"flavors: [")
    (found,) = findings(lab, "MOD001")
    assert found.entity.key == run_id
    assert found.message == message
    assert observed in found.observed
    assert "log the model" in unfixed(plan_for(lab, "MOD001"), "MOD001")[0].reason
