"""`--compliance-gc-preflight` foretells what the real `mlflow gc` then does, row by row and file by file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from collecting import collect, destroyed, files_in, foretold, gone, rows_in
from gates import Gate, state, told
from living import scorer, traced
from stores import BIG, START, Lab

HOUR = 3_600_000


def aged(lab: Lab, days: float, *, runs: tuple[str, ...] = (), models: tuple[str, ...] = (), homes: Any = ()) -> None:
    """As if it had been deleted that long ago."""
    back = int(days * 24 * HOUR)
    for key in runs:
        lab.sql("UPDATE runs SET deleted_time = deleted_time - ? WHERE run_uuid = ?", back, key)
    for key in models:
        lab.sql(
            "UPDATE logged_models SET last_updated_timestamp_ms = last_updated_timestamp_ms - ? WHERE model_id = ?",
            back,
            key,
        )
    for key in homes:
        lab.sql("UPDATE experiments SET last_update_time = last_update_time - ? WHERE experiment_id = ?", back, key)
        lab.sql("UPDATE runs SET deleted_time = deleted_time - ? WHERE experiment_id = ?", back, key)


@pytest.fixture
def full(lab: Lab, gate: Gate) -> dict[str, str]:
    """A store with something of each kind that gc takes, old and fresh, beside what stays."""
    client, found = lab.client, {}
    home = lab.experiment("credit_delivery", lifecycle="production")
    lab.run(home, "champion", files={"kept.bin": BIG}, metrics={"auc": 0.5}, stage="production")
    found["rich"] = lab.rich_run(home, "rich")
    found["old"] = lab.run(home, "old", files={"a.bin": BIG, "deep/b.bin": b"b"}, metrics={"auc": 1.0})
    found["minute"] = lab.run(home, "a minute ago", files={"c.bin": b"fresh"})
    found["model"] = lab.model(home, lab.run(home, "maker"), "dropped", files={"model.pkl": BIG})
    gone_home = lab.experiment("credit_gone")
    found["with"] = lab.run(gone_home, "went along", files={"d.bin": BIG + b"d"})
    found["left"] = lab.model(gone_home, found["with"], "left", files={"model.pkl": b"left behind"})
    found["restored"] = lab.run(gone_home, "restored", files={"e.bin": b"live"}, metrics={"auc": 0.1})
    traced(lab, gone_home, found["with"], START)
    scorer(lab, gone_home)
    for key in (found["rich"], found["old"], found["minute"]):
        client.delete_run(key)
    client.delete_logged_model(found["model"])
    client.delete_experiment(gone_home)
    client.restore_run(found["restored"])
    aged(lab, 40, runs=(found["rich"], found["old"]), models=(found["model"],), homes=(int(gone_home),))
    gate.settings(lab.uri)
    return {**found, "home": home, "gone": gone_home}


@pytest.mark.parametrize("older_than", [None, "30d"])
def test_what_is_foretold_is_what_gc_destroys(
    lab: Lab, gate: Gate, full: dict[str, str], older_than: str | None
) -> None:
    before, folder = state(lab.folder), lab.folder
    flags = [f"--compliance-gc-older-than={older_than}"] if older_than else []
    result = gate("--compliance-gc-preflight", *flags)
    text = told(result)
    assert state(folder) == before, "not one byte is changed"
    assert result.ret == 1, text
    (found,) = foretold(gate.folder, lab.uri, gc_older_than=older_than)
    rows, files = rows_in(lab.uri), files_in(folder)
    said = collect(lab.uri, *(["--older-than", older_than] if older_than else []))
    assert {item.ref.place for item in found.doom.things if not item.along_with} == destroyed(said), said
    assert dict(found.doom.rows) == gone(rows, rows_in(lab.uri))
    assert set(found.files) == files - files_in(folder)
    taken = {"rich", "old", "model", "with"} | (set() if older_than else {"minute"})
    assert {key for _, key in destroyed(said)} == {full[name] for name in taken} | {full["gone"]}
    for name in taken:
        assert f" {full[name]} " in text
    assert ("a minute ago" in text) is (older_than is None)
    # What goes along, and what gc leaves behind.
    assert f"logged model {full['left']} 'left' of experiment {full['gone']}; goes with experiment" in text
    assert f"run {full['restored']} 'restored'" in text
    assert "it is active, in experiment" in text
    assert f"{lab.mlruns}/{full['gone']}/models/{full['left']}/artifacts" in text
    assert (lab.mlruns / full["gone"] / "models" / full["left"]).exists(), "gc leaves it behind"
    assert f"SQLite gives the number {full['gone']} to the next experiment" in text
    assert lab.client.create_experiment("next") == full["gone"]


def test_a_run_that_gc_gives_up_at(lab: Lab, gate: Gate) -> None:
    """An experiment that was deleted long ago, and in it a run that was deleted by itself since."""
    home = lab.experiment("credit_gone")
    fresh, old = lab.run(home, "fresh", files={"a": BIG}), lab.run(home, "old", files={"a": BIG})
    lab.client.delete_experiment(home)
    aged(lab, 40, homes=(int(home),))
    lab.client.restore_run(fresh)
    lab.client.delete_run(fresh)
    gate.settings(lab.uri)
    result = gate("--compliance-gc-preflight", "--compliance-gc-older-than=30d")
    text = told(result)
    assert f"gc gives up at {fresh}" in text
    (found,) = foretold(gate.folder, lab.uri, gc_older_than="30d")
    assert found.doom.places == {("run", old)}
    said = collect(lab.uri, "--older-than", "30d")
    assert f"Run {fresh} is not older" in said
    assert destroyed(said) <= found.doom.places


def test_bytes_that_are_really_freed(lab: Lab, gate: Gate) -> None:
    """Hard links: to what stays, between two that go, and to a place outside."""
    home = lab.experiment("credit_delivery")
    stays = lab.run(home, "stays", files={"a.bin": BIG})
    one, two = (lab.run(home, name, files={f"{name}.txt": name.encode()}) for name in ("one", "two"))
    os.link(lab.folder_of(stays) / "a.bin", lab.folder_of(one) / "a.bin")
    (lab.folder_of(one) / "shared.bin").write_bytes(b"s" * 5000)
    os.link(lab.folder_of(one) / "shared.bin", lab.folder_of(two) / "shared.bin")
    (lab.folder_of(two) / "outside.bin").write_bytes(b"o" * 7000)
    os.link(lab.folder_of(two) / "outside.bin", lab.folder / "outside.bin")
    os.symlink(lab.folder_of(stays), lab.folder_of(two) / "link")
    for key in (one, two):
        lab.client.delete_run(key)
    gate.settings(lab.uri)
    text = told(gate("--compliance-gc-preflight"))
    assert f"2 things, {5000 + len('one') + len('two')} bytes; 0 of them still needed" in text
    (found,) = foretold(gate.folder, lab.uri)
    files = files_in(lab.folder)
    collect(lab.uri)
    assert set(found.files) == files - files_in(lab.folder)
    assert (lab.folder_of(stays) / "a.bin").read_bytes() == BIG


def test_nothing_to_destroy_is_green(lab: Lab, gate: Gate) -> None:
    lab.run(lab.experiment("credit_delivery"))
    gate.settings(lab.uri)
    result = gate("--compliance-gc-preflight")
    assert result.ret == 0
    assert "would destroy nothing" in told(result)


def test_what_cannot_be_asked(lab: Lab, gate: Gate, tmp_path: Path) -> None:
    gate.settings(lab.uri)
    for flags, sentence in (
        (["--tracking-uri=http://127.0.0.1:1"], "is read from the tables of a database"),
        ([f"--tracking-uri={tmp_path / 'mlruns'}"], "is read from the tables of a database"),
        (["--compliance-gc-older-than=soon"], "is no age that mlflow gc understands"),
        (["--compliance-gc-options=--frobnicate"], "mlflow gc of the installed version does not take that"),
        (["--compliance-gc-options=--backend-store-uri sqlite:///x.db"], "give it with --tracking-uri"),
        (["--compliance-gc-options=--all-workspaces --workspace a"], "not both"),
        (["--fix"], "exclude each other"),
    ):
        result = gate("--compliance-gc-preflight", *flags)
        text = told(result)
        assert result.ret == 4, text
        assert sentence in text
    result = gate("--compliance-gc-older-than=30d")
    assert result.ret == 4
    assert "are about --compliance-gc-preflight" in told(result)
