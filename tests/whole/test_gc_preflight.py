"""`--compliance-gc-preflight` foretells what the real `mlflow gc` then does, row by row and file by file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from collecting import collect, destroyed, files_in, foretold, gone, rows_in
from gates import Gate, state, told
from living import scorer, traced
from mlflow.entities import LoggedModelInput
from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
from stores import BIG, START, Lab
from workspaces import give_away

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
    assert "permanently" not in text, "nothing says that anything was deleted"
    (found,) = foretold(gate.folder, lab.uri, gc_older_than=older_than)
    rows, files = rows_in(lab.uri), files_in(folder)
    said = collect(lab.uri, *(["--older-than", older_than] if older_than else []))
    assert {item.ref.place for item in found.doom.things if not item.along_with} == destroyed(said), said
    assert dict(found.doom.rows) == gone(rows, rows_in(lab.uri))
    assert set(found.files) == files - files_in(folder)
    taken = {"rich", "old", "model", "with"} | (set() if older_than else {"minute"})
    ends = ("experiment", full["gone"]) in destroyed(said)  # older versions cannot delete one that has traces
    assert {key for _, key in destroyed(said)} - {full["gone"]} == {full[name] for name in taken}
    for name in taken:
        assert f" {full[name]} " in text
    assert ("a minute ago" in text) is (older_than is None)
    if not ends:
        assert f"gc gives up at {full['gone']} (a row that stays refers to it" in text
        return
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


HOLD = """
[retention]
deleted_days = 20
[[retention.hold]]
runs = ["held*"]
reason = "case 7"
"""


def test_what_is_still_needed_with_the_chain(lab: Lab, gate: Gate) -> None:
    """Everything that may need a deleted thing, each beside its like that nothing needs; all deleted 40 days ago."""
    client = lab.client
    home = lab.experiment("credit_delivery", lifecycle="production")
    lab.run(home, "champion", stage="production")
    maker = lab.run(home, "maker", files={"model/model.pkl": BIG})
    model = lab.model(home, maker, "sold", files={"model.pkl": BIG})
    lab.registered("credit", f"models:/{model}", maker, alias="champion")
    by_path = lab.run(home, "by path", files={"model/MLmodel": b"flavors: {}"})
    lab.registered("other", str(lab.folder_of(by_path) / "model"))
    parent, marked, held = (
        lab.run(home, "parent"),
        lab.run(home, "marked", Stage="Production "),
        lab.run(home, "held 1"),
    )
    lab.run(home, "child", **{"mlflow.parentRunId": parent})
    grand = lab.run(home, "grandparent")
    lab.tag_run(parent, **{"mlflow.parentRunId": grand})
    linked, free = lab.run(home, "linked", files={"x.bin": BIG + b"x"}), lab.run(home, "free", files={"y.bin": BIG})
    reader = lab.run(home, "reader", files={"own.txt": b"own"})
    (lab.folder_of(reader) / "x.bin").symlink_to(lab.folder_of(linked) / "x.bin")
    shared = lab.run(home, "shared", files={"z.bin": BIG + b"z"})
    twin = lab.run(home, "twin")
    lab.sql("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", str(lab.folder_of(shared)), twin)
    base = lab.model(home, free, "base")
    client.log_inputs(reader, models=[LoggedModelInput(base)])
    unread = lab.model(home, free, "unread")
    runs = (maker, by_path, parent, grand, marked, held, linked, free, shared)
    for key in runs:
        client.delete_run(key)
    for key in (model, base, unread):
        client.delete_logged_model(key)
    aged(lab, 40, runs=runs, models=(model, base, unread))
    fresh = lab.run(home, "fresh")
    client.delete_run(fresh)
    gate.settings(lab.uri, HOLD)
    result = gate("--compliance-gc-preflight")
    text = told(result)
    assert result.ret == 1
    needs = _needs(text)
    for key, words in {
        maker: "model_version credit version 1 relies on it (alias champion of credit -> version 1 -> run",
        model: "model_version credit version 1 relies on it (alias champion of credit -> version 1 -> model",
        by_path: f"other version 1 -> run {by_path}",
        parent: "names it as its parent",
        grand: "that relies on it is still needed",
        marked: "its tag Stage=Production  says production",
        held: "legal hold on run",
        linked: "leads into it",
        shared: f"files of run {twin} lie in its folder",
        base: f"active run {reader} read it",
        fresh: "it was deleted 0.0 days ago ([retention] deleted_days = 20)",
    }.items():
        assert any(words in line for line in needs[key]), (key, words, text)
    assert needs[unread] == []
    # The model that is read was written by it; the other one that it wrote is read by nobody.
    assert [line for line in needs[free] if "model base that relies on it is still needed" in line]
    assert "13 things" in text
    assert "; 12 of them still needed" in text


def test_places_that_gc_cannot_clear(lab: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a server that it is not told of, in a scheme that MLflow does not know, and where nothing is."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = lab.experiment("credit_delivery")
    lab.client.delete_logged_model(lab.model(home, lab.run(home)))
    served, odd, absent = (lab.run(home, name) for name in ("served", "odd", "absent"))
    for key, uri in ((served, "mlflow-artifacts:/1/x"), (odd, "ftp2://host/x"), (absent, f"file://{lab.mlruns}/none")):
        lab.sql("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", uri, key)
        lab.client.delete_run(key)
    gate.settings(lab.uri)
    text = told(gate("--compliance-gc-preflight"))
    for key in (served, odd):
        assert f"gc gives up at {key}" in text
    (found,) = foretold(gate.folder, lab.uri)
    assert found.doom.places == {("run", absent)}, "it never comes to the model"
    said = collect(lab.uri)
    assert destroyed(said) <= found.doom.places, said


def _needs(text: str) -> dict[str, list[str]]:
    """Id of each thing -> the lines that say why it is needed."""
    found: dict[str, list[str]] = {}
    key = ""
    for line in text.splitlines():
        if line.startswith(("run ", "logged model ", "experiment ")):
            key = line.replace("logged model", "model").split()[1]
            found[key] = []
        elif line.startswith("    ") and key:
            found[key].append(line)
    return found


def test_other_workspaces(lab: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "false")  # gc sets it, and leaves it set
    ours, theirs = lab.experiment("credit_delivery"), lab.experiment("theirs")
    mine, other = lab.run(ours, "mine", files={"a": b"a"}), lab.run(theirs, "other", files={"b": b"bb"})
    for key in (mine, other):
        lab.client.delete_run(key)
    give_away(lab, "team-b", [theirs])
    gate.settings(lab.uri)
    result = gate("--compliance-gc-preflight")
    assert result.ret == 4
    assert "mlflow gc refuses a store with several workspaces" in told(result)
    assert "Cannot disable workspaces" in collect(lab.uri, process=True)
    for options, taken in (("--workspace team-b", {other}), ("--all-workspaces", {mine, other})):
        result = gate("--compliance-gc-preflight", f"--compliance-gc-options={options}")
        assert result.ret == 0, told(result)
        found = foretold(gate.folder, lab.uri, gc_options=options)
        assert {key for item in found for _, key in item.doom.places} == taken
    rows, files = rows_in(lab.uri), files_in(lab.folder)
    said = collect(lab.uri, "--all-workspaces", process=True)
    assert {key for _, key in destroyed(said)} == {mine, other}, said
    assert sum((Counter(item.doom.rows) for item in found), Counter()) == Counter(gone(rows, rows_in(lab.uri)))
    assert {path for item in found for path in item.files} == files - files_in(lab.folder)


def test_jobs_and_single_ids(lab: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--run-ids X` takes every deleted experiment too, and says nothing of it."""
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "false")  # gc sets it, and leaves it set
    jobs = SqlAlchemyJobStore(lab.uri)
    ended, waiting = (jobs.create_job("score", "{}") for _ in range(2))
    jobs.start_job(ended.job_id)
    jobs.finish_job(ended.job_id, "{}")
    home, kept = lab.experiment("credit_gone"), lab.experiment("credit_delivery")
    lab.run(home, "in it")
    one, another = lab.run(kept, "one"), lab.run(kept, "another")
    lab.client.delete_experiment(home)
    for key in (one, another):
        lab.client.delete_run(key)
    gate.settings(lab.uri)
    options = f"--run-ids {one} --jobs"
    (found,) = foretold(gate.folder, lab.uri, gc_options=options)
    rows = rows_in(lab.uri)
    said = collect(lab.uri, *options.split())
    assert destroyed(said) == {item.ref.place for item in found.doom.things if not item.along_with}
    assert {("experiment", home), ("job", ended.job_id), ("run", one)} < destroyed(said)
    assert not {another, waiting.job_id} & {key for _, key in destroyed(said)}
    assert dict(found.doom.rows) == gone(rows, rows_in(lab.uri))
