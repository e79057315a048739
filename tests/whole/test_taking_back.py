"""A whole repair taken back, made again and taken back again, compared by means of the tests' own: every row, every
byte, every path, every mode.
"""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
from evidence import differing as unlike
from evidence import files_of, lost, new_paths, rows_of
from repairs import EVERY, carry_out, hashes, plan_for
from stores import Lab, differing
from undoing import redo, taken_back, undo

from mlflow_compliance.snapshot.diff import differences


@pytest.mark.slow
def test_the_demo_store_there_and_back_twice(demo: Lab) -> None:
    before, rows, files = demo.everything(), rows_of(demo.database), files_of(demo.mlruns)
    contents = hashes(demo.folder)
    done = carry_out(demo, plan_for(demo, EVERY))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert lost(rows, rows_of(demo.database)), "nothing was changed, so nothing was shown"
    assert unlike(files, files_of(demo.mlruns))

    def as_before() -> None:
        after = demo.read(tuple(before.runs))
        assert lost(rows, rows_of(demo.database)) == {}
        assert unlike(files, files_of(demo.mlruns)) == {}
        assert new_paths(files, files_of(demo.mlruns)) == []
        assert differences(before, after) == []
        assert differing(before, after) == []

    assert undo(demo, done.lines) == []
    as_before()
    made = [line for line in done.lines if line.get("do", {}).get("kind") in ("CopyRun", "LogProductionRun")]
    assert len(taken_back(demo)) == len(made)
    assert not contents - hashes(demo.folder)

    for line in made:
        # Another process, on another day: what was built for the first repair is gone.
        shutil.rmtree(line["do"].get("bundle", ""), ignore_errors=True)
    again = redo(demo, done.lines)
    assert plan_for(demo, EVERY).steps == ()
    kinds = Counter(type(change).__name__ for change in done.outcome.applied)
    assert Counter(line["do"]["kind"] for line in again if "do" in line) == kinds
    assert undo(demo, again) == []
    as_before()
    assert len(taken_back(demo)) == 2 * len(made)
