"""The journal: what is written before and after each change, enough to take all of it back, and one repair at a
time.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from repairs import carry_out, lines_of, plan_for, take_back
from stores import Lab, contents, differing

from mlflow_compliance.changes import CopyRun, load
from mlflow_compliance.errors import StoreError
from mlflow_compliance.repair.journal import Journal, only_one

ANOTHER = """
import sys
from mlflow_compliance.errors import StoreError
from mlflow_compliance.repair.journal import only_one
try:
    with only_one(sys.argv[1]):
        print("free")
except StoreError as error:
    print(error)
"""


def test_each_change_is_written_down_before_and_after(lab: Lab) -> None:
    lab.experiment("credit_delivery")
    lab.run(lab.experiment("credit_production"), stage="production")
    plan = plan_for(lab)
    lines = carry_out(lab, plan).lines
    head, *between, end = lines
    assert head["changes"] == len(plan.changes)
    assert head["store"] == lab.store.info.uri
    assert set(head["versions"]) == {"pytest-mlflow-compliance", "mlflow"}
    assert (end["state"], end["applied"], end["failed"]) == ("end", len(plan.changes), 0)
    for number, (change, begin, done) in enumerate(zip(plan.changes, between[::2], between[1::2], strict=True), 1):
        assert (begin["change"], begin["state"], done["change"], done["state"]) == (number, "begin", number, "done")
        assert load(begin["do"]) == change
        assert load(begin["undo"]) != change
        assert (begin["before"], begin["after"]) == change.facts()
        if isinstance(change, CopyRun):
            copied = next(run.info.run_id for run in lab.runs("1"))
            assert done["bound"] == {change.copy_id: copied}


def test_the_inverses_in_a_journal_bring_the_demo_store_back(demo: Lab) -> None:
    before, files = demo.everything(), contents(demo.folder)
    done = carry_out(demo, plan_for(demo))
    assert done.differing == []
    assert differing(before, demo.everything())
    take_back(demo, done.lines)
    assert differing(before, demo.read(tuple(before.runs))) == []
    after = contents(demo.folder)
    assert {path: content for path, content in after.items() if path in files} == files
    assert {
        path for path in after.keys() - files.keys() if ".compliance" not in path and ".quarantine" not in path
    } == set()


def test_a_second_repair_waits_for_nobody_and_says_so(lab: Lab) -> None:
    def another() -> str:
        return subprocess.run(
            [sys.executable, "-c", ANOTHER, lab.store.folder], capture_output=True, text=True, check=True
        ).stdout.strip()

    with only_one(lab.store.folder):
        assert another().startswith("another repair of this store is running")
    assert another() == "free"


def test_a_journal_that_cannot_be_written_stops_before_anything_changes(lab: Lab) -> None:
    (lab.folder / "in the way").write_bytes(b"")
    with pytest.raises(StoreError, match=r"no journal can be written in .*nothing was changed"):
        Journal(str(lab.folder / "in the way"), datetime.now(timezone.utc))
    with pytest.raises(StoreError, match="cannot be written"), only_one(str(lab.folder / "in the way")):
        pass


def test_journals_of_one_moment_do_not_meet(tmp_path: Path) -> None:
    at = datetime.now(timezone.utc)
    # More than the digit that chance gives can tell apart.
    journals = [Journal(str(tmp_path), at) for _ in range(40)]
    assert len({journal.id for journal in journals}) == 40
    journals[0].header("store", at, 0)
    for journal in journals:
        journal.close(0, 0)
    assert [line.get("journal") for line in lines_of(Path(journals[0].path))] == [journals[0].id, None]
