"""The document of a plan and the law of carrying it out, without a session."""

from __future__ import annotations

import json
from importlib import resources
from runpy import run_path

from gates import CHECKOUT, LabMaker
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from repairs import plan_for
from stores import Lab

from mlflow_compliance.changes import (
    WHO,
    Change,
    ClaimRoot,
    EndRun,
    LinkDuplicate,
    LogProductionRun,
    SetExperimentTag,
    dump,
)
from mlflow_compliance.repair.plan import Plan, Step
from mlflow_compliance.repair.plan_document import (
    Asked,
    Made,
    SavedPlan,
    as_text,
    document_of,
    facts_of,
    hash_of,
    is_whole,
)
from mlflow_compliance.repair.saved_plan import Followed, keys_of
from mlflow_compliance.rules.finding import Finding
from mlflow_compliance.snapshot.entities import StoreInfo
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot

SCHEMA = json.loads(resources.files("mlflow_compliance").joinpath("schemas/plan.schema.json").read_text("utf-8"))
MADE = Made(at="2026-01-01T00:00:00+00:00", by="ann", host="here")
ASKED = Asked(rules=[], safe_alone=False, not_asked=[])
EMPTY = Snapshot(StoreInfo("sqlite:///x.db", "sqlite"), 0, {}, {}, {}, {})


def document(plan: Plan) -> dict[str, object]:
    return document_of(plan, MADE, {"mlflow": "3"}, facts_of(plan.start, ""), "0" * 64, ASKED)


def plan_of(*remedies: tuple[Change, ...]) -> Plan:
    steps = tuple(
        Step(Finding("XXX001", EntityRef("experiment", str(number)), "code", "wrong"), changes)
        for number, changes in enumerate(remedies)
    )
    return Plan(EMPTY, steps, (), EMPTY)


def test_the_schema_in_the_package_is_that_of_the_models() -> None:
    made = run_path(str(CHECKOUT / ".ci" / "plan_schema.py"))["text"]()
    assert json.loads(made) == SCHEMA, "run: python .ci/plan_schema.py"
    Draft202012Validator.check_schema(SCHEMA)


def test_a_plan_keeps_its_schema(make_lab: LabMaker) -> None:
    lab: Lab = make_lab()
    lab.run(lab.experiment("test_one"), "try")
    lab.run(lab.experiment("other"), "stuck", status="RUNNING")
    found = json.loads(as_text(document(plan_for(lab, "EXP002", "RUN001", "EXP003"))))
    assert list(Draft202012Validator(SCHEMA).iter_errors(found)) == []
    assert found["left"]
    assert is_whole(found)
    found["steps"][0]["changes"][0]["change"]["value"] = "other"
    assert not is_whole(found)


@given(st.dictionaries(st.text(), st.text(alphabet=st.characters(exclude_categories=())), max_size=3))
def test_a_way_through_a_file_changes_nothing(values: dict[str, str]) -> None:
    """Names may hold anything, halves of characters too; the file is plain text of visible characters."""
    text = as_text({"a": values})
    assert json.loads(text.encode()) == {"a": values}
    assert hash_of(json.loads(text)) == hash_of({"a": values})
    assert all(line.isprintable() for line in text.splitlines())


CHANGES: list[Change] = [
    *(LinkDuplicate(f"/r/{number}", "/r/kept", "a" * 64, 9) for number in range(3)),
    ClaimRoot("/r"),
    *(SetExperimentTag("1", "tag", value, None) for value in "ab"),
    EndRun("r", "1", "KILLED", 5),
]
SOME = st.lists(st.sampled_from(CHANGES), min_size=1, unique_by=repr).map(tuple)


@given(saved=st.lists(SOME, max_size=3), remedy=SOME)
def test_what_is_carried_out_is_in_the_saved_plan(saved: list[tuple[Change, ...]], remedy: tuple[Change, ...]) -> None:
    """Nothing else is; a remedy that is whole in it is; one that is not is begun for what does good by itself alone."""
    held = {repr(change) for changes in saved for change in changes}
    limit = Followed(SavedPlan.model_validate(document(plan_of(*saved))))
    admitted, why = limit.admit(Finding("YYY001", EntityRef("run", "r"), "code", "wrong"), remedy)
    assert {repr(change) for change in admitted} <= held
    assert list(admitted) == [change for change in remedy if change in admitted]
    missing = [number for number, change in enumerate(remedy) if repr(change) not in held]
    assert (admitted == remedy, why == "") == (not missing, not missing)
    if missing and admitted:
        assert all(isinstance(change, LinkDuplicate) for change in remedy[missing[0] :])
        assert any(isinstance(change, LinkDuplicate) for change in admitted)


def production_run(**other: object) -> LogProductionRun:
    metadata = {"artifacts": [{"path": "model/model.skops", "sha256": "c" * 64, "size": 5}], "run_id": "r"}
    values: dict[str, object] = {
        "product": "credit", "name": "run", "experiment_id": "1", "at": 5, "user": WHO, "params": {}, "metrics": {},
        "tags": {"stage": "production"}, "datasets": (), "model_name": "model", "bundle": "/tmp/one",
        "files": (("model.pkl", 3, "a" * 64),), "model_files": (("MLmodel", 9, "b" * 64), ("conda.yaml", 2, "d" * 64)),
        "metadata": json.dumps(metadata),
    }  # fmt: skip
    return LogProductionRun(**{**values, **other})  # type: ignore[arg-type]


def test_what_is_made_anew_does_not_tell_two_plans_apart() -> None:
    """A production run is built each time that it is planned: what counts is what it is built from."""
    first = production_run()
    other = {"artifacts": [{"path": "model/model.skops", "sha256": "e" * 64, "size": 6}], "run_id": "r"}
    again = production_run(
        at=6,
        bundle="/tmp/two",
        tags={"stage": "production", "mlflow.source.git.commit": "f" * 40},
        model_files=(("MLmodel", 8, "0" * 64), ("conda.yaml", 2, "d" * 64)),
        metadata=json.dumps(other),
    )
    assert first.lasting() == again.lasting()
    assert keys_of([dump(first)]) == keys_of([dump(again)])
    for values in (
        {"files": (("model.pkl", 3, "9" * 64),)},
        {"model_files": (("MLmodel", 9, "b" * 64), ("conda.yaml", 2, "9" * 64))},
        {"params": {"depth": "3"}},
        {"metrics": {"auc": 0.5}},
        {"metadata": json.dumps({**other, "run_id": "other"})},
    ):
        assert production_run(**values).lasting() != first.lasting(), values
