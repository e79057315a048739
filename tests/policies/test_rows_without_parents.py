"""STO002 at the command line: rows whose parent row is not there are told and counted, and what hangs on them stays
where it is.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from gates import Gate, state, told
from repairs import findings
from stores import BIG, START, Lab

TRACE = f"tr-{'a' * 32}"
Harm = Callable[[Lab], None]
"""Takes a parent away."""


@pytest.fixture
def store(lab: Lab, gate: Gate) -> Lab:
    """A store in order: runs with files of their own, a logged model, a trace, and a model version whose files lie
    in no run's folder.
    """
    kept = lab.experiment("credit_kept", lifecycle="archived")
    lab.run(kept, "kept", files={"kept.bin": BIG + b"kept"})
    key = lab.experiment("credit_churn", lifecycle="archived")
    for name in ("first", "second"):
        lab.run(key, name, files={f"{name}.bin": BIG + name.encode()})
    lab.model(key, lab.runs(key)[0].info.run_id, files={"weights.bin": BIG + b"model"})
    lab.sql(
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) VALUES (?, ?, ?, 'OK')",
        TRACE,
        int(key),
        START,
    )
    lab.stray(key, {f"traces/{TRACE}/artifacts/traces.json": b"{}" + BIG})
    export = lab.stray(
        "exports/prices",
        {"MLmodel": b"flavors:\n  python_function:\n    data: model.pkl\n", "model.pkl": BIG + b"export"},
    )
    lab.registered("prices", str(export), alias="champion")
    gate.settings(lab.uri)
    return lab


def without_experiment(lab: Lab) -> None:
    for table in ("experiment_tags", "experiments"):
        lab.sql(f"DELETE FROM {table} WHERE experiment_id = 2")


def without_registered_model(lab: Lab) -> None:
    for table in ("registered_model_tags", "registered_model_aliases", "registered_models"):
        lab.sql(f"DELETE FROM {table}")


def without_any_registered_row_but_aliases(lab: Lab) -> None:
    """What stays of a model that somebody deleted by hand, its versions and their files with it."""
    for table in ("registered_model_tags", "model_version_tags", "model_versions", "registered_models"):
        lab.sql(f"DELETE FROM {table}")
    shutil.rmtree(lab.mlruns / "exports")


def without_version(lab: Lab) -> None:
    """Only what people wrote about it stays; its files were put away."""
    lab.client.set_model_version_tag("prices", "1", "approved", "yes")
    lab.sql("DELETE FROM registered_model_aliases")
    lab.sql("DELETE FROM model_versions")
    shutil.rmtree(lab.mlruns / "exports")


KINDS: dict[str, tuple[Harm, dict[str, int]]] = {
    "experiment": (
        without_experiment,
        {"logged_models-without-experiments": 1, "runs-without-experiments": 2, "trace_info-without-experiments": 1},
    ),
    "registered model": (without_registered_model, {"model_versions-without-registered_models": 1}),
    "aliases alone": (
        without_any_registered_row_but_aliases,
        {"registered_model_aliases-without-registered_models": 1},
    ),
    "tags of a version alone": (without_version, {"model_version_tags-without-model_versions": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_told_and_counted_and_nothing_of_theirs_is_moved(store: Lab, gate: Gate, kind: str) -> None:
    harm, expected = KINDS[kind]
    harm(store)
    assert {item.code: item.observed.split(" row")[0] for item in findings(store, "STO002")} == {
        code: str(rows) for code, rows in expected.items()
    }
    before, rows = state(store.mlruns), counts(store)
    result = gate("--fix")
    text = told(result)
    assert result.ret == 1
    head = ", ".join(f"{rows} of {' without '.join(code.split('-without-'))}" for code, rows in expected.items())
    assert f"rows whose parent is not there, and that MLflow shows nobody: {head}\n" in text
    for code, number in expected.items():
        table, parent = code.split("-without-")
        assert f"rows of {table} whose {parent} are not there; found: {number} row" in text
    assert "! not fixed: put the missing rows back from a backup of the database" in text
    assert "ART002" not in text
    assert state(store.mlruns) == before
    assert counts(store) == rows, "no row is taken away"


def test_the_files_of_a_trace_whose_experiment_held_nothing_else_stay(store: Lab, gate: Gate) -> None:
    """No run's row tells where that experiment lay: the id of the trace does."""
    key = store.experiment("credit_assistant", lifecycle="archived")
    store.sql("UPDATE trace_info SET experiment_id = ?", int(key))
    shutil.move(store.mlruns / "2" / "traces", store.mlruns / key / "traces")
    store.sql("DELETE FROM experiment_tags WHERE experiment_id = ?", int(key))
    store.sql("DELETE FROM experiments WHERE experiment_id = ?", int(key))
    before = state(store.mlruns)
    text = told(gate("--fix"))
    assert "1 of trace_info without experiments" in text
    assert "no run, model or experiment owns it" not in text
    assert state(store.mlruns) == before


def test_values_without_their_run_are_left_out(store: Lab, gate: Gate) -> None:
    """They are known by no name of their own, and going through all of them takes seconds."""
    (run, _) = store.runs("2")
    store.tag_run(run.info.run_id, note="kept")
    store.client.log_metric(run.info.run_id, "auc", 0.5)
    store.sql("DELETE FROM runs WHERE run_uuid = ?", run.info.run_id)
    assert [item.code for item in findings(store, "STO002")] == []
    assert "rows whose parent" not in told(gate("-k", "STO002"))


@pytest.mark.parametrize("deleted", [False, True])
def test_a_store_in_which_all_rows_have_their_parents(store: Lab, gate: Gate, *, deleted: bool) -> None:
    """What MLflow itself deletes leaves nothing behind that has no parent, and what nobody owns is moved there as
    ever.
    """
    store.stray("9", {"left.bin": b"left behind" * 200})
    if deleted:
        store.client.delete_experiment("2")
        store.client.delete_model_version("prices", "1")
        store.client.delete_registered_model("prices")
    assert findings(store, "STO002") == []
    text = told(gate("--fix", "-k", "STO002 or ART002"))
    assert "rows whose parent" not in text
    assert not (store.mlruns / "9").exists()
    assert (store.mlruns / "exports").exists() != deleted, "with its last version its files are nobody's"
    assert (store.mlruns / "2" / "traces").exists()


def counts(lab: Lab) -> dict[str, int]:
    """How many rows each table has that holds people's work."""
    tables = (
        "runs",
        "logged_models",
        "trace_info",
        "model_versions",
        "registered_model_aliases",
        "model_version_tags",
        "metrics",
        "params",
    )
    with closing(sqlite3.connect(lab.database)) as connection:
        return {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables}
