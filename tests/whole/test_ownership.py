"""Whose a file is, at the command line: it is moved or linked only where that is proven, and an ordinary store is
repaired as ever.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from gates import Gate, plan_in, told
from stores import BIG, START, Lab

NOTE = ".compliance-owner"
GONE = "5" * 32
TABLE = "CREATE TABLE skill_catalog (id INTEGER, home TEXT)"


@pytest.fixture
def store(lab: Lab, gate: Gate) -> Lab:
    """An ordinary store: two runs with the same file, and what a run left behind whose row is gone."""
    experiment = lab.experiment("credit_selection", lifecycle="archived")
    for name in ("first", "second"):
        lab.run(experiment, name, files={"shap.bin": BIG})
    stray(lab)
    gate.settings(lab.uri)
    return lab


def stray(lab: Lab, name: str = f"9/{GONE}") -> Path:
    """A folder that nobody owns, of the time of the runs: one that is newer than all rows would be told as a newer
    database's.
    """
    made = lab.stray(name, {"artifacts/old.bin": b"left behind" * 200})
    for path in (*made.rglob("*"), made, made.parent):
        os.utime(path, (START / 1000, START / 1000))
    return made


def fix(gate: Gate, *flags: str, uri: str = "") -> str:
    result = gate("--fix", "-k", "ART001 or ART002", *flags, *([f"--tracking-uri={uri}"] if uri else []))
    return told(result)


def inodes(folder: Path) -> dict[str, int]:
    """Where every artifact is, and in which physical copy."""
    return {
        str(path): path.stat().st_ino
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".bin", ".txt")
    }


def untouched(lab: Lab, gate: Gate, *, reason: str, flags: tuple[str, ...] = (), uri: str = "") -> str:
    """What a repair says that leaves the artifacts of a store alone, for a reason that its finding tells."""
    before = inodes(lab.folder)
    text = fix(gate, *flags, uri=uri)
    assert inodes(lab.folder) == before
    assert f"unknown owner ({reason}" in text.replace("\n", " "), text
    assert "no run, model or experiment owns it" not in text
    return text


def repaired(text: str, lab: Lab) -> None:
    """One copy of each content is left, and what nobody owns lies in the quarantine."""
    assert "verified: the store, read anew, is what was planned" in text, text
    assert not (lab.mlruns / "9").exists()
    assert (
        len(
            list(lab.mlruns.glob(f".quarantine/*/9/{GONE}/artifacts/old.bin"))
            + list(lab.mlruns.glob(".quarantine/*/9/**/old.bin"))
        )
        >= 1
    )
    assert len({path.stat().st_ino for path in lab.mlruns.glob("*/*/artifacts/shap.bin")}) == 1


def sql(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def elsewhere(lab: Lab, experiment: str, place: str) -> None:
    """Write another place into the rows of an experiment; its files stay where they are."""
    old = str(lab.mlruns / experiment)
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
    ):
        lab.sql(
            f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE experiment_id = ?", old, place, experiment
        )


class TestOrdinaryStores:
    """The other direction: nothing of all this stands in the way of a store whose rows are all read and lead to
    their files.
    """

    def test_one_database_with_its_own_mlruns(self, store: Lab, gate: Gate) -> None:
        repaired(fix(gate), store)
        note = json.loads((store.mlruns / NOTE).read_text())
        assert note["inode"] == (store.mlruns / NOTE).stat().st_ino
        assert "0 changes to 0 entities" in fix(gate)

    def test_the_note_is_first_in_the_plan_of_its_root_and_written_once(self, store: Lab, gate: Gate) -> None:
        lines = [
            line.strip() for line in plan_in(gate("--fix", "-k", "ART001 or ART002")) if line.lstrip().startswith("+")
        ]
        assert [line.split()[2] for line in lines] == ["note", "store", "move"]

    def test_no_note_where_nothing_in_the_root_changes(self, lab: Lab, gate: Gate) -> None:
        lab.run(lab.experiment("credit_selection"), files={"a.bin": BIG})
        gate.settings(lab.uri)
        gate("--fix")
        assert not (lab.mlruns / NOTE).exists()

    def test_a_store_that_was_moved_as_a_whole_keeps_its_note(self, store: Lab, gate: Gate) -> None:
        fix(gate)
        new = store.folder.with_name("moved")
        store.folder.rename(new)
        moved = Lab(new, store.settings)
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            moved.sql(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", str(store.folder), str(new))
        # As it would be in doubt without the note.
        shutil.copy(moved.database, moved.folder / "mlflow.db.bak")
        stray(moved)
        repaired(fix(gate, uri=moved.uri), moved)

    @pytest.mark.parametrize(
        "place",
        [
            "gs://bucket/mlruns/2",
            "s3a://bucket/2",
            "D:\\code\\mlruns\\2",
            "file:///D:/code/mlruns/2",
            "/no/such/place/mlruns/2",
        ],
    )
    def test_rows_of_another_place_that_cannot_mean_it_do_not_stop_it(self, store: Lab, gate: Gate, place: str) -> None:
        other = store.experiment("credit_cloud", lifecycle="archived")
        store.run(other)
        elsewhere(store, other, place)
        repaired(fix(gate), store)

    def test_a_served_default_experiment_in_which_nothing_was_logged(self, store: Lab, gate: Gate) -> None:
        elsewhere(store, "0", "mlflow-artifacts:/0")
        repaired(fix(gate), store)

    def test_a_database_of_another_program_and_its_tables(self, store: Lab, gate: Gate) -> None:
        sql(store.folder / "optuna.db", "CREATE TABLE studies (name TEXT)")
        sql(
            store.database,
            "CREATE TABLE studies (name TEXT)",
            "INSERT INTO studies VALUES ('optuna/search')",
            f"INSERT INTO studies VALUES ('{store.folder}x')",
        )
        repaired(fix(gate), store)

    def test_another_store_beside_it_with_files_of_its_own(
        self, store: Lab, gate: Gate, make_lab: Callable[[], Lab]
    ) -> None:
        other = make_lab()
        other.run("0", files={"a.bin": BIG})
        shutil.copy(other.database, store.folder / "other.db")
        repaired(fix(gate), store)


class TestRowsThatLeadElsewhere:
    @pytest.mark.parametrize("what", ["run", "model", "trace"])
    def test_a_moved_store_with_one_new_experiment(self, store: Lab, gate: Gate, tmp_path: Path, what: str) -> None:
        old = store.experiment("credit_old", lifecycle="archived")
        run = store.run(old, files={"evidence.bin": BIG + b"!"} if what == "run" else None)
        if what == "model":
            store.model(old, run, files={"weights.bin": BIG + b"!"})
        if what == "trace":
            trace = f"tr-{'a' * 32}"
            store.sql(
                "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) VALUES (?, ?, 1, 'OK')",
                trace,
                int(old),
            )
            (store.mlruns / old / "traces" / trace / "artifacts").mkdir(parents=True)
            (store.mlruns / old / "traces" / trace / "artifacts" / "traces.bin").write_bytes(BIG)
        elsewhere(store, old, str(tmp_path / "old" / "mlruns" / old))
        before = inodes(store.mlruns / old)
        text = fix(gate)
        assert inodes(store.mlruns / old) == before
        # The whole root is what the rows may mean: what bears no id stays as well.
        assert (store.mlruns / "9" / GONE).exists()
        assert "(a store that was moved?)" in text
        assert "map the place that the rows name with [store.relocate]" in text

    def test_the_id_of_an_experiment_alone(self, store: Lab, gate: Gate) -> None:
        old = store.experiment("credit_old")
        elsewhere(store, old, f"/no/such/place/{old}")
        store.stray(old, {"traces/x/artifacts/traces.bin": BIG})
        fix(gate)
        assert (store.mlruns / old / "traces").exists()

    @pytest.mark.parametrize(
        "source", ["D:\\export\\prices_v3", "gs://bucket/export/prices_v3", "/no/such/place/prices_v3/"]
    )
    def test_the_ending_of_a_versions_source(self, store: Lab, gate: Gate, source: str) -> None:
        store.client.create_registered_model("prices")
        store.client.create_model_version("prices", str(store.mlruns))
        store.sql("UPDATE model_versions SET source = ?, storage_location = ?", source, source)
        store.stray("export/prices_v3", {"MLmodel": b"flavors: {}\n", "weights.bin": BIG})
        fix(gate)
        assert (store.mlruns / "export" / "prices_v3" / "weights.bin").exists()
        assert not (store.mlruns / "9").exists(), "nothing else is tainted"

    def test_a_copy_of_a_runs_folder(self, store: Lab, gate: Gate) -> None:
        (run, *_) = store.runs("1")
        store.stray(f"backup/{run.info.run_id}", {"artifacts/shap.bin": BIG})
        fix(gate)
        assert (store.mlruns / "backup").exists()
        assert not (store.mlruns / "9").exists()

    def test_a_file_that_a_row_elsewhere_may_mean_is_not_linked(self, store: Lab, gate: Gate) -> None:
        shutil.rmtree(store.mlruns / "9")
        (run, *_) = store.runs("1")
        store.client.create_registered_model("prices")
        store.client.create_model_version("prices", str(store.mlruns))
        store.sql(
            "UPDATE model_versions SET source = ?, storage_location = NULL",
            f"mlflow-artifacts:/1/{run.info.run_id}/artifacts",
        )
        before = inodes(store.folder)
        assert "may mean it too" in fix(gate)
        assert inodes(store.folder) == before


class TestServedRows:
    """Rows that say mlflow-artifacts: may mean a folder here: the server's destination may be any."""

    def test_of_a_root_that_only_the_settings_name(self, lab: Lab, gate: Gate) -> None:
        experiment = lab.experiment("credit_dev", lifecycle="archived")
        run = lab.run(experiment, files={"only.bin": BIG})
        (lab.folder / "mlruns").rename(lab.folder / "art")
        elsewhere(lab, experiment, f"mlflow-artifacts:/{experiment}")
        lab.sql("DELETE FROM experiments WHERE experiment_id = 0")
        gate.settings(lab.uri)
        path = gate.folder / "compliance.toml"
        path.write_text(path.read_text().replace("[store]\n", f'[store]\nartifact_roots = ["{lab.folder}/art"]\n'))
        untouched(lab, gate, reason=f"it bears the id of run {run}")

    def test_of_a_laptops_store_that_is_served_now(self, store: Lab, gate: Gate) -> None:
        served = store.experiment("credit_served", lifecycle="archived")
        run = store.run(served, files={"only.bin": BIG + b"!"})
        elsewhere(store, served, f"mlflow-artifacts:/{served}")
        fix(gate)
        assert (store.mlruns / served / run / "artifacts" / "only.bin").exists()
        assert (store.mlruns / "9").exists()

    def test_of_a_version_alone_whose_folder_bears_no_id(self, store: Lab, gate: Gate) -> None:
        store.client.create_registered_model("prices")
        store.client.create_model_version("prices", str(store.mlruns))
        store.sql("UPDATE model_versions SET source = 'mlflow-artifacts:/exports/a', storage_location = NULL")
        fix(gate)
        assert (store.mlruns / "9").exists()


class TestWhatTheDatabaseSaysBesides:
    @pytest.mark.parametrize(
        "value",
        [
            "{root}/9",
            "file://{root}/9/x",
            "mlflow-artifacts:/skills/@a/b",
            "9",
            "{root}-old/9",
            f"9/{GONE}",
            f"sha256:{GONE}",
            '{{"uri": "{escaped}\\/9"}}',
            "{root}",
        ],
    )
    def test_a_table_of_a_later_version(self, store: Lab, gate: Gate, value: str) -> None:
        root = str(store.mlruns)
        sql(store.database, TABLE)
        store.sql("INSERT INTO skill_catalog VALUES (1, ?)", value.format(root=root, escaped=root.replace("/", "\\/")))
        fix(gate)
        assert (store.mlruns / "9").exists()
        assert len({path.stat().st_ino for path in store.mlruns.glob("*/*/artifacts/shap.bin")}) == 1, (
            "what rows own is linked all the same"
        )

    @pytest.mark.parametrize("value", ["prices", "{root}-old/8", "gs://bucket/9x", "", "/no/such/place"])
    def test_a_table_of_a_later_version_that_names_something_else(self, store: Lab, gate: Gate, value: str) -> None:
        sql(store.database, TABLE)
        store.sql("INSERT INTO skill_catalog VALUES (9, ?)", value.format(root=store.mlruns))
        repaired(fix(gate), store)

    def test_a_column_of_a_later_version(self, store: Lab, gate: Gate) -> None:
        sql(store.database, "ALTER TABLE experiments ADD COLUMN cold_storage TEXT")
        store.sql("UPDATE experiments SET cold_storage = ?", str(store.mlruns / "9"))
        untouched_entry = store.mlruns / "9"
        assert "experiments.cold_storage, which this version does not read" in fix(gate)
        assert untouched_entry.exists()

    def test_a_table_that_is_too_large_to_look_through(self, store: Lab, gate: Gate) -> None:
        sql(store.database, TABLE)
        store.sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= 100001) INSERT INTO "
            "skill_catalog SELECT i, 'x' FROM n"
        )
        assert "too much to look through" in fix(gate)
        assert (store.mlruns / "9").exists()

    @pytest.mark.parametrize(
        "spelling", ["{path}", "file://{path}", '{{"uri": "{path}"}}', "see {path}, please", "{path}/artifacts/old.bin"]
    )
    def test_a_text_that_names_it(self, store: Lab, gate: Gate, spelling: str) -> None:
        (run, *_) = store.runs("1")
        store.stray("8", {f"{'8' * 32}/artifacts/other.bin": b"left" * 900})
        store.client.set_tag(run.info.run_id, "source", spelling.format(path=store.mlruns / "9"))
        assert "a text in tags.value names it" in fix(gate)
        assert (store.mlruns / "9").exists()
        assert not (store.mlruns / "8").exists(), "nothing else is kept for it"


class TestOtherDatabases:
    def test_a_copy_of_a_store_does_not_touch_the_originals_files(self, store: Lab, gate: Gate, tmp_path: Path) -> None:
        shutil.copytree(store.folder, tmp_path / "copy")
        uri = f"sqlite:///{tmp_path / 'copy' / 'mlflow.db'}"
        text = untouched(store, gate, reason=f"it does not lie in {tmp_path / 'copy'}", uri=uri)
        assert f"--fix-owned-root={store.mlruns}" in text

    def test_a_copy_of_a_store_in_a_folder_above_it(self, store: Lab, gate: Gate) -> None:
        shutil.copy(store.database, store.folder.parent / "upper.db")
        untouched(
            store,
            gate,
            reason=f"{store.database} holds runs of this store too",
            uri=f"sqlite:///{store.folder.parent / 'upper.db'}",
        )

    def test_a_store_without_runs_in_a_folder_above_it(
        self, store: Lab, gate: Gate, make_lab: Callable[[], Lab]
    ) -> None:
        other = make_lab()
        shutil.copy(other.database, store.folder.parent / "upper.db")
        sql(store.folder.parent / "upper.db", f"UPDATE experiments SET artifact_location = '{store.mlruns}/0'")
        untouched(
            store,
            gate,
            reason=f"the database {store.database} lies nearer to it",
            uri=f"sqlite:///{store.folder.parent / 'upper.db'}",
        )

    @pytest.mark.parametrize("name", ["mlflow.db.bak", "yesterday", "mlflow-copy.sqlite"])
    def test_a_backup_beside_it_is_told_by_its_name(self, store: Lab, gate: Gate, name: str) -> None:
        shutil.copy(store.database, store.folder / name)
        untouched(store, gate, reason=f"{store.folder / name} holds runs of this store too")
        repaired(fix(gate, f"--fix-owned-root={store.mlruns}"), store)

    def test_the_flag_once_and_the_note_from_then_on(self, store: Lab, gate: Gate, tmp_path: Path) -> None:
        shutil.copytree(store.folder, tmp_path / "copy")
        uri = f"sqlite:///{tmp_path / 'copy' / 'mlflow.db'}"
        text = fix(gate, f"--fix-owned-root={store.mlruns}", uri=uri)
        assert "as --fix-owned-root says" in text
        repaired(text, store)
        stray(store)
        repaired(fix(gate, uri=uri), store)
        # And from now on the original is the one in doubt.
        stray(store)
        untouched(store, gate, reason=f"the note {NOTE} in it says that another database owns it, then at {uri}")

    def test_a_copy_of_a_repaired_store_is_given_away_by_its_note(self, store: Lab, gate: Gate, tmp_path: Path) -> None:
        fix(gate)
        copy = Lab.moved(written(store), tmp_path / "copy")
        stray(copy)
        untouched(copy, gate, reason=f"the note {NOTE} in it was copied", uri=copy.uri)
        # The original's is its own still.
        stray(store)
        repaired(fix(gate), store)

    def test_a_note_that_cannot_be_read(self, store: Lab, gate: Gate) -> None:
        (store.mlruns / NOTE).write_text("[1]\n")
        untouched(store, gate, reason=f"the note {NOTE} in it, which says whose it is, cannot be read")

    def test_two_databases_with_one_default_folder(self, store: Lab, gate: Gate, make_lab: Callable[[], Lab]) -> None:
        other = make_lab()
        sql(other.database, f"UPDATE experiments SET artifact_location = '{store.mlruns}/0'")
        other.run("0", files={"theirs.bin": BIG})
        untouched(store, gate, reason=f"it does not lie in {other.folder}", uri=other.uri)

    def test_a_run_of_a_neighbour_whose_rows_name_another_place(
        self, store: Lab, gate: Gate, make_lab: Callable[[], Lab]
    ) -> None:
        other = make_lab()
        other.sql(
            "INSERT INTO runs (run_uuid, experiment_id, lifecycle_stage, status, artifact_uri) VALUES (?, 0, "
            "'active', 'FINISHED', 'gs://b')",
            GONE,
        )
        shutil.copy(other.database, store.folder / "other.db")
        fix(gate)
        assert (store.mlruns / "9").exists()

    def test_a_root_that_a_link_leads_out_to(self, store: Lab, gate: Gate, tmp_path: Path) -> None:
        store.mlruns.rename(tmp_path / "volume")
        store.mlruns.symlink_to(tmp_path / "volume")
        assert "it does not lie in" in fix(gate)
        repaired(fix(gate, f"--fix-owned-root={store.mlruns}"), store)

    def test_equal_files_of_two_roots_are_linked_where_there_is_no_doubt(
        self, store: Lab, gate: Gate, tmp_path: Path
    ) -> None:
        far = str(
            store.client.create_experiment(
                "credit_far", artifact_location=str(tmp_path / "far" / "2"), tags={"lifecycle": "archived"}
            )
        )
        store.run(far, files={"shap.bin": BIG})
        text = fix(gate)
        assert len({path.stat().st_ino for path in store.mlruns.glob("*/*/artifacts/shap.bin")}) == 1
        (other,) = (tmp_path / "far").glob("*/*/artifacts/shap.bin")
        assert other.stat().st_nlink == 1
        assert "! not fixed: it does not lie in" in text

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (
                ["--fix-owned-root=."],
                "--fix-owned-root is about what --fix, --fix-dry-run or --fix-undo may change: give one of them",
            ),
            (["--fix", "--fix-owned-root=no-such-folder"], "which is no artifact root of the store"),
            (["--fix-dry-run", "--fix-owned-root=."], "which is no artifact root of the store"),
        ],
    )
    def test_a_flag_that_makes_no_sense(self, store: Lab, gate: Gate, flags: list[str], said: str) -> None:
        result = gate(*flags)
        assert result.ret == 4
        assert said in told(result)


def make_relative(lab: Lab) -> None:
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        lab.sql(f"UPDATE {table} SET {column} = replace({column}, ?, './mlruns')", str(lab.mlruns))


class TestRelativeLocations:
    @pytest.fixture
    def relative(self, store: Lab) -> Lab:
        make_relative(store)
        return store

    def test_they_start_from_the_folder_of_the_database(self, relative: Lab, gate: Gate) -> None:
        """And not from that of pytest, in which another store's folder lies."""
        foreign = gate.folder / "mlruns" / "5" / GONE / "artifacts"
        foreign.mkdir(parents=True)
        (foreign / "precious.bin").write_bytes(BIG)
        repaired(fix(gate), relative)
        assert (foreign / "precious.bin").exists()

    def test_a_folder_in_which_nothing_of_theirs_lies(self, relative: Lab, gate: Gate, tmp_path: Path) -> None:
        new = tmp_path / "elsewhere" / "mlflow.db"
        (new.parent / "mlruns" / "9" / GONE / "artifacts").mkdir(parents=True)
        (new.parent / "mlruns" / "9" / GONE / "artifacts" / "precious.bin").write_bytes(BIG)
        relative.database.rename(new)
        assert "rows name it by a relative path" in fix(gate, uri=f"sqlite:///{new}")
        assert (new.parent / "mlruns" / "9").exists()

    def test_a_merge_writes_where_the_rows_of_the_target_lead(self, relative: Lab, gate: Gate) -> None:
        for name in ("credit_delivery", "credit_production"):
            relative.run(relative.experiment(name), name, files={"proof.bin": BIG + name.encode()}, stage="production")
        make_relative(relative)
        told(gate("--fix", "-k", "EXP001"))
        assert not (gate.folder / "mlruns").exists()
        assert len(list(relative.mlruns.glob("2/*/artifacts/proof.bin"))) == 2


def written(lab: Lab) -> Path:
    """The folder of a store with its settings beside it."""
    (lab.folder / "compliance.toml").write_text("")
    return lab.folder
