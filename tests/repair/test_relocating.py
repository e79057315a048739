"""A store that was moved: its new place is found and told, the rows are rewritten when asked, and nothing else is
done before.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from gates import RULES, Gate, told
from mlflow.entities import TraceInfo, TraceLocation, TraceState
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from repairs import carry_out, hashes, lines_of, plan_for, take_back
from stores import BIG, START, Lab, differing

from mlflow_compliance.settings.schema import load_settings
from mlflow_compliance.settings.toml import parse

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("tags", "value"),
    ("trace_tags", "value"),
)
PREFIXES = {
    "posix": "/app/mlruns",
    "file uri": "file:///srv/old%20place/mlruns",
    "windows": "C:\\Users\\anna\\mlruns",
    "windows uri": "file:///C:/Users/anna/mlruns",
    "relative": "./old/mlruns",
}


def fill(lab: Lab) -> dict[str, str]:
    """A store with everything that names a place: runs, logged models, a version of each kind, a record of models,
    a trace.
    """
    key = lab.experiment("work", lifecycle="reference")
    run = lab.rich_run(key, "rich")
    model = lab.model(key, run, "scorer")
    lab.registered("scorer", f"models:/{model}", run, alias="champion")
    lab.registered("old style", str(lab.folder_of(run) / "model"), run)
    history = [{"run_id": run, "artifact_path": "model", "saved_at": str(lab.folder_of(run) / "model"), "flavors": {}}]
    lab.client.set_tag(run, "mlflow.log-model.history", json.dumps(history))
    lab.client.set_tag(run, "note", f"see {lab.mlruns}/1")
    info = TraceInfo("tr-1", TraceLocation.from_experiment_id(key), START, TraceState.OK)
    lab.client._tracing_client.store.start_trace(info)
    lab.run(key, "numbers alone", metrics={"auc": 0.5})
    return {"experiment": key, "run": run, "model": model}


def rewrite(lab: Lab, old: str, new: str) -> None:
    """Let rows say that the files are elsewhere, with the separators and escapes of that place."""
    with closing(sqlite3.connect(lab.database)) as connection, connection:
        for table, column in COLUMNS:
            tag = {
                "tags": "AND key = 'mlflow.log-model.history'",
                "trace_tags": "AND key = 'mlflow.artifactLocation'",
            }.get(table, "")
            for number, text in connection.execute(
                f"SELECT rowid, {column} FROM {table} WHERE instr({column}, ?) {tag}", (old,)
            ).fetchall():
                changed = _moved_json(text, old, new) if table == "tags" else _moved(text, old, new)
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, number))


def _moved(text: str, old: str, new: str) -> str:
    rest = text[len(old) :]
    return new + (rest.replace("/", "\\") if "\\" in new else rest)


def _moved_json(text: str, old: str, new: str) -> str:
    entries = json.loads(text)
    for entry in entries:
        entry["saved_at"] = _moved(entry["saved_at"], old, new)
    return json.dumps(entries)


def places(lab: Lab) -> list[tuple[str, str]]:
    """Every place in the rows of a store."""
    with closing(sqlite3.connect(lab.database)) as connection:
        return sorted(
            (f"{table}.{column}", text)
            for table, column in COLUMNS
            for (text,) in connection.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
        )


def block_in(text: str) -> str:
    """The block to copy, as the end of the session prints it."""
    lines = text.partition("to be copied into compliance.toml:\n")[2].splitlines()
    return "\n".join(lines[: next(number for number, line in enumerate(lines) if line and line[0] not in "[\"'")])


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_a_moved_store_is_found_told_rewritten_and_green_again(
    gate: Gate, make_lab: Callable[[], Lab], prefix: str
) -> None:
    lab = make_lab()
    ids = fill(lab)
    before, bytes_before = places(lab), hashes(lab.folder)
    whole = lab.everything()
    rewrite(lab, str(lab.mlruns), prefix)
    moved = places(lab)
    assert sum(prefix in text or prefix in text.replace("\\\\", "\\") for _, text in moved) >= 10
    gate.settings(lab.uri)
    only = ("-k", "ART003")
    said = told(gate(*only))
    block = block_in(said)
    assert parse(block) == {"store": {"relocate": {prefix: str(lab.mlruns)}}}
    gate.settings(lab.uri, f"\n{block}\n")
    reading = gate(*only)
    assert reading.ret == 0
    assert "--fix rewrites them" in told(reading)
    assert places(lab) == moved, "an audit writes nothing"
    dry = gate("--fix-dry-run", *only)
    assert "+ reversible  let rows name" in told(dry)
    assert places(lab) == moved
    result = gate("--fix", *only)
    assert result.ret == 0
    assert "verified: the store, read anew, is what was planned" in told(result)
    assert hashes(lab.folder) == bytes_before
    if prefix.startswith("file:"):
        get = get_artifact_repository
        assert sorted(get(text).artifact_dir for name, text in places(lab) if name == "runs.artifact_uri") == sorted(
            text for name, text in before if name == "runs.artifact_uri"
        )
    else:
        assert places(lab) == before, "every place is again as MLflow wrote it, and what is no place is as it was"
        assert differing(whole, lab.everything()) == []
    again = gate(*only)
    assert again.ret == 0
    assert f"no row begins with {prefix}: its line in [store.relocate] is not needed" in told(again)
    gate.settings(lab.uri)
    assert gate(*only).ret == 0
    (version,) = lab.client.search_model_versions("name = 'scorer'")
    assert version.source == f"models:/{ids['model']}"


@pytest.fixture
def moved(make_lab: Callable[[], Lab], gate: Gate) -> Lab:
    """A store whose rows name /app/mlruns, read through the settings."""
    lab = make_lab()
    fill(lab)
    rewrite(lab, str(lab.mlruns), "/app/mlruns")
    mapped(gate, lab)
    return lab


def mapped(gate: Gate, lab: Lab, *lines: str) -> None:
    """Settings that map prefixes: /app/mlruns where no lines are given."""
    table = "\n".join(lines or [f'"/app/mlruns" = "{lab.mlruns}"'])
    gate.settings(lab.uri, f"\n[store.relocate]\n{table}\n")
    lab.settings = load_settings(gate.folder / "compliance.toml")
    lab.store = type(lab)(lab.folder, lab.settings).store


def test_the_rewriting_is_alone_in_its_plan_and_the_next_repair_does_the_rest(gate: Gate, moved: Lab) -> None:
    moved.stray("5" * 32, {"artifacts/a.bin": BIG})
    first = told(gate("--fix", rules=RULES))
    changes = [line for line in first.splitlines() if line.startswith("    + ")]
    assert len(changes) == 1
    assert changes[0].startswith("    + reversible  let rows name")
    assert (
        "! not fixed: its rows are read through [store.relocate] and are rewritten first (ART003): run --fix again"
        in first
    )
    assert (moved.mlruns / ("5" * 32)).is_dir()
    second = told(gate("--fix", rules=RULES))
    assert "verified: the store, read anew, is what was planned" in second
    assert not (moved.mlruns / ("5" * 32)).exists()


def test_other_rules_alone_change_nothing_before_the_rows_are_rewritten(gate: Gate, moved: Lab) -> None:
    stray, before = moved.stray("5" * 32, {"artifacts/a.bin": BIG}), places(moved)
    result = gate("--fix", "-k", "ART002")
    assert result.ret == 1
    assert "are rewritten first (ART003): run --fix again" in told(result)
    assert stray.is_dir()
    assert places(moved) == before


@pytest.mark.parametrize("harm", ["the weights", "a whole model", "what a run recorded", "an empty file"])
def test_nothing_is_rewritten_while_a_file_is_missing(gate: Gate, moved: Lab, harm: str) -> None:
    folder = next(path.parent for path in moved.mlruns.glob("1/models/*/artifacts/weights.bin"))
    recorded = next(moved.mlruns.glob("1/*/artifacts/model"))
    if harm == "the weights":
        (folder / "weights.bin").unlink()
    elif harm == "an empty file":
        (folder / "weights.bin").write_bytes(b"")
    else:
        shutil.rmtree(folder if harm == "a whole model" else recorded)
    before = places(moved)
    result = gate("--fix", "-k", "ART003")
    said = told(result)
    named = {
        "the weights": "missing: weights.bin",
        "an empty file": "empty: weights.bin",
        "a whole model": folder,
        "what a run recorded": recorded,
    }
    assert "! not fixed: not all files that its rows speak of are there" in said
    assert str(named[harm]) in said
    assert places(moved) == before


def test_a_store_that_moved_twice_gets_two_lines_and_what_names_the_new_place_stays(
    gate: Gate, make_lab: Callable[[], Lab]
) -> None:
    lab = make_lab()
    ids = fill(lab)
    rewrite(lab, str(lab.mlruns / "1"), "file:///D:/second%20place/mlruns/1")
    first = lab.experiment("first")
    lab.model(first, lab.run(first, files={"a.bin": BIG}))
    rewrite(lab, str(lab.mlruns / first), f"C:\\first\\mlruns\\{first}")
    here = lab.experiment("here")
    kept = lab.run(here, files={"b.bin": BIG + b"b"})
    gate.settings(lab.uri)
    block = block_in(told(gate("-k", "ART003")))
    assert parse(block)["store"]["relocate"] == {
        "file:///D:/second%20place/mlruns": str(lab.mlruns),
        "C:\\first\\mlruns": str(lab.mlruns),
    }
    before = places(lab)
    mapped(gate, lab, *block.splitlines()[1:])
    plan = plan_for(lab, "ART003")
    assert sorted(type(change).__name__ for change in plan.changes) == ["RewriteLocations"] * 2
    assert ("run", kept) not in {(entity.kind, entity.key) for entity in plan.entities}
    assert {("run", ids["run"]), ("experiment", first)} <= {(entity.kind, entity.key) for entity in plan.entities}
    done = carry_out(lab, plan)
    assert (done.differing, done.outcome.failed) == ([], [])
    assert not any("place/mlruns" in text or "C:" in text for _, text in places(lab))
    take_back(lab, done.lines)
    assert places(lab) == before


def test_equal_folders_are_told_and_none_is_chosen(gate: Gate, make_lab: Callable[[], Lab]) -> None:
    lab = make_lab()
    fill(lab)
    rewrite(lab, str(lab.mlruns), "/app/mlruns")
    shutil.copytree(lab.mlruns, lab.folder / "backup" / "mlruns")
    gate.settings(lab.uri)
    said = told(gate("-k", "ART003"))
    assert f"are in each of {lab.folder}/backup/mlruns and {lab.mlruns}" in said
    assert "to be copied into compliance.toml" not in said
    model = min((lab.mlruns / "1" / "models").iterdir())
    shutil.rmtree(lab.folder / "backup" / "mlruns" / "1" / "models" / model.name)
    assert parse(block_in(told(gate("-k", "ART003")))) == {"store": {"relocate": {"/app/mlruns": str(lab.mlruns)}}}


@pytest.mark.parametrize("name", ["größe und mehr", "100% sure", "50%20percent", 'a\'b "c"'])
@pytest.mark.parametrize("prefix", ["/app/mlruns", "file:///app/mlruns"])
def test_mlflow_finds_the_files_by_the_new_rows_whatever_the_folder_is_called(
    gate: Gate, make_lab: Callable[[], Lab], prefix: str, name: str
) -> None:
    lab = make_lab()
    ids = fill(lab)
    rewrite(lab, str(lab.mlruns), prefix)
    shutil.move(lab.mlruns, lab.folder / name)
    gate.settings(lab.uri)
    mapped(gate, lab, *block_in(told(gate("-k", "ART003"))).splitlines()[1:])
    assert gate("--fix", "-k", "ART003").ret == 0
    uri = lab.client.get_run(ids["run"]).info.artifact_uri
    assert uri.startswith("file:") == (prefix.startswith("file:") or name == "50%20percent")
    listed = get_artifact_repository(uri, tracking_uri=lab.uri).list_artifacts()
    assert {item.path for item in listed} >= {"notes.txt", "model"}


@pytest.mark.parametrize("old", ["missing", "empty", "empty, and no row proves that files were there"])
def test_a_root_that_is_away_stops_a_repair_and_says_where_its_files_were_found(
    gate: Gate, make_lab: Callable[[], Lab], old: str
) -> None:
    """Moved for good, or a volume that is mounted elsewhere for a while: the user says which, by the line that is
    told.
    """
    lab = make_lab()
    key = lab.experiment("work", lifecycle="reference")
    run = lab.run(key, files={"a.bin": BIG})
    if old != "empty, and no row proves that files were there":
        lab.model(key, run)
    shutil.move(lab.mlruns, lab.folder / "moved")
    if old != "missing":
        lab.mlruns.mkdir()
    gate.settings(lab.uri)
    away = gate("--fix", "-k", "ART003")
    assert away.ret == 4
    assert (
        f"files of those rows lie in {lab.folder / 'moved'}: map that with [store.relocate] if they were moved"
        in told(away)
    )
    block = block_in(told(gate("-k", "ART003")))
    assert parse(block) == {"store": {"relocate": {str(lab.mlruns): str(lab.folder / "moved")}}}
    gate.settings(lab.uri, f"\n{block}\n")
    assert gate("--fix", "-k", "ART003").ret == 0
    assert lab.folder_of(run) == lab.folder / "moved" / key / run / "artifacts"
    shutil.rmtree(lab.folder / "moved")
    gate.settings(lab.uri)
    if old != "empty, and no row proves that files were there":
        away = gate("--fix", "-k", "ART003")
        assert away.ret == 4
        assert "--fix does not write while files that rows speak of are away" in told(away)


def test_what_a_server_serves_is_found_but_its_rows_stay(gate: Gate, make_lab: Callable[[], Lab]) -> None:
    lab = make_lab()
    fill(lab)
    rewrite(lab, str(lab.mlruns), "mlflow-artifacts:")
    shutil.move(lab.mlruns, lab.folder / "mlartifacts")
    gate.settings(lab.uri)
    said = told(gate("-k", "ART003"))
    assert "for reading alone, since the server needs what the rows say" in said
    block = block_in(said)
    assert parse(block) == {"store": {"relocate": {"mlflow-artifacts:/": str(lab.folder / "mlartifacts")}}}
    gate.settings(lab.uri, f"\n{block}\n")
    before = places(lab)
    reading = gate("-k", "ART003")
    assert reading.ret == 0
    assert "stays as it is in the rows" in told(reading)
    result = gate("--fix", "-k", "ART003")
    assert result.ret == 4
    assert (
        "--fix does not write to a store that says mlflow-artifacts:/ in its rows and is read through [store.relocate]"
        in told(result)
    )
    assert places(lab) == before


def test_a_prefix_ends_at_a_separator_and_may_have_a_slash_more(gate: Gate, moved: Lab) -> None:
    other = moved.experiment("other")
    run = moved.run(other)
    moved.sql("UPDATE runs SET artifact_uri = '/app/mlruns-old/2/x/artifacts' WHERE run_uuid = ?", run)
    mapped(gate, moved, f'"/app/mlruns/" = "{moved.mlruns}/"')
    gate("--fix", "-k", "ART003")
    assert [text for _, text in places(moved) if "/app/" in text] == ["/app/mlruns-old/2/x/artifacts"]


def test_a_mapping_that_would_move_the_rows_once_more_is_refused(gate: Gate, moved: Lab) -> None:
    rewrite(moved, "/app/mlruns", f"{moved.folder}/old")
    before = places(moved)
    mapped(gate, moved, f'"{moved.folder}/old" = "{moved.mlruns}"', f'"{moved.mlruns}" = "/nowhere"')
    assert "cannot name its new place" in told(gate("--fix", "-k", "ART003"))
    assert places(moved) == before


def test_a_folder_that_holds_nothing_of_the_rows_is_refused(gate: Gate, make_lab: Callable[[], Lab]) -> None:
    lab = make_lab()
    lab.run(lab.experiment("numbers"), files={"a.bin": BIG})
    rewrite(lab, str(lab.mlruns), "/app/mlruns")
    shutil.rmtree(lab.mlruns)
    (lab.folder / "wrong").mkdir()
    (lab.folder / "wrong" / "notes.txt").write_bytes(BIG)
    before = places(lab)
    mapped(gate, lab, f'"/app/mlruns" = "{lab.folder}/wrong"')
    assert "see that it is the right one" in told(gate("--fix", "-k", "ART003"))
    assert places(lab) == before


def test_a_password_in_a_row_goes_into_no_journal(gate: Gate, moved: Lab) -> None:
    rewrite(moved, "/app/mlruns", "file://ann:secret@host/mlruns")
    before = places(moved)
    mapped(gate, moved, f'"file://ann:secret@host/mlruns" = "{moved.mlruns}"')
    assert "its rows hold a password" in told(gate("--fix", "-k", "ART003"))
    assert places(moved) == before
    assert not [path for path in moved.folder.rglob("*.jsonl") if b"secret" in path.read_bytes()]


@pytest.mark.parametrize(
    "meanwhile",
    [
        "UPDATE runs SET artifact_uri = '/elsewhere'",
        "UPDATE model_versions SET source = '/elsewhere' WHERE name = 'old style'",
        "DELETE FROM trace_tags WHERE key = 'mlflow.artifactLocation'",
    ],
)
def test_a_row_that_changed_meanwhile_stops_all_of_it(moved: Lab, meanwhile: str) -> None:
    plan = plan_for(moved, "ART003")
    moved.sql(meanwhile)
    before = places(moved)
    done = carry_out(moved, plan)
    (failed,) = done.outcome.failed
    assert "when the plan was made: run again to plan anew" in failed[1]
    assert places(moved) == before


def test_fix_max_counts_the_rows(gate: Gate, moved: Lab) -> None:
    result = gate("--fix", "--fix-max=3", "-k", "ART003")
    assert result.ret == 4
    assert "entities and --fix-max allows 3" in told(result)
    assert any("/app/" in text for _, text in places(moved))


def test_a_server_is_not_asked_for_what_is_read_elsewhere(gate: Gate, make_lab: Callable[[], Lab]) -> None:
    lab = make_lab()
    run = lab.run(lab.experiment("credit_delivery"), files={"a.bin": BIG}, stage="production")
    rewrite(lab, str(lab.mlruns), "file:///C:/anna/mlruns")
    mapped(gate, lab, f'"file:///C:/anna/mlruns" = "{lab.mlruns}"')
    rules = [RULES[0] / "test_serving.py"]
    result = gate("-k", "SRV002", rules=rules)
    assert "a server would serve by the rows, which name file:///C:/anna/mlruns" in told(result)
    assert result.ret == 0
    gate("--fix", "-k", "ART003")
    assert lab.client.get_run(run).info.artifact_uri.startswith(f"file://{lab.mlruns}/")
    result = gate("-k", "SRV002", rules=rules)
    assert result.ret == 0
    assert "not evaluated" not in told(result)


def test_the_journal_takes_every_row_back(moved: Lab) -> None:
    before = places(moved)
    done = carry_out(moved, plan_for(moved, "ART003"))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert places(moved) != before
    (journal,) = (moved.folder / ".compliance").glob("*.jsonl")
    take_back(moved, lines_of(journal))
    assert places(moved) == before


def test_rows_of_deleted_things_are_rewritten_too(gate: Gate, make_lab: Callable[[], Lab]) -> None:
    lab = make_lab()
    gone = lab.experiment("gone")
    run = lab.run(gone, files={"a.bin": BIG})
    model = lab.model(gone, run)
    lab.client.delete_logged_model(model)
    lab.client.delete_experiment(gone)
    before = places(lab)
    rewrite(lab, str(lab.mlruns), "/app/mlruns")
    mapped(gate, lab)
    assert gate("--fix", "-k", "ART003").ret == 0
    assert places(lab) == before
    assert os.path.isdir(lab.folder_of(run))
