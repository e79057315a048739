"""Real processes killed at every boundary of a journal, of a repair and of its undo: nothing is lost, the next one
finishes or takes back, and what is back equals what was.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from evidence import contents_of, differing, files_of, lost, new_paths, rows_of, standing_in
from forks import WELL, Bench, forget_connections
from gates import SETTINGS, make_messy
from stores import Lab

LONG = bool(os.environ.get("MLFLOW_COMPLIANCE_TESTS_LONG"))
LINE = "mlflow_compliance.repair.journal:Journal._write"
WRITE = "mlflow_compliance.store.write.writer:StoreWriter.write"
INNER = {
    # Boundaries within one change: what is called for the n-th time when the process dies.
    "the hash is on record and nothing is shared": "mlflow_compliance.store.storage.files:share:1",
    "the manifest is written and nothing moved": "mlflow_compliance.store.storage.files:quarantine:1",
    "the copy has a row and no file": "mlflow_compliance.store.write.copies:RunCopier.copy_files:1",
    "the copy has its files and no history": "mlflow_compliance.store.write.copies:RunCopier.log:1",
    "the copy has all but its mark": "mlflow_compliance.store.write.copies:RunCopier._count:1",
    "the experiment is deleted and nobody looked after it": (
        "mlflow_compliance.store.write.experiments:_refuse_what_came_meanwhile:1"
    ),
}
INNER_OF_UNDO = {
    "the copy is marked as taken back, and nothing else": "mlflow.tracking:MlflowClient.search_logged_models:1",
    "the copy's manifest is written and nothing moved": "mlflow_compliance.store.storage.files:quarantine:1",
    "the copy's files are aside and its row stands": "mlflow.tracking:MlflowClient.delete_run:1",
    "the file is its own again and on record": "mlflow_compliance.store.write.artifacts:add_records:1",
    "nothing is moved back yet": "mlflow_compliance.store.storage.files:restore:1",
}


class Look:
    """What a store holds, by the tests' own code."""

    def __init__(self, folder: Path) -> None:
        self.rows = rows_of(folder / "mlflow.db")
        self.standing = standing_in(folder / "mlflow.db")
        self.files = files_of(folder / "mlruns")
        self.contents = contents_of(folder / "mlruns")

    def lost_since(self, folder: Path) -> list[str]:
        """What of it is not in the store any more, whatever the store is in the middle of."""
        now = rows_of(folder / "mlflow.db")
        gone = [f"content {digest}" for digest in self.contents - contents_of(folder / "mlruns")]
        # These say where things are, not what was measured: a repair may be in the middle of changing them.
        changed = {"experiments", "runs", "tags", "experiment_tags", "logged_models", "registered_model_aliases"}
        return gone + [f"rows of {name}: {rows}" for name, rows in lost(self.rows, now).items() if name not in changed]

    def unlike(self, folder: Path) -> list[str]:
        """Where the store differs from it, but for what is soft-deleted and in quarantine, and empty folders: whose
        those are nobody knows any more.
        """
        rows, standing = rows_of(folder / "mlflow.db"), standing_in(folder / "mlflow.db")
        files = files_of(folder / "mlruns")
        found = [f"lost rows of {name}: {gone}" for name, gone in lost(self.rows, rows).items()]
        found += [f"more rows of {name}: {more}" for name, more in lost(standing, self.standing).items()]
        found += [f"file {name}: {facts}" for name, facts in differing(self.files, files).items()]
        return found + [f"more files: {name}" for name in new_paths(self.files, files) if files[name][0]]


@pytest.fixture(scope="module")
def bench(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A store that has a change of each kind to be made, kept as `before`."""
    folder = tmp_path_factory.mktemp("killed") / "store"
    lab = Lab.new(folder, empty_store, {})
    make_messy(lab)
    lab.stray("26", {"left.bin": b"left behind" * 200})
    (folder / "compliance.toml").write_text(SETTINGS.format(uri=json.dumps(lab.uri)))
    forget_connections()
    made = Bench(folder)
    made.keep("before")
    return made


@pytest.fixture(scope="module")
def before(bench: Bench) -> Look:
    bench.bring("before")
    return Look(bench.folder)


@pytest.fixture(scope="module")
def fixed(bench: Bench, before: Look) -> list[dict[str, Any]]:
    """The lines of the journal of the repair that nobody disturbs; the store after it is kept as `fixed`."""
    assert before
    bench.bring("before")
    assert bench.fix() == WELL, bench.said
    assert bench.fix() == WELL, bench.said
    bench.keep("fixed")
    (journal,) = journals(bench)
    return [json.loads(line) for line in journal.read_text().splitlines()]


def journals(bench: Bench) -> list[Path]:
    return sorted((bench.folder / ".compliance").glob("2*.jsonl"))


def boundaries(lines: list[dict[str, Any]]) -> list[str]:
    """Every boundary of a journal: before each of its writes, and between the line that begins a change and the
    change.
    """
    writes = len([line for line in lines if line.get("state") != "begin" or line["change"]])
    changes = len([line for line in lines if line.get("state") == "begin"])
    found = [f"{LINE}:{number}" for number in range(1, writes + 1)]
    return found + [f"{WRITE}:{number}" for number in range(1, changes + 1)]


def some(found: list[str]) -> list[str]:
    """All of them where there is time, else a few that lie apart."""
    return found if LONG else found[3::17]


def tear(bench: Bench) -> None:
    """Half a last line, as a program leaves it that dies while it writes."""
    journal = journals(bench)[-1]
    with journal.open("a") as file:
        file.write('{"change": 1, "sta')


def test_a_repair_that_is_killed_is_finished_or_taken_back(
    bench: Bench, before: Look, fixed: list[dict[str, Any]]
) -> None:
    wrong: dict[str, list[str]] = {}
    moments = [*some(boundaries(fixed)), *INNER.values()]
    for number, moment in enumerate(moments):
        bench.bring("before")
        assert bench.fix(kill=moment) == -signal.SIGKILL, (moment, bench.said)
        wrong[moment] = before.lost_since(bench.folder)
        if number % 2 and journals(bench):
            tear(bench)
        bench.keep("killed")
        wrong[moment] += taken_back(bench, before)
        bench.bring("killed")
        code = bench.fix()
        wrong[moment] += [] if code == WELL else [f"the next repair: {code} {bench.said}"]
        wrong[moment] += [f"the next repair leaves: {line}" for line in before.lost_since(bench.folder)]
        wrong[moment] += taken_back(bench, before)
    print(f"\n{len(moments)} moments of a repair")  # noqa: T201
    assert [f"{moment}: {line}" for moment, lines in wrong.items() for line in lines] == []


def taken_back(bench: Bench, before: Look) -> list[str]:
    """Take back all that there is to be taken back; what is not as it was."""
    for _ in range(4):
        code = bench.undo()
        if code == 4 and ("is left that could be taken back" in bench.said):
            return [f"taken back: {line}" for line in before.unlike(bench.folder)]
        if code != WELL:
            return [f"undo: {code} {bench.said}"]
    return [f"--fix-undo=last does not come to an end: {bench.said}"]


def test_an_undo_that_is_killed_is_finished_by_the_next_one(
    bench: Bench, before: Look, fixed: list[dict[str, Any]]
) -> None:
    wrong: dict[str, list[str]] = {}
    moments = [*some(boundaries(fixed)), *INNER_OF_UNDO.values()]
    for number, moment in enumerate(moments):
        bench.bring("fixed")
        assert bench.undo(kill=moment) == -signal.SIGKILL, (moment, bench.said)
        wrong[moment] = before.lost_since(bench.folder)
        if number % 2:
            tear(bench)
        wrong[moment] += taken_back(bench, before)
    print(f"\n{len(moments)} moments of an undo")  # noqa: T201
    assert [f"{moment}: {line}" for moment, lines in wrong.items() for line in lines] == []
