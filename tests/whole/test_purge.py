"""`--fix-purge` at the command line: what goes, what stays, and that nothing unique outside of it is lost."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from runpy import run_path
from typing import Any

import killing
from collecting import files_in, rows_in
from gates import CHECKOUT, POLICIES, Gate, LabMaker, state, told
from jsonschema import Draft202012Validator
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore
from stores import BIG, Lab, differing

from mlflow_compliance.audit.audit import Audit, Options
from mlflow_compliance.audit.purge import carry_out_purge
from mlflow_compliance.progress import Silent

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
    schema = json.loads(resources.files("mlflow_compliance").joinpath("schemas/purge.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(document)
    assert schema == json.loads(run_path(str(CHECKOUT / ".ci" / "plan_schema.py"))["text"]("purge.schema.json"))
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


def audit_of(gate: Gate, lab: Lab) -> Audit:
    # A copy of a store is not the one that its note was written for.
    given = {"tracking_uri": lab.uri, "purge": True, "plan": "purge.json", "owned_roots": (str(lab.mlruns),)}
    return Audit(Options(rootdir=gate.folder, workdir=gate.folder, **given), Silent)


def close() -> None:
    """What is open here is not to be used in another process, nor on another file of the same name."""
    for store in (TrackingStore, RegistryStore):
        for engine in store._engine_map.values():
            engine.dispose()


def killed_at(moment: str, gate: Gate, lab: Lab) -> bool:
    """Carry the plan out in a process of its own that dies at a moment; whether it came to it."""
    close()
    child = os.fork()
    if not child:
        try:
            killing.arm(moment)
            done = carry_out_purge(audit_of(gate, lab), lambda *_: False)
            os.write(2, f"{done.lines}\n".encode())
        except Exception as error:  # noqa: BLE001 - told, and the process ends here in any case
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


POINTS = {
    "mlflow_compliance.repair.journal:Journal._write": 8,
    "mlflow_compliance.store.write.purging:unlink": 5,
    "mlflow_compliance.store.write.purging:_prune": 3,
    "mlflow_compliance.audit.purge:destroy_row": 2,
}
"""Function -> how often a purge of the store below calls it at least: it is killed before each of these calls."""


def test_a_killed_purge_is_finished_by_the_next_one(lab: Lab, gate: Gate, tmp_path: Path) -> None:
    home = lab.experiment("test_scratch")
    run = lab.run(home, "one", files={"a.bin": BIG, "deep/b.bin": b"b"}, metrics={"auc": 1.0})
    lab.model(home, run, files={"model.pkl": b"weights"})
    kept = lab.experiment("credit_delivery", lifecycle="production")
    lab.run(kept, "champion", stage="production", files={"kept.bin": BIG})
    lab.stray("26", {"left.bin": b"left behind" * 200})
    gate.settings(lab.uri)
    gate("--fix")
    green = gate().parseoutcomes()
    document = plan_of(gate)
    assert [item["kind"] for item in document["items"]] == ["logged_model", "run", "quarantined"]
    whole = tmp_path / "whole"
    shutil.copytree(lab.folder, whole, symlinks=True)
    assert carry_out_purge(audit_of(gate, lab), lambda *_: False).well
    rows, files = rows_in(lab.uri), files_in(lab.mlruns)
    points = [f"{name}:{number}" for name, most in POINTS.items() for number in range(1, most + 1)]
    for point in points:
        close()
        shutil.rmtree(lab.folder)
        shutil.copytree(whole, lab.folder, symlinks=True)
        before = rows_in(lab.uri)
        assert killed_at(point, gate, lab), f"it never came to {point}"
        between = rows_in(lab.uri)
        begun = {
            str(line["do"]["key"])
            for path in journals_of(lab)
            for line in _lines(path)
            if line.get("do", {}).get("kind") == "Purge"
        }
        missing = {item["key"] for item in document["items"] if _misses(item)}
        lost = {key for table in ("runs", "logged_models") for (key,) in before[table] - between[table]}
        assert missing | lost <= begun, f"{point}: nothing goes before the record says so"
        assert lost <= missing, f"{point}: no row goes before its files"
        done = carry_out_purge(audit_of(gate, lab), lambda *_: False)
        assert done.well, (point, done.lines)
        assert rows_in(lab.uri) == rows, point
        assert files_in(lab.mlruns) == files, point
    shutil.rmtree(lab.folder)
    shutil.copytree(whole, lab.folder, symlinks=True)
    close()
    assert killed_at(points[4], gate, lab)
    assert gate("--fix-purge", "--fix-plan=purge.json", f"--fix-owned-root={lab.mlruns}").ret == 0
    assert gate().parseoutcomes() == green


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _misses(item: dict[str, Any]) -> bool:
    return any(not os.path.lexists(os.path.join(item["place"], file["path"])) for file in item["files"])


def test_what_a_purge_leaves_alone(make_lab: LabMaker, gate: Gate) -> None:
    """Held, needed, changed since the plan, restored, retired by hand; and the other names of shared bytes stay."""
    lab: Lab = make_lab()
    gone, used = lab.experiment("test_gone"), lab.experiment("test_used")
    free = lab.run(gone, "free", files={"f.bin": BIG + b"f"})
    held = lab.run(gone, "held 1", files={"h.bin": BIG + b"h"})
    edited = lab.run(gone, "edited", files={"e.bin": BIG + b"e"})
    linked = lab.run(gone, "linked", files={"l.bin": BIG + b"l"})
    sold = lab.run(gone, "sold", files={"model/MLmodel": b"flavors: {}"})
    model = lab.model(gone, sold, files={"model.pkl": BIG + b"m"})
    restored = lab.run(used, "restored", files={"r.bin": BIG + b"r"})
    by_hand = lab.run(gone, "deleted by hand", files={"d.bin": BIG + b"d"})
    lab.client.delete_run(by_hand)
    home = lab.experiment("credit_delivery", lifecycle="production")
    champion = lab.run(home, "champion", stage="production", files={"own.txt": b"own"})
    gate.settings(lab.uri)
    gate("--fix")
    os.link(lab.folder_of(linked) / "l.bin", lab.folder_of(champion) / "l.bin")
    (lab.folder_of(champion) / "link.bin").symlink_to(lab.folder_of(free) / "f.bin")
    lab.registered("credit", str(lab.mlruns / gone / "models" / model / "artifacts"))
    gate.settings(lab.uri, '\n[[retention.hold]]\nruns = ["held*"]\nreason = "case 7"\n')
    document = plan_of(gate)
    stays = {item["key"]: item["why"] for item in document["kept"]}
    assert by_hand not in {item["key"] for item in (*document["items"], *document["kept"])}
    assert "legal hold" in stays[held]
    assert "leads into it" in stays[free]
    assert "relies on it" in stays[model]
    assert {item["key"] for item in document["items"]} >= {edited, linked, restored}
    assert {item["key"]: item["freed"] for item in document["items"]}[linked] == 0, "another name keeps the bytes"
    (lab.folder_of(edited) / "e.bin").write_bytes(b"somebody went on with it")
    lab.client.restore_experiment(used)
    result = gate("--fix-purge", "--fix-plan=purge.json")
    text = told(result)
    assert result.ret == 1
    assert f"stays: run {edited} 'edited' of experiment {gone}: its files are not those of the plan any more" in text
    assert f"stays: run {restored} 'restored' of experiment {used}: it is not what repairs left behind any more" in text
    for key, name in ((held, "h.bin"), (free, "f.bin"), (edited, "e.bin"), (restored, "r.bin"), (by_hand, "d.bin")):
        assert (lab.folder_of(key) / name).exists()
    assert (lab.folder_of(champion) / "l.bin").read_bytes() == BIG + b"l"
    assert {run.info.run_id for run in lab.runs(gone)} >= {held, free, edited}
    assert linked not in {run.info.run_id for run in lab.runs(gone)}


def test_what_was_deleted_for_too_short_a_time_stays(messy: Lab, gate: Gate) -> None:
    gate.settings(messy.uri, RETENTION)
    gate("--fix")
    document = plan_of(gate)
    assert document["items"] == []
    assert all("[retention] deleted_days = 30" in item["why"] for item in document["kept"])
    old = (gate.folder / "purge.json").read_text()
    gate.settings(messy.uri)
    plan_of(gate)
    gate.settings(messy.uri, RETENTION)
    result = gate("--fix-purge", "--fix-plan=purge.json")
    assert result.ret == 4
    assert "the settings in force are not those that the plan was made with" in told(result)
    (gate.folder / "purge.json").write_text(old.replace('"items": []', '"items": [] '))
    changed = json.loads(old)
    changed["kept"] = []
    (gate.folder / "purge.json").write_text(json.dumps(changed))
    result = gate("--fix-purge", "--fix-plan=purge.json")
    assert result.ret == 4
    assert "was changed after it was written" in told(result)


def test_what_is_refused(messy: Lab, gate: Gate, tmp_path: Path) -> None:
    gate("--fix-dry-run", "--fix-plan=repair.json")
    gate("--fix")
    before = state(messy.folder)
    for flags, sentence in (
        ([], "--fix-purge destroys for good: write a plan"),
        (["--fix"], "exclude each other"),
        (["--fix-safe"], "exclude each other"),
        (["--fix-plan=none.json"], "there is no plan none.json: make one with --fix-purge --fix-dry-run"),
        (["--fix-plan=repair.json"], "repair.json is the plan of a repair"),
        (["--fix-dry-run", "--tracking-uri=http://127.0.0.1:1"], "a purge needs the tables of a database"),
        (["--fix-dry-run", f"--tracking-uri={tmp_path / 'mlruns'}"], "a purge needs the tables of a database"),
    ):
        result = gate("--fix-purge", *flags)
        text = told(result)
        assert result.ret == 4, text
        assert sentence in text
    plan_of(gate)
    result = gate("--fix", "--fix-plan=purge.json")
    assert result.ret == 4
    assert "purge.json is the plan of a purge" in told(result)
    assert state(messy.folder) == before


def test_somebody_is_asked_on_a_terminal(messy: Lab, gate: Gate) -> None:
    gate("--fix")
    things = len(plan_of(gate)["items"])
    before, rows = state(messy.mlruns), rows_in(messy.uri)
    for answer, sentence in (
        ("yes", "nothing was destroyed"),
        (str(things), f"purge: {things} of {things} things destroyed"),
    ):
        text = on_a_terminal(gate, answer)
        assert f"type {things} to destroy them" in text
        assert sentence in text
        if answer == "yes":
            assert (state(messy.mlruns), rows_in(messy.uri)) == (before, rows)


def on_a_terminal(gate: Gate, answer: str) -> str:
    """What `--fix-purge` says to somebody who answers it."""
    here, there = pty.openpty()
    words = [f"--rootdir={gate.folder}", f"-c={gate.folder / 'pytest.ini'}", str(POLICIES), "--fix-purge"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *words], cwd=gate.folder, stdin=there, stdout=there, stderr=there
    )
    os.close(there)
    text = ""
    try:
        while True:
            text += os.read(here, 1 << 16).decode(errors="replace")
            if answer and text.endswith("anything else to leave all as it is: "):
                os.write(here, f"{answer}\n".encode())
                answer = ""
    except OSError:
        pass  # the other end was closed
    finally:
        os.close(here)
        process.wait()
    return text


def test_copies_that_were_taken_back_go_with_their_models(lab: Lab, gate: Gate) -> None:
    """A merge that was undone: its copies are deleted, and their files lie aside."""
    primary, rival = lab.experiment("credit_delivery"), lab.experiment("credit_production")
    lab.run(primary, "delivery", files={"kept.bin": BIG})
    source = lab.rich_run(rival, "champion", base_in="0", stage="production")
    gate.settings(lab.uri)
    gate("--fix")
    (copy,) = [run.info.run_id for run in lab.runs(primary) if run.data.tags.get("compliance.source_run_id")]
    gate("--fix-undo=last")
    green, before = gate().parseoutcomes(), lab.everything()
    document = plan_of(gate)
    items = {item["key"]: item for item in document["items"]}
    assert copy in items
    assert ".quarantine" in items[copy]["place"]
    assert sum(item["kind"] == "logged_model" for item in items.values()) == 2
    assert source not in items
    result = gate("--fix-purge", "--fix-plan=purge.json")
    assert result.ret == 0, told(result)
    assert not any(os.path.lexists(item["place"]) for item in items.values())
    assert copy not in {run.info.run_id for run in lab.runs(primary)}
    assert differing(before, lab.everything()) == []
    assert gate().parseoutcomes() == green
