"""--fix-plan: what was planned, reviewed and saved is carried out, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gates import RULES, Gate, LabMaker, plan_in, state, told
from mlflow.entities import Metric
from stores import BIG, START, Lab

PLAN = "--fix-plan=plan.json"


def saved(gate: Gate, *flags: str) -> dict[str, Any]:
    """The plan as a dry run wrote it."""
    dry = gate("--fix-dry-run", PLAN, *flags)
    assert dry.ret == 1, told(dry)
    return document(gate)


def document(gate: Gate) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((gate.folder / "plan.json").read_text("utf-8"))
    return found


def done(lab: Lab) -> list[dict[str, Any]]:
    """What the journals of a store say was done, in order."""
    lines = [
        json.loads(line)
        for path in sorted((lab.folder / ".compliance").glob("2*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [line["do"] for line in lines if line.get("state") == "begin"]


def header(lab: Lab) -> dict[str, Any]:
    (journal,) = (lab.folder / ".compliance").glob("2*.jsonl")
    found: dict[str, Any] = json.loads(journal.read_text().splitlines()[0])
    return found


def not_done(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("not done: ")]


def sealed(found: dict[str, Any]) -> str:
    """A document whose hashes fit, made without the program."""

    def hashed(*without: str) -> str:
        rest = {name: value for name, value in found.items() if name not in without}
        return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    found = {**found, "plan": hashed("summary", "made", "plan", "sha256")}
    return json.dumps({**found, "sha256": hashed("sha256")})


def names(lab: Lab) -> dict[str, tuple[str, str]]:
    """Id -> name and lifecycle of the experiments."""
    return {key: (item.name, item.lifecycle) for key, item in lab.read(artifacts=False).experiments.items()}


def test_the_plan_that_was_saved_is_carried_out(gate: Gate, messy: Lab, tmp_path: Path) -> None:
    before = state(messy.folder)
    found = saved(gate)
    assert state(messy.folder) == before
    assert next(iter(found)) == "summary"
    assert found["summary"]["totals"].startswith("13 tags of experiments set, 2 experiments renamed, ")
    assert found["summary"]["changes"] == 22
    assert found["summary"]["lines"][-1].startswith("22 changes to 9 entities; ")
    assert {change["applicability"] for step in found["steps"] for change in step["changes"]} == {"safe", "reversible"}
    assert found["store"]["uri"] == messy.uri

    shutil.copytree(messy.folder, tmp_path / "as it was", symlinks=True)
    made = gate("--fix", PLAN)
    assert made.ret == 0, told(made)
    assert "plan.json: 22 of 22 planned changes made" in told(made)
    assert "verified: the store, read anew, is what was planned" in told(made)
    assert header(messy)["plan"] == found["plan"]
    by_plan = done(messy)

    # The same store again: --fix alone does the same, and its journal names the same plan.
    shutil.rmtree(messy.folder)
    shutil.copytree(tmp_path / "as it was", messy.folder, symlinks=True)
    fixed = gate("--fix", process=True)  # MLflow keeps the database open that lay there
    assert fixed.ret == 0, told(fixed)
    assert done(messy) == by_plan
    assert header(messy)["plan"] == found["plan"]


def test_a_plan_that_was_carried_out_is_done_already(gate: Gate, messy: Lab) -> None:
    saved(gate)
    assert gate("--fix", PLAN).ret == 0
    after = state(messy.folder)
    again = gate("--fix", PLAN)
    assert again.ret == 0, told(again)
    assert "repair: nothing to change" in told(again)
    assert "plan.json: 0 of 22 planned changes made; 22 made before" in told(again)
    assert state(messy.folder) == after


def test_the_rest_of_a_plan_follows_what_was_made_of_it(gate: Gate, messy: Lab) -> None:
    """-k narrows what is carried out to what both allow."""
    saved(gate)
    part = gate("--fix", PLAN, "-k", "no_test_experiment")
    assert part.ret == 0, told(part)
    assert "plan.json: 7 of 22 planned changes made; 15 not asked for here" in told(part)
    assert {values["kind"] for values in done(messy)} == {"SetExperimentTag", "RenameExperiment", "DeleteExperiment"}
    rest = gate("--fix", PLAN)
    assert rest.ret == 0, told(rest)
    assert "plan.json: 15 of 22 planned changes made; 7 made before" in told(rest)


def test_two_dry_runs_make_one_plan(gate: Gate, messy: Lab) -> None:
    first, second = saved(gate), saved(gate)  # the second one takes the place of the first
    assert first["plan"] == second["plan"]
    moment = [found.pop("made").pop("at") and found.pop("sha256") for found in (first, second)]
    assert len(moment) == 2
    assert first == second
    assert saved(gate, "--fix-safe")["plan"] != first["plan"]


def test_an_edit_elsewhere_does_not_matter(gate: Gate, messy: Lab) -> None:
    saved(gate)
    messy.client.set_experiment_tag("1", "team", "risk")
    new = messy.experiment("credit_study", lifecycle="development")
    messy.run(new, "later")
    made = gate("--fix", PLAN)
    assert made.ret == 0, told(made)
    assert "plan.json: 22 of 22 planned changes made" in told(made)


def test_what_came_up_since_is_left(gate: Gate, messy: Lab) -> None:
    """A test experiment that nobody reviewed stays, whatever --fix alone would do."""
    saved(gate)
    later = messy.experiment("test_later")
    made = gate("--fix", PLAN)
    assert made.ret == 1
    assert "plan.json: 22 of 22 planned changes made" in told(made)
    assert not not_done(told(made))
    assert "    ! not fixed: it is not in the saved plan: make a new plan to have it mended" in plan_in(made)
    assert names(messy)[later] == ("test_later", "active")


def test_a_run_that_came_to_a_rival_leaves_it_as_it_is(gate: Gate, messy: Lab) -> None:
    """Nothing of a merge is begun that cannot be ended as it was reviewed; all else is done."""
    saved(gate)
    late = messy.run("2", "late")
    made = gate("--fix", PLAN)
    text = told(made)
    assert made.ret == 1
    refused = not_done(text)
    assert len(refused) == 9
    assert f"its remedy is another one by now, with: copy run {late} into experiment 1" in refused[0]
    assert (
        "soft-delete experiment 2 with its runs (it can be restored): by now it would be another one, with runs 2"
        in text
    )
    assert "plan.json: 13 of 22 planned changes made; 9 refused" in text
    found = names(messy)
    assert found["2"] == ("credit_production", "active")
    assert not messy.read(artifacts=False).experiments["2"].tags.keys() & {"compliance.retired_in"}
    assert [run.info.run_name for run in messy.runs("1")] == ["delivery"]
    assert found["3"][1] == "deleted"
    # A new plan takes it along.
    saved(gate)
    assert gate("--fix", PLAN).ret == 0
    assert names(messy)["2"][1] == "deleted"


def test_what_a_tag_says_by_now_is_not_written_over(gate: Gate, messy: Lab) -> None:
    saved(gate)
    messy.client.set_experiment_tag("4", "mlflow.note.content", "read by Ann")
    made = gate("--fix", PLAN)
    assert made.ret == 1
    refused = not_done(told(made))
    assert len(refused) == 2, refused
    assert "its remedy is another one by now, with: set tag mlflow.note.content of experiment 4" in refused[0]
    assert "before 'read by Ann' in place of None" in refused[1]
    assert messy.client.get_experiment("4").tags == {"mlflow.note.content": "read by Ann"}


def test_what_somebody_mended_by_hand_is_told(gate: Gate, messy: Lab) -> None:
    """The store keeps the rule, and yet not by what was reviewed."""
    saved(gate)
    messy.client.set_experiment_tag("4", "lifecycle", "archived")
    messy.client.set_experiment_tag("4", "mlflow.note.content", "ARCHIVED by Ann")
    made = gate("--fix", PLAN, "-k", "stuck or classified")
    assert made.ret == 1
    refused = not_done(told(made))
    assert len(refused) == 2
    assert all(line.endswith("its finding is gone: the store was changed since the plan was made") for line in refused)
    assert "plan.json: 1 of 22 planned changes made; 19 not asked for here; 2 refused" in told(made)


def test_a_run_that_is_alive_again_is_not_ended(gate: Gate, messy: Lab) -> None:
    saved(gate)
    (stuck,) = [run.info.run_id for run in messy.runs("4") if run.info.status == "RUNNING"]
    messy.client.log_batch(stuck, metrics=[Metric("loss", 0.5, now(), 1)])
    made = gate("--fix", PLAN)
    assert made.ret == 1
    (refused,) = not_done(told(made))
    assert refused.startswith(f"not done: set run {stuck} from RUNNING to KILLED")
    assert refused.endswith("its finding is gone: the store was changed since the plan was made")
    assert messy.client.get_run(stuck).info.status == "RUNNING"


def now() -> int:
    import time

    return int(time.time() * 1000)


def test_guards_are_asked_on_what_is_done_and_not_on_what_was_planned(gate: Gate, messy: Lab) -> None:
    """The plan ends a run and retires its experiment. The run logged more since: neither is done."""
    stuck = messy.run("3", "stuck too", status="RUNNING")
    saved(gate)
    messy.client.log_batch(stuck, metrics=[Metric("loss", 0.5, START + 3_600_000, 1)])
    made = gate("--fix", PLAN)
    assert made.ret == 1
    text = told(made)
    assert f"set run {stuck} from RUNNING to KILLED with its last known time" in text
    assert "by now it would be another one, with end_time " in text
    assert "1 of its runs have not ended: what they log next would be lost" in text
    assert names(messy)["3"] == ("test_experiment", "active")
    assert messy.client.get_run(stuck).info.status == "RUNNING"
    assert names(messy)["2"][1] == "deleted"


def test_what_a_version_relies_on_by_now_is_not_retired(gate: Gate, messy: Lab) -> None:
    saved(gate)
    (scratch,) = [run.info.run_id for run in messy.runs("3")]
    messy.client.create_registered_model("live")
    messy.client.create_model_version("live", f"runs:/{scratch}/model", run_id=scratch)
    made = gate("--fix", PLAN)
    assert made.ret == 1
    refused = not_done(told(made))
    assert len(refused) == 7
    assert all("live" in line for line in refused), refused
    assert names(messy)["3"] == ("test_experiment", "active")
    assert "plan.json: 15 of 22 planned changes made; 7 refused" in told(made)


def test_a_file_that_changed_is_left_and_the_others_are_shared(gate: Gate, messy: Lab) -> None:
    """Files are shared one by one: each of them does good by itself."""
    for number in range(2):
        messy.run("4", f"more {number}", files={"shap.bin": BIG})
    saved(gate)
    paths = sorted(str(path) for path in messy.mlruns.rglob("shap.bin"))
    Path(paths[2]).write_bytes(b"other" * 500)
    made = gate("--fix", PLAN)
    assert made.ret == 1, told(made)
    (refused,) = not_done(told(made))
    assert refused.startswith(f"not done: store {paths[2]} ")
    assert "what it is about has changed" in refused
    inodes = [os.stat(path).st_ino for path in paths]
    assert inodes[0] == inodes[1] == inodes[3] != inodes[2]
    assert Path(paths[2]).read_bytes() == b"other" * 500


def test_another_copy_of_a_file_is_not_shared_unseen(gate: Gate, messy: Lab) -> None:
    saved(gate)
    first = min(messy.mlruns.rglob("shap.bin"))
    new = first.with_name("zz.bin")
    new.write_bytes(BIG)
    made = gate("--fix", PLAN)
    assert "plan.json: 22 of 22 planned changes made" in told(made)
    assert os.stat(new).st_ino != os.stat(first).st_ino


def test_hostile_names_steer_nobody(gate: Gate, messy: Lab) -> None:
    """What a store is named may hold escapes, directions of writing, quotes: a reader sees them, a plan keeps them."""
    name = 'test_\x1b[31m"\u202egnp.exe\u2028 ⟨journal⟩ größe'
    key = messy.experiment(name)
    messy.client.set_experiment_tag(key, "evil", "x\u202e")
    found = saved(gate)
    text = (gate.folder / "plan.json").read_text("utf-8")
    assert all(char == "\n" or char.isprintable() for char in text)
    assert "größe" in text
    assert name in [change["change"].get("before") for step in found["steps"] for change in step["changes"]]
    made = gate("--fix", PLAN)
    assert made.ret == 0, told(made)
    assert names(messy)[key][1] == "deleted"


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "there is no plan plan.json: make one with --fix-dry-run --fix-plan="),
    "a folder": (
        lambda path: (path.unlink(), path.mkdir()),
        "the plan plan.json cannot be read (is not a regular file)",
    ),
    "no JSON": (lambda path: path.write_text("{"), "plan.json is no plan: make one with --fix-dry-run"),
    "bytes": (lambda path: path.write_bytes(b"\xff\x00" * 9), "plan.json is no plan: make one with --fix-dry-run"),
    "brackets": (lambda path: path.write_text("[" * 200_000), "plan.json is no plan: make one with --fix-dry-run"),
    "other JSON": (lambda path: path.write_text('{"a": 1}'), "plan.json is no plan: make one with --fix-dry-run"),
    "huge": (lambda path: os.truncate(path, 1 << 29), "the plan plan.json is larger than 256 MiB"),
    "a device": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "is not a regular file"),
    "edited": (
        lambda path: path.write_text(path.read_text().replace("credit_production", "credit_delivery")),
        "plan.json was changed after it was written (its hash does not fit): make a new plan with --fix-dry-run",
    ),
    "a key twice": (
        lambda path: path.write_text(path.read_text().replace('"settings":', '"settings": "",\n  "settings":', 1)),
        "the plan plan.json holds a key twice",
    ),
    "a later schema": (
        lambda path: path.write_text(path.read_text().replace("compliance:plan:1", "compliance:plan:2")),
        "plan.json is a plan of another version (urn:mlflow-compliance:plan:2, here urn:mlflow-compliance:plan:1)",
    ),
    "other shape": (
        lambda path: path.write_text(sealed({**json.loads(path.read_text()), "steps": 3})),
        "plan.json is no plan that this version can read (at steps)",
    ),
    "another version": (
        lambda path: path.write_text(
            sealed({**json.loads(path.read_text()), "versions": {"pytest-mlflow-compliance": "0.0.7", "mlflow": "3"}})
        ),
        "the plan was made with pytest-mlflow-compliance 0.0.7, and ",
    ),
}


def test_what_is_no_plan_of_this_store_is_refused(gate: Gate, messy: Lab) -> None:
    """One sentence each, exit code 4, nothing changed."""
    saved(gate)
    whole, path = (gate.folder / "plan.json").read_bytes(), gate.folder / "plan.json"
    before = state(messy.folder)
    for what, (spoil, said) in SPOILT.items():
        spoil(path)
        result = gate("--fix", PLAN, "-k", "stuck")
        assert result.ret == 4, what
        assert said in told(result), (what, told(result))
        assert state(messy.folder) == before, what
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)

    gate.settings(messy.uri, "\n[runs]\nrunning_max_hours = 24\n")  # what is built in, said
    result = gate("--fix", PLAN, "-k", "stuck")
    assert (result.ret, state(messy.folder)) == (4, before)
    assert "the settings in force are not those that the plan was made with" in told(result)
    gate.settings(messy.uri, "\n# a comment\n")
    assert gate("--fix", PLAN, "-k", "stuck and experiment-1").ret == 0
    assert state(messy.folder) == before


def test_a_plan_for_another_store_is_refused(gate: Gate, messy: Lab, make_lab: LabMaker) -> None:
    saved(gate)
    other: Lab = make_lab()
    before = state(other.folder)
    result = gate("--fix", PLAN, f"--tracking-uri={other.uri}")
    assert result.ret == 4
    assert f"the plan is for the store '{messy.uri}', and this is '{other.uri}'" in told(result)
    assert state(other.folder) == before

    # Another database at the very place.
    messy.sql("UPDATE experiments SET creation_time = creation_time + 1 WHERE experiment_id = 0")
    before = state(messy.folder)
    result = gate("--fix", PLAN)
    assert result.ret == 4
    assert f"the plan is for another store at {messy.uri} (experiment 0 was made at another time here)" in told(result)
    assert state(messy.folder) == before


def test_nothing_but_a_plan_is_written_over(gate: Gate, messy: Lab) -> None:
    before = state(messy.folder)
    (gate.folder / "plan.json").write_text("my notes")
    result = gate("--fix-dry-run", PLAN)
    assert result.ret == 4
    assert "plan.json is there and is no plan: nothing is written over it; name another file" in told(result)
    assert (gate.folder / "plan.json").read_text() == "my notes"
    result = gate("--fix-dry-run", "--fix-plan=nowhere/plan.json")
    assert result.ret == 4
    assert "there is no folder nowhere to write the plan to: make it first" in told(result)
    assert not (gate.folder / "nowhere").exists()
    assert state(messy.folder) == before
    assert [path.name for path in gate.folder.iterdir() if "tmp" in path.name] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([PLAN], "--fix-plan is written by --fix-dry-run and carried out by --fix: give one of them with it"),
        (["--fix-dry-run", "--fix-plan= "], "--fix-plan takes a file"),
        (["--fix-journals", "--fix-safe"], "--fix-journals and --fix exclude each other"),
        (["--fix-undo=last", "--fix-dry-run", PLAN], "--fix-undo and --fix-plan exclude each other"),
    ],
)
def test_flags_that_do_not_go_together(gate: Gate, messy: Lab, arguments: list[str], said: str) -> None:
    before = state(messy.folder)
    result = gate(*arguments)
    assert result.ret == 4
    assert said in told(result)
    assert state(messy.folder) == before


def test_credentials_stand_in_no_plan(gate: Gate, messy: Lab) -> None:
    """Neither those of the settings nor what rows say."""
    messy.client.set_experiment_tag("1", "source", "postgresql://ann:hunter2secret@db/x")
    key = messy.experiment("test_https://bob:hunter3secret@host/x")
    found = saved(gate)
    assert "secret" not in (gate.folder / "plan.json").read_text("utf-8")
    assert [item for item in found["left"] if item["finding"]["entity"]["key"] == key]


def test_a_plan_can_be_carried_out_again_when_it_was_taken_back(gate: Gate, messy: Lab) -> None:
    found = saved(gate)
    assert gate("--fix", PLAN).ret == 0
    back = gate("--fix-undo=last")
    assert back.ret == 0, told(back)
    again = gate("--fix", PLAN)
    assert again.ret == 0, told(again)
    assert "plan.json: 22 of 22 planned changes made" in told(again)
    assert names(messy)["3"][1] == "deleted"
    assert document(gate) == found  # nobody writes to it


def test_whoever_carries_it_out_is_named(gate: Gate, messy: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    assert saved(gate)["made"]["by"] == "ann"
    monkeypatch.setenv("LOGNAME", "bob")
    made = gate("--fix", PLAN)
    assert made.ret == 0, told(made)
    assert "plan.json: 22 of 22 planned changes made" in told(made)
    assert header(messy)["user"] == "bob"
    assert messy.client.get_experiment("3").tags["compliance.retired_by"] == "bob"


def test_limits_of_both_count(gate: Gate, messy: Lab) -> None:
    saved(gate)
    result = gate("--fix", PLAN, "--fix-safe")
    assert result.ret == 1
    assert "plan.json: 2 of 22 planned changes made; 20 refused" in told(result)
    assert {values["kind"] for values in done(messy)} == {"SetExperimentTag"}
    assert gate("--fix", PLAN, "--fix-max=1", rules=RULES).ret == 4
