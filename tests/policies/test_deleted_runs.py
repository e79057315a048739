"""RUN004: what deleted runs hold is told, by age, and never fails."""

from __future__ import annotations

import os

from gates import POLICIES, Gate, told
from living import ago
from repairs import findings, notes
from stores import Lab


def deleted(lab: Lab, size: int, days: float | None, home: str = "0") -> str:
    run_id = lab.run(home, files={"big.bin": os.urandom(size)})
    lab.client.delete_run(run_id)
    lab.sql("UPDATE runs SET deleted_time = ? WHERE run_uuid = ?", days and ago(24 * days), run_id)
    return run_id


def test_run004_nothing_deleted_nothing_told(lab: Lab) -> None:
    lab.run("0", files={"big.bin": b"x" * 5000})
    lab.client.delete_run(lab.run("0"))
    assert notes(lab, "RUN004", "") == []
    assert findings(lab, "RUN004") == []


def test_run004_bytes_by_age(lab: Lab) -> None:
    gone = lab.experiment("gone")
    for size, days in ((1, 1), (10, 29), (100, 31), (1000, 179), (10000, 181), (100000, None)):
        deleted(lab, size, days)
    lab.run(gone, files={"big.bin": b"x" * 5})
    lab.client.delete_experiment(gone)
    (note,) = notes(lab, "RUN004", "")
    assert note.removeprefix("deleted runs hold 111116 bytes: ").split("; ") == [
        "16 by 3 deleted less than 30 days ago",
        "1100 by 2 deleted 30 to 180 days ago",
        "10000 by 1 deleted more than 180 days ago",
        "100000 by 1 deleted at a time that the store does not tell",
    ]
    assert findings(lab, "RUN004") == []


def test_run004_a_physical_copy_counts_once_and_for_who_holds_it(lab: Lab) -> None:
    old, young, shared = deleted(lab, 100, 200), deleted(lab, 10, 1), deleted(lab, 1000, 1)
    live = lab.run("0", files={"other.bin": b"y"})
    os.link(lab.folder_of(old) / "big.bin", lab.folder_of(young) / "of the old one.bin")
    os.link(lab.folder_of(shared) / "big.bin", lab.folder_of(live) / "of the deleted one.bin")
    assert notes(lab, "RUN004", "") == [
        "deleted runs hold 110 bytes: 110 by 1 deleted less than 30 days ago",
        "files of deleted runs share 1000 bytes with others, which keep them",
    ]


def test_run004_what_was_not_looked_at_is_said(lab: Lab) -> None:
    run_id = deleted(lab, 100, 1)
    lab.sql("UPDATE runs SET artifact_uri = 'gs://bucket/run/artifacts' WHERE run_uuid = ?", run_id)
    (note,) = notes(lab, "RUN004", "")
    assert note.startswith(f"what 1 deleted run holds is not known, such as {run_id}: ")


def test_run004_is_shown_in_every_report(lab: Lab, gate: Gate) -> None:
    deleted(lab, 4000, 40)
    gate.settings(lab.uri)
    result = gate("--junitxml=junit.xml", "--html=audit.html", "-k", "RUN004 or deleted_runs", rules=[POLICIES])
    assert result.ret == 0, told(result)
    said = "deleted runs hold 4000 bytes: 4000 by 1 deleted 30 to 180 days ago"
    for text in (told(result), (gate.folder / "junit.xml").read_text(), (gate.folder / "audit.html").read_text()):
        assert said in text
        assert "gc" not in text.partition(said)[2][:200], "it is no advice"
