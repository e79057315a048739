"""Ways to make an undo lose something, or say that all is back where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evidence import contents_of, differing, files_of, lost, rows_of, standing_in
from gates import Gate, told
from stores import Lab


class Store:
    """A messy store, what was in it, and the commands of its user."""

    def __init__(self, gate: Gate, lab: Lab) -> None:
        self.gate, self.lab = gate, lab
        self.rows, self.standing = rows_of(lab.database), standing_in(lab.database)
        self.files, self.contents = files_of(lab.mlruns), contents_of(lab.mlruns)

    @property
    def journals(self) -> list[Path]:
        return sorted(Path(self.lab.store.folder).glob("2*.jsonl"))

    def undo(self, name: object = "last") -> tuple[int, str]:
        result = self.gate(f"--fix-undo={name}", rules=())
        text = told(result)
        assert ("verified: the store," in text) <= (result.ret == 0), "all is said to be back, and is not"
        assert not self.contents - contents_of(self.lab.mlruns), "a content is lost"
        return int(result.ret), text

    def assert_as_before(self, *but: str) -> None:
        assert lost(self.rows, rows_of(self.lab.database)) == {}
        more = lost(standing_in(self.lab.database), self.standing)
        assert {table: rows for table, rows in more.items() if table not in but} == {}
        assert differing(self.files, files_of(self.lab.mlruns)) == {}


@pytest.fixture
def store(gate: Gate, messy: Lab) -> Store:
    return Store(gate, messy)


def test_a_journal_that_was_cut_off_says_so_and_what_it_does_not_tell_stays(store: Store) -> None:
    assert store.gate("--fix").ret == 0
    (journal,) = store.journals
    whole = journal.read_bytes()
    backup = store.lab.folder / "backup.jsonl"
    lines = whole.splitlines(keepends=True)
    # The copy is made, and its source is retired in lines that are not there any more.
    backup.write_bytes(b"".join(lines[:12]))
    code, text = store.undo(backup)
    assert code == 4
    assert f"says something else than the journal {journal.stem} of this store" in text

    journal.write_bytes(backup.read_bytes())
    code, text = store.undo()
    assert code == 1
    assert "has no end: it was broken off, or was cut off after" in text
    assert "is deleted or gone, so its copy" in text, "the copy of a run whose source is deleted is the last one to see"
    assert lost({"runs": store.standing["runs"]}, {"runs": rows_of(store.lab.database)["runs"]})

    # With the whole journal in its place again all of it goes back.
    journal.write_bytes(whole)
    code, text = store.undo()
    assert code == 0
    store.assert_as_before()


def test_the_older_of_two_repairs_first(store: Store) -> None:
    assert store.gate("--fix").ret == 0
    lab = store.lab
    rival = lab.experiment("credit_second_production")
    lab.run(rival, "second champion", files={"model.bin": b"other weights"}, stage="production")
    lab.run(lab.experiment("test_later"), "try")
    between = Store(store.gate, lab)
    store.gate("--fix")
    first, second = store.journals
    code, text = store.undo(first.stem)
    assert code in (0, 1)
    assert "taken back" in text
    code, text = store.undo(second.stem)
    assert code in (0, 1)
    for _ in range(3):
        code, text = store.undo()
        if code == 4:
            break
    assert (code, "is left that could be taken back" in text) == (4, True), text
    assert lost(store.rows, rows_of(lab.database)) == {}
    assert differing(store.files, files_of(lab.mlruns)) == {}
    own = {digest for path, (digest, *_) in between.files.items() if path.endswith((".compliance-owner", ".jsonl"))}
    assert not between.contents - own - contents_of(lab.mlruns)


def test_a_database_that_was_put_back_from_a_backup(store: Store) -> None:
    """The repair's rows are gone, its files are not: the undo sets right what it can and tells the rest."""
    backup = store.lab.database.read_bytes()
    assert store.gate("--fix").ret == 0
    store.lab.database.write_bytes(backup)
    assert store.undo()[0] in (0, 1)
    assert lost(store.rows, rows_of(store.lab.database)) == {}
    assert differing(store.files, files_of(store.lab.mlruns)) == {}
    assert rows_of(store.lab.database)["experiments"] == store.rows["experiments"]


def test_a_store_that_was_moved_with_its_journal_is_not_undone_by_it(store: Store, tmp_path: Path) -> None:
    assert store.gate("--fix").ret == 0
    (store.lab.folder / "compliance.toml").write_text((store.gate.folder / "compliance.toml").read_text())
    moved = Lab.moved(store.lab.folder, tmp_path / "moved")
    store.gate.settings(moved.uri)
    before: Any = rows_of(moved.database), files_of(moved.folder / "mlruns")
    for name in ("last", store.journals[0], store.journals[0].stem):
        result = store.gate(f"--fix-undo={name}", rules=())
        assert result.ret == 4, told(result)
    assert (rows_of(moved.database), files_of(moved.folder / "mlruns")) == before


def test_what_others_did_with_what_a_repair_made(store: Store) -> None:
    """They logged to a copy, took a name, logged a file again, emptied the quarantine: each is told and stays."""
    assert store.gate("--fix").ret == 0
    lab = store.lab
    (copy,) = [run for run in lab.runs("1") if "compliance.source_run_id" in run.data.tags]
    lab.client.log_metric(copy.info.run_id, "measured_later", 0.5)
    lab.client.create_experiment("test_experiment")
    linked = sorted(lab.mlruns.rglob("shap.bin"))
    linked[1].unlink()
    linked[1].write_bytes(b"logged again")
    aside = next(path for path in (lab.mlruns / ".quarantine").rglob("left.bin"))
    kept = aside.read_bytes()
    aside.unlink()
    store.contents -= {digest for path, (digest, *_) in store.files.items() if path.endswith("left.bin")}
    code, text = store.undo()
    assert code == 1
    left = [line for line in text.splitlines() if "left: " in line]
    for part in ("copy run", "rename experiment 3", "left.bin", "shap.bin"):
        assert [line for line in left if part in line or (part == "left.bin" and "/26 " in line)], (part, text)
    assert "not taken back: " in text
    assert linked[1].read_bytes() == b"logged again"
    assert lab.client.get_run(copy.info.run_id).info.lifecycle_stage == "active"
    gone = lost(store.rows, rows_of(lab.database))
    assert set(gone) <= {"experiments"}, gone
    # Once they are done with it the rest goes back.
    lab.client.rename_experiment(lab.client.get_experiment_by_name("test_experiment").experiment_id, "theirs")
    aside.write_bytes(kept)
    code, text = store.undo()
    assert "rename experiment 3" in text
    assert lost(store.rows, rows_of(lab.database)) == {}
