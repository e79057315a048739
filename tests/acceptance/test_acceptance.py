"""What is true of every kind of store: the gate, the dry run, the repair, a second one that plans nothing, and the
way back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from buckets import s3_client
from collecting import collect, destroyed, files_in, foretold, gone, rows_in
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


@pytest.fixture
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


@pytest.mark.parametrize("guest", list(KINDS), indirect=True)
def test_gate_plan_repair_and_the_way_back(guest: Guest, gate: Gate, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["guest"]
    wrong = EVERY_RULE | {"EXP004", "EXP005", "RUN003"}
    wrong -= set() if guest.local else {"ART002"}
    files = Path(guest.place.artifacts) if guest.local else gate.folder
    before, untouched, rows, objects = guest.everything(), state(files), held_rows(guest), held_by(guest)

    audited = gate()
    assert (audited.ret, broken(audited)) == (1, wrong), told(audited)
    # A database or server lies in no folder, so nothing here tells whose the artifact root is: the first repair is
    # told, the next ones know.
    strange = guest.local and guest.store.backend.home is None
    insisted = [owned(guest.place.artifacts)] if strange else []
    if strange:
        assert "insist with --fix-owned-root=" in told(audited)
    plan = gate.folder.with_suffix(".json")  # beside all that is looked at
    planned = gate("--fix-dry-run", f"--fix-plan={plan}", *insisted)
    assert planned.ret == 1
    assert differing(before, guest.everything()) == []
    assert state(files) == untouched
    assert not (gate.folder / ".compliance").exists()

    # What was reviewed is carried out: all that --fix alone would do.
    fixed = gate("--fix", f"--fix-plan={plan}", *insisted)
    left = LEFT.get(kind, set())
    assert (fixed.ret, broken(fixed)) == (int(bool(left)), left), told(fixed)
    assert "verified: the store, read anew, is what was planned" in told(fixed)
    assert plan_in(fixed) == plan_in(planned)
    assert differing(before, guest.everything()), "nothing was changed, so nothing was shown"
    assert ("object points to another copy" in told(fixed) or "objects point to another copy" in told(fixed)) == (
        kind in POINTING
    )

    reviewed = json.loads(plan.read_text("utf-8"))
    (journal,) = Path(guest.store.folder).glob("[0-9]*.jsonl")
    assert json.loads(journal.read_text().splitlines()[0])["plan"] == reviewed["plan"]
    made = reviewed["summary"]["changes"]
    assert f"{plan}: {made} of {made} planned changes made" in told(fixed)
    second = gate("--fix", f"--fix-plan={plan}")
    assert f"{plan}: 0 of {made} planned changes made; {made} made before" in told(second)
    assert (second.ret, broken(second)) == (fixed.ret, left)
    assert plan_in(second)[-1].startswith("0 changes to 0 entities"), told(second)

    undone = gate("--fix-undo=last", rules=())
    assert undone.ret == 0, told(undone)
    assert "verified: the store, read anew, is what was planned" in told(undone)
    assert lost(rows, held_rows(guest)) == {}
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


def held_rows(guest: Guest) -> dict[str, Any]:
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


DATABASES = [name for name in KINDS if not name.startswith(("http", "served"))]


@pytest.mark.parametrize("guest", DATABASES, indirect=True)
def test_gc_is_foretold(guest: Guest, gate: Gate) -> None:
    """On every kind of store with a database of its own: the rows and files that the real gc then takes."""
    client = guest.client
    home, other = guest.experiment("credit_third"), guest.experiment("credit_fourth")
    going = guest.rich_run(home, "going", base_in=other)
    model = guest.model(home, guest.run(home), "dropped", files={"model.pkl": BIG + b"m"})
    near = guest.run(home, "near")
    # It begins as the location of the run which goes does: older versions of MLflow take it with that in a bucket.
    guest.upload(client.get_run(going).info.artifact_uri + "-2", {"not its own.bin": BIG + b"n"})
    guest.rich_run(other, "with the experiment")
    client.delete_run(going)
    client.delete_run(near)
    client.delete_logged_model(model)
    client.delete_experiment(other)
    everything = {path for path in things_in(guest) if "compliance" not in path}
    before, rows = guest.everything(), rows_in(guest.uri)
    result = gate("--compliance-gc-preflight")
    text = told(result)
    assert result.ret == 1
    assert re.search(r"logged model m-\w+ 'base' .* still needed", " ".join(text.split("\n"))), text
    assert differing(before, guest.everything()) == []
    (found,) = foretold(gate.folder, guest.uri)
    said = collect(guest.uri)
    assert destroyed(said) == {item.ref.place for item in found.doom.things if not item.along_with}, said
    assert {("run", going), ("run", near), ("logged_model", model), ("experiment", other)} <= destroyed(said)
    assert dict(found.doom.rows) == gone(rows, rows_in(guest.uri))
    assert set(found.files) == everything - things_in(guest)
    assert sum(found.files.values()) > len(BIG)


@pytest.mark.parametrize("guest", DATABASES, indirect=True)
def test_a_purge_and_the_gate_after_it(guest: Guest, gate: Gate) -> None:
    """Rows by MLflow's own means; what lies in a bucket stays, and says so."""
    strange = guest.local and guest.store.backend.home is None
    gate("--fix", *([owned(guest.place.artifacts)] if strange else []))
    green, before, rows = gate(), things_in(guest), rows_in(guest.uri)
    planned = gate("--fix-purge", "--fix-dry-run", "--fix-plan=purge.json")
    assert planned.ret == 0, told(planned)
    document = json.loads((gate.folder / "purge.json").read_text())
    result = gate("--fix-purge", "--fix-plan=purge.json")
    text = told(result)
    assert result.ret == 0, text
    assert (gate().ret, broken(gate())) == (green.ret, broken(green))
    gone = {key for (key,) in rows["runs"] - rows_in(guest.uri)["runs"]}
    assert gone == {item["key"] for item in document["items"] if item["kind"] == "run"}
    if guest.local:
        assert gone
        assert len(before - things_in(guest)) == sum(len(item["files"]) for item in document["items"])
    else:
        assert all("nothing is deleted from a bucket" in item["why"] for item in document["kept"])
        assert before <= things_in(guest)
    if guest.store.backend.keeps_journals and guest.local:
        assert "that is kept in the store too" in text


def things_in(guest: Guest) -> set[str]:
    """Every file of a store, or every object in its bucket."""
    if guest.local:
        return files_in(Path(guest.place.artifacts))
    bucket, _, prefix = guest.place.artifacts.removeprefix("s3://").partition("/")
    pages = s3_client(guest.place.environment["MLFLOW_S3_ENDPOINT_URL"]).get_paginator("list_objects_v2")
    listed = pages.paginate(Bucket=bucket, Prefix=prefix)
    return {f"s3://{bucket}/{item['Key']}" for page in listed for item in page.get("Contents", ())}
