"""A saved plan that builds a production run: it is built anew when the plan is carried out, from the files that were
reviewed.
"""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from gates import POLICIES, Gate, LabMaker, state, told
from producing import unproduced

PLAN = "--fix-plan=plan.json"
ASKED = "--compliance-rules=MOD001,MOD003,PRD*,RUN002,REG001,EXP003,ART*"


def made(gate: Gate, lab: Any, *flags: str) -> Any:
    return gate(f"--compliance-config={lab.folder / 'compliance.toml'}", ASKED, *flags, rules=[POLICIES])


def test_it_is_built_anew_from_the_same_files(gate: Gate, make_lab: LabMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else carries it out, from a later commit: what is made names them."""
    lab = unproduced(make_lab)
    before = state(lab.folder)
    monkeypatch.setenv("LOGNAME", "ann")
    dry = made(gate, lab, "--fix-dry-run", PLAN)
    assert state(lab.folder) == before
    document = json.loads((gate.folder / "plan.json").read_text("utf-8"))
    assert document["made"]["by"] == "ann"
    assert "1 production run logged" in document["summary"]["totals"], told(dry)
    (planned,) = [
        change["change"]
        for step in document["steps"]
        for change in step["changes"]
        if change["change"]["kind"] == "LogProductionRun"
    ]
    assert planned["metadata"]["product"] == "credit"
    assert "bundle" not in planned

    # Another model than the one that was reviewed: nothing of the run, nor of what builds on it.
    model = lab.folder / "models" / "model.pkl"
    reviewed = model.read_bytes()
    model.write_bytes(pickle.dumps(pickle.loads(reviewed), protocol=2))
    other = made(gate, lab, "--fix", PLAN)
    assert other.ret == 1
    assert "not done: log production run 'production_v2' into experiment 1" in told(other)
    assert "by now it would be another one, with other tags, other files, " in told(other)
    assert [run.info.run_name for run in lab.runs("1")] == ["old"]
    assert lab.runs("1")[0].data.tags["stage"] == "production"
    assert not lab.read().registered_models

    model.write_bytes(reviewed)
    monkeypatch.setenv("LOGNAME", "bob")
    done = made(gate, lab, "--fix", PLAN)
    assert done.ret == 0, told(done)
    assert "not done: " not in told(done)
    (run,) = [run for run in lab.runs("1") if run.data.tags.get("stage") == "production"]
    assert (run.info.run_name, run.info.status) == ("production_v2", "FINISHED")
    assert run.data.tags["mlflow.user"] == "bob"
    again = made(gate, lab, "--fix", PLAN)
    assert again.ret == 0, told(again)
    number = document["summary"]["changes"]
    assert f"plan.json: 0 of {number} planned changes made; {number} made before" in told(again)
