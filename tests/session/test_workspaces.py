"""A second workspace in a SQLite database, at the command line: it makes the other one not red, is named, and is
audited where it is asked for.
"""

from __future__ import annotations

import os

import pytest
from gates import Gate, state, told
from stores import BIG, START, Lab
from workspaces import give_away

OURS = """
[[products]]
name = "credit"
primary = "credit_delivery"
experiments = ["credit_*"]
production_names = ["*_delivery"]
[experiments]
test_names = ["test_*"]
"""


@pytest.fixture
def shared(lab: Lab, gate: Gate) -> Lab:
    """A default workspace in order, and one of another team that breaks a rule of each kind: about experiments,
    runs, files and the registry.
    """
    production = lab.experiment("credit_delivery", lifecycle="production")
    run = lab.run(production, "champion", stage="production")
    lab.registered("credit", f"models:/{lab.model(production, run)}", run)
    theirs = [lab.experiment(name) for name in ("test_scratch", "credit_old_delivery", "unclassified")]
    for key in theirs:
        lab.run(key, "stuck", status="RUNNING", files={"log.bin": BIG + key.encode()})
        lab.run(key, "equal", files={"shap.bin": BIG})
    os.mkfifo(lab.folder_of(lab.runs(theirs[0])[0].info.run_id) / "pipe")
    unfinished = lab.mlruns / theirs[1] / "models" / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "MLmodel").write_text("flavors: {a: {data: model.pkl}}")
    gone = lab.stray("workspaces/team-b/gone", {"MLmodel": b"flavors: {a: {data: model.pkl}}"})
    lab.client.create_registered_model("theirs")
    lab.client.create_model_version("theirs", str(gone))
    lab.client.set_registered_model_alias("theirs", "production", "1")
    give_away(lab, "team-b", theirs, "theirs")
    (gate.folder / "compliance.toml").write_text(f'[store]\ntracking_uri = "{lab.uri}"\n{OURS}')
    return lab


def not_read(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith("not read: ")]


@pytest.mark.parametrize("flags", [(), ("--fix",), ("--fix-dry-run",), ("--metadata-only",)])
def test_a_second_workspace_does_not_make_the_default_one_red(shared: Lab, gate: Gate, flags: tuple[str, ...]) -> None:
    before = state(shared.mlruns)
    result = gate(*flags)
    text = told(result)
    assert result.ret == 0, text
    assert not_read(text) == ["not read: 1 other workspace: team-b (MLFLOW_WORKSPACE names the one to audit)"]
    assert "experiments: 2 active, 0 deleted; runs: 1 (1 FINISHED)" in text
    assert "registered models: 1, versions: 1" in text
    assert "rows whose parent is not there" not in text
    assert state(shared.mlruns) == before


def test_the_environment_picks_the_one_to_audit(shared: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team-b")
    result = gate()
    text = told(result)
    assert result.ret == 1
    assert not_read(text) == ["not read: 1 other workspace: default (MLFLOW_WORKSPACE names the one to audit)"]
    assert "experiments: 3 active, 0 deleted; runs: 6 (3 FINISHED, 3 RUNNING)" in text
    assert "registered models: 1, versions: 1" in text
    for found in (
        "experiment test_scratch: looks like a test",
        "experiment unclassified: not classified",
        "registered as theirs/1",
        "stored 3 times",
        "could not be compared; found: it is a socket, a pipe or a device",
    ):
        assert found in text
    assert "experiment credit_delivery" not in text
    assert "champion" not in text


def test_a_repair_of_the_one_leaves_the_files_and_rows_of_the_other(
    shared: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = state(shared.mlruns / "1")
    stray = shared.stray(f"workspaces/team-b/2/{'5' * 32}", {"artifacts/left.bin": b"left behind" * 200})
    for path in (*stray.rglob("*"), stray):
        os.utime(path, (START / 1000, START / 1000))  # what is newer than all rows may be a newer database's
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team-b")
    text = told(gate("--fix"))
    assert "changes made" in text
    assert not stray.exists()
    assert shared.client.get_experiment("1").lifecycle_stage == "active"
    assert state(shared.mlruns / "1") == ours
    monkeypatch.delenv("MLFLOW_WORKSPACE")
    assert "experiments: 2 active, 0 deleted; runs: 1 (1 FINISHED)" in told(gate())


def test_their_equal_files_share_no_copy_with_ours(shared: Lab, gate: Gate) -> None:
    """Which files of theirs are equal is theirs to know, and what is written to one of them must not change ours."""
    archived = shared.client.create_experiment(
        "credit_old", str(shared.mlruns / "5"), {"lifecycle": "archived", "mlflow.note.content": "[ARCHIVED]"}
    )
    shared.run(archived, "same bytes", files={"shap.bin": BIG})
    told(gate("--fix", "-k", "ART001 or ART002"))
    assert {path.stat().st_nlink for path in shared.mlruns.rglob("shap.bin")} == {1}


def test_every_one_that_was_not_read_is_named(shared: Lab, gate: Gate) -> None:
    give_away(
        shared, "team-a", [shared.client.create_experiment("another", artifact_location=str(shared.mlruns / "another"))]
    )
    shared.client.create_registered_model("only a model")
    give_away(shared, "team-c", [], "only a model")
    shared.sql("INSERT INTO workspaces (name) VALUES ('nothing in it')")
    (line,) = not_read(told(gate("-k", "EXP002")))
    assert line == "not read: 3 other workspaces: team-a, team-b, team-c (MLFLOW_WORKSPACE names the one to audit)"


def test_a_store_with_one_workspace_says_nothing_of_others(lab: Lab, gate: Gate) -> None:
    gate.settings(lab.uri)
    assert not_read(told(gate("-k", "EXP002"))) == []
