"""`--fix-purge` at the command line: what goes, what stays, and that nothing unique outside of it is lost."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from collecting import files_in, rows_in
from gates import Gate, state, told
from stores import BIG, Lab

RETENTION = "\n[retention]\ndeleted_days = 30\n"


def plan_of(gate: Gate, name: str = "purge.json") -> dict[str, Any]:
    result = gate("--fix-purge", "--fix-dry-run", f"--fix-plan={name}")
    assert result.ret == 0, told(result)
    return dict(json.loads((gate.folder / name).read_text()))


def hashes_in(folder: Path) -> dict[str, str]:
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files_in(folder)}


def journals_of(lab: Lab) -> list[Path]:
    return sorted((lab.folder / ".compliance").glob("[0-9]*.jsonl"))


def test_what_repairs_left_goes_and_the_gate_stays_green(messy: Lab, gate: Gate) -> None:
    lab = messy
    kept = lab.experiment("credit_later", lifecycle="reference")
    dropped = lab.run(kept, "dropped by hand", files={"own.bin": BIG + b"o"})
    lab.client.delete_run(dropped)
    assert gate("--fix").ret == 0
    retired = {key: item for key, item in lab.read(artifacts=False).experiments.items() if item.retired}
    assert retired
    before = gate()
    assert before.ret == 0, told(before)
    stays, untouched = hashes_in(lab.folder), state(lab.mlruns)
    document = plan_of(gate)
    assert state(lab.mlruns) == untouched, "a plan changes nothing"
    going = {item["key"] for item in document["items"]}
    assert {item["kind"] for item in document["items"]} >= {"run", "quarantined"}
    assert dropped not in going, "what a person deleted is not this program's to destroy"
    rows = rows_in(lab.uri)
    result = gate("--fix-purge", "--fix-plan=purge.json")
    text = told(result)
    assert result.ret == 0, text
    gone = {path for path in stays if not os.path.lexists(path)}
    listed = {
        os.path.normpath(os.path.join(item["place"], file["path"])): file["sha256"]
        for item in document["items"]
        for file in item["files"]
    }
    assert {path: stays[path] for path in gone} == listed
    assert hashes_in(lab.mlruns) == {
        path: digest for path, digest in stays.items() if path.startswith(f"{lab.mlruns}/") and path not in gone
    }
    after = rows_in(lab.uri)
    assert {key for (key,) in rows["runs"] - after["runs"]} == {
        item["key"] for item in document["items"] if item["kind"] == "run"
    }
    assert rows["experiments"] == after["experiments"], "their ids are not given away again"
    assert lab.client.create_experiment("next", tags={"lifecycle": "reference"}) not in retired
    again = gate()
    assert again.ret == 0, told(again)
    # The record says all that was, and is chained as every journal.
    tombstone = journals_of(lab)[-1]
    lines = [json.loads(line) for line in tombstone.read_text().splitlines()]
    assert lines[0]["plan"] == document["plan"]
    begun = [line["do"] for line in lines if line.get("state") == "begin"]
    assert {item["key"] for item in begun} == going
    assert all(item["because"] and item["by"] for item in begun)
    assert gate(f"--fix-verify={tombstone.stem}").ret == 0
    assert "a purge" in told(gate("--fix-journals"))
    refused = gate(f"--fix-undo={tombstone.stem}")
    assert refused.ret == 4
    assert "cannot be brought back" in told(refused)
    second = gate("--fix-purge", "--fix-plan=purge.json")
    assert second.ret == 0
    assert f"{len(going)} by an earlier purge of this plan" in told(second)
    assert plan_of(gate, "other.json")["items"] == []
