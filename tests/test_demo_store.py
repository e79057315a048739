"""The store that this program exists for, through the command line: what the gate finds, what a repair leaves, what the second one does."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from gates import CHECKOUT
from mlflow.entities import ViewType
from stores import Lab

FOUND = {"EXP001", "EXP002", "EXP003", "MOD001", "ART001", "ART002"}


def gate(demo: Lab, *flags: str) -> tuple[int, set[str], str]:
    """Exit code, the policies with findings in the table, and all that was printed."""
    command = [sys.executable, "-m", "pytest", "policies", "-p", "no:cacheprovider", "-q", f"--tracking-uri={demo.uri}"]
    done = subprocess.run(
        [*command, f"--compliance-config={demo.folder / 'compliance.toml'}", *flags], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr
    table = done.stdout.partition("what --fix would do")[2]
    return done.returncode, set(re.findall(r"^ ([A-Z]{3}\d{3}) ", table, flags=re.MULTILINE)), done.stdout


def plan_in(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip("-") == " plan ")
    return lines[start : next(number for number, line in enumerate(lines) if " entities; " in line) + 1]


def contents(folder: Path) -> dict[str, set[str]]:
    """SHA-256 -> the paths that hold it."""
    found: dict[str, set[str]] = defaultdict(set)
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            found[hashlib.sha256(Path(path).read_bytes()).hexdigest()].add(path)
    return found


def test_the_whole_path(demo: Lab) -> None:
    before = contents(demo.mlruns)
    surviving = [run for key in "1234" for run in demo.runs(key)]
    assert gate(demo)[:2] == (1, FOUND)

    code, found, dry = gate(demo, "--fix-dry-run")
    assert (code, found, contents(demo.mlruns)) == (1, FOUND, before)
    code, found, fixed = gate(demo, "--fix")
    assert (code, found) == (1, {"MOD001"})
    assert "verified: the store, read anew, is what was planned" in fixed
    assert plan_in(dry) == plan_in(fixed)
    code, found, again = gate(demo, "--fix")
    assert (code, found) == (1, {"MOD001"})
    assert "0 changes to 0 entities" in again

    experiments = {item.experiment_id: item for item in demo.client.search_experiments(view_type=ViewType.ALL)}
    assert [experiments[key].tags.get("lifecycle") for key in "1234"] == ["archived"] * 3 + ["production"]
    assert all("ARCHIVED" in experiments[key].tags["mlflow.note.content"] for key in "123")
    assert [key for key, item in sorted(experiments.items()) if item.lifecycle_stage == "deleted"] == ["5", "6"]
    (source,) = demo.runs("6")
    (copied,) = [run for run in demo.runs("4") if run.data.tags.get("compliance.source_run_id") == source.info.run_id]
    assert (copied.data.params, copied.data.metrics) == (source.data.params, source.data.metrics)
    assert (copied.info.start_time, copied.info.end_time) == (source.info.start_time, source.info.end_time)
    assert source.data.tags.items() <= copied.data.tags.items()

    after = contents(demo.mlruns)
    assert before.keys() <= after.keys()
    held = {path: digest for digest, paths in after.items() for path in paths}
    owned = {path: digest for digest, paths in before.items() for path in paths if path in held}
    assert owned == {path: held[path] for path in owned}
    for run in surviving:
        folder = run.info.artifact_uri
        assert {path for path in owned if path.startswith(folder + os.sep)} == {
            path for paths in before.values() for path in paths if path.startswith(folder + os.sep)
        }
    large = [
        paths for paths in after.values() if (kept := [path for path in paths if ".quarantine" not in path]) and os.path.getsize(kept[0]) >= 1024
    ]
    for paths in large:
        inodes = {os.stat(path).st_ino for path in paths if ".quarantine" not in path and os.path.basename(path) != "MLmodel"}
        assert len(inodes) <= 1, paths
