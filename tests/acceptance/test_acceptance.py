"""What is true of every kind of store: the gate, the dry run, the repair, a second one that plans nothing, and the
way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from buckets import s3_client
from evidence import differing as unlike
from evidence import files_of, lost, new_paths, rows_of
from gates import EVERY_RULE, Gate, make_messy, owned, plan_in, state, told
from places import Guest, Kind
from repairs import lines_of
from stores import BIG, differing
from undoing import taken_back

from mlflow_compliance.settings.schema import load_settings
from mlflow_compliance.snapshot.diff import differences

MODULES = ("kinds_embedded", "kinds_databases", "kinds_servers", "kinds_buckets")
KINDS: dict[str, Kind] = {
    name: kind for module in MODULES if find_spec(module) for name, kind in import_module(module).KINDS.items()
}
LEFT: dict[str, set[str]] = {
    "sqlite-s3": {"ART001"},
    "postgresql-s3 with pointers": {"ART001"},
    "served": {"ART001"},
    "served from s3": {"ART001"},
}
"""Kind -> rules that only give advice on stores of that kind; none on most."""
POINTING = {"postgresql-s3 with pointers"}


@pytest.fixture(params=KINDS)
def guest(
    request: pytest.FixtureRequest,
    gate: Gate,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Guest]:
    """A messy store of each kind, built through MLflow alone, with settings that name it."""
    folder = tmp_path_factory.mktemp(request.param)
    with KINDS[request.param](folder) as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        gate.settings(place.uri, place.settings)
        found = Guest(place, gate.folder, load_settings(gate.folder / "compliance.toml"))
        ids = make_messy(found)
        delivery, production = ids["credit_delivery"], ids["credit_production"]
        found.rich_run(delivery, "rich delivery", base_in="0")
        parent = found.rich_run(production, "rich champion", base_in="0")
        found.run(production, "child", files={"shap.bin": BIG}, **{"mlflow.parentRunId": parent})
        source = found.run(delivery, "registered", files={"model/MLmodel": b"flavors: {}\n"})
        found.registered("credit", f"runs:/{source}/model", source, alias="champion")
        delete_what_is_needed(found)
        if found.local:
            found.stray("26", {"left.bin": b"left behind" * 200})
        yield found


def delete_what_is_needed(guest: Guest) -> None:
    """A name, Default, the parent of a run."""
    taken, other = guest.experiment("churn"), guest.experiment("other", lifecycle="reference")
    guest.run(taken)
    parent = guest.run(other, "parent")
    guest.run(other, "child", **{"mlflow.parentRunId": parent})
    guest.client.delete_run(parent)
    for key in (taken, "0"):
        guest.client.delete_experiment(key)


def test_gate_plan_repair_and_the_way_back(guest: Guest, gate: Gate, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["guest"]
    wrong = EVERY_RULE | {"EXP004", "EXP005", "RUN003"}
    wrong -= set() if guest.local else {"ART002"}
    files = Path(guest.place.artifacts) if guest.local else gate.folder
    before, untouched, rows, objects = guest.everything(), state(files), rows_in(guest), held_by(guest)

    audited = gate()
    assert (audited.ret, broken(audited)) == (1, wrong), told(audited)
    # A database or server lies in no folder, so nothing here tells whose the artifact root is: the first repair is
    # told, the next ones know.
    strange = guest.local and guest.store.backend.home is None
    insisted = [owned(guest.place.artifacts)] if strange else []
    if strange:
        assert "insist with --fix-owned-root=" in told(audited)
    planned = gate("--fix-dry-run", *insisted)
    assert planned.ret == 1
    assert differing(before, guest.everything()) == []
    assert state(files) == untouched
    assert not (gate.folder / ".compliance").exists()

    fixed = gate("--fix", *insisted)
    left = LEFT.get(kind, set())
    assert (fixed.ret, broken(fixed)) == (int(bool(left)), left), told(fixed)
    assert "verified: the store, read anew, is what was planned" in told(fixed)
    assert plan_in(fixed) == plan_in(planned)
    assert differing(before, guest.everything()), "nothing was changed, so nothing was shown"
    assert ("object points to another copy" in told(fixed) or "objects point to another copy" in told(fixed)) == (
        kind in POINTING
    )

    second = gate("--fix")
    assert (second.ret, broken(second)) == (fixed.ret, left)
    assert plan_in(second)[-1].startswith("0 changes to 0 entities"), told(second)

    (journal,) = Path(guest.store.folder).glob("[0-9]*.jsonl")
    undone = gate("--fix-undo=last", rules=())
    assert undone.ret == 0, told(undone)
    assert "verified: the store, read anew, is what was planned" in told(undone)
    assert lost(rows, rows_in(guest)) == {}
    held = held_by(guest)
    assert unlike(objects, held) == {}
    if guest.local:
        keeps = guest.client.get_experiment_by_name("compliance-journals")
        journals = keeps.experiment_id if keeps else "none"
        assert [path for path in new_paths(objects, held) if path.split("/")[0] != journals] == []
    after = guest.read(tuple(before.runs))
    assert differing(before, after) == []
    assert differences(before, after) == []
    made = {entry for line in lines_of(journal) for entry in line.get("bound", {}).values()}
    assert set(taken_back(guest)) & made
    assert set(taken_back(guest)) <= made

    (undoing,) = {*Path(guest.store.folder).glob("[0-9]*.jsonl")} - {journal}
    redone = gate(f"--fix-undo={undoing.stem}", rules=())
    assert redone.ret == 0, told(redone)
    assert "verified: the store, read anew, is what was planned" in told(redone)
    again = gate()
    assert (again.ret, broken(again)) == (fixed.ret, left), told(again)


def rows_in(guest: Guest) -> dict[str, Any]:
    """Every row of its database. Through a server nobody can take an end from a run, nor say when one was deleted."""
    place = guest.place
    return rows_of(place.database, ("end_time", "deleted_time")) if place.database else rows_of(place.uri)


def held_by(guest: Guest) -> dict[str, Any]:
    """Every file or object where its artifacts lie."""
    place = guest.place
    if guest.local or place.kept:
        return dict(files_of(place.kept or Path(place.artifacts)))
    if not place.artifacts:
        return {}
    bucket, _, prefix = place.artifacts.removeprefix("s3://").partition("/")
    client = s3_client(place.environment["MLFLOW_S3_ENDPOINT_URL"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item["Key"]: (item["Size"], item["ETag"]) for page in pages for item in page.get("Contents", ())}


def broken(result: pytest.RunResult) -> set[str]:
    """Ids of the rules that a run says are broken."""
    return {found[1] for line in result.outlines if (found := re.match(r" ([A-Z]{3}\d{3}) +\S", line))}
