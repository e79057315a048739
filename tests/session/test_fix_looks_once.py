"""--fix asks every rule once before a repair and once after it, and reads again only what changed since."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest
from gates import POLICIES, RULES, Gate, told
from stores import BIG, Lab, model_files

OWN = """
import pytest
from mlflow_compliance.api import Severity, Snapshot, Violations, policy

def noted(store, name):
    with open({asked!r}, "a") as file:
        names = sorted(item.name for item in store.active_experiments())
        file.write(f"{{name}} {{store.taken_at}} {{'test_experiment' in names}}\\n")
"""
ENDS = {
    "passes": "violations.note('seen')",
    "finds": "violations.add('one', 'first'); violations.add('two', 'second', observed=1)",
    "offers": "violations.offer('better', 'could be better')",
    "knows_nothing": "violations.not_evaluated('away', 'it is away')",
    "is_not_meant": "violations.add('one', 'found before'); violations.not_applicable('not for this store')",
    "asserts": "assert sorted(store.experiments) == [1, 2], 'not these'",
    "crashes": "1 / 0",
    "prints": "print('printed by a rule'); violations.add('loud', 'loud')",
    "warns": "import warnings; warnings.warn('warned by a rule')",
}
"""How a check may end -> its body."""
AGAIN = {"asserts", "crashes", "prints", "warns"}
"""Those of which pytest tells more when it calls them itself."""
ENDED = "{policy} {outcome} {notes} {findings} {unevaluated} {reason}"


@pytest.fixture
def asked(gate: Gate) -> Path:
    """A user's rules that write down what they are asked of: a line for each time."""
    path = gate.folder / "asked.txt"
    checks = [OWN.format(asked=str(path))]
    for number, (name, body) in enumerate(ENDS.items()):
        checks.append(
            f'@policy("OWN{number:03}", "Own", Severity.LOW)\n'
            f"def test_{name}(store: Snapshot, violations: Violations) -> None:\n"
            f'    """Because."""\n    noted(store, "{name}")\n    {body}\n'
        )
    gate.pack("policies", test_own="\n".join(checks))
    return path


def lines(asked: Path) -> Counter[tuple[str, str, str]]:
    """(rule, when the store was read, whether it was as it is before a repair) -> how often it was asked of that."""
    found = Counter(tuple(line.split()) for line in asked.read_text().splitlines())
    asked.unlink()
    return found  # type: ignore[return-value]


def results(gate: Gate, *flags: str) -> tuple[list[str], str]:
    """What reports say of the user's rules, and what was printed."""
    run = gate("--compliance-report=json:report.json", "-W", "always", *flags, rules=(*RULES, "policies"))
    report = json.loads((gate.folder / "report.json").read_text())
    said = [ENDED.format(**row) for row in report["results"] if row["policy"].startswith("OWN")]
    return said, f"{run.stdout}\n{run.stderr}"


def test_a_rule_is_asked_once_before_a_repair_and_once_after_it(gate: Gate, messy: Lab, asked: Path) -> None:
    plain, printed = results(gate)
    assert set(lines(asked).values()) == {1}

    dry, printed_dry = results(gate, "--fix-dry-run")
    assert dry == plain
    for text in (printed, printed_dry):
        assert "printed by a rule" in text
        assert "warned by a rule" in text
    often = {name: number for (name, _, before), number in lines(asked).items() if before == "True"}
    assert often == {name: 2 if name in AGAIN else 1 for name in ENDS}

    results(gate, "--fix")
    found = lines(asked)
    first, last = min(when for _, when, _ in found), max(when for _, when, _ in found)
    assert first < last
    for name in ENDS:
        assert found[name, first, "True"] == 1, f"{name}, before the repair"
        assert found[name, last, "False"] == 1, f"{name}, after it"
        assert found[name, first, "False"] >= 1, f"{name}, of the store as it would be"
    assert len(found) == 3 * len(ENDS), "under the lock no rule is asked of a store that is as it was"

    second, _ = results(gate, "--fix")  # nothing is left to do
    assert {name: number for (name, _, _), number in lines(asked).items()} == often
    assert second == plain


WATCHING = """
import os, sys

changed, opened = [], []

def change():
    changed.append(True)
    for path, content in {changes!r}.items():
        there = os.path.exists(path)
        before = os.stat(path if there else os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(content)
        times = (before.st_atime_ns, before.st_mtime_ns)
        os.utime(path, ns=times)
        os.utime(os.path.dirname(path), ns=times)

def hook(event, arguments):
    if event != "open" or not isinstance(arguments[0], str):
        return
    opened.append(os.path.basename(arguments[0]))
    if arguments[0].endswith("/lock") and not changed:
        change()  # the plan is made, and the lock is about to be taken

sys.addaudithook(hook)

def pytest_unconfigure():
    with open({out!r}, "w") as file:
        file.write("\\n".join(opened))
"""


def watched(gate: Gate, rules: str, *flags: str, changes: dict[str, bytes] | None = None) -> tuple[str, Counter[str]]:
    """What a run of some rules printed, and how often it opened files of each name. Files may be changed just before
    it takes its lock, their times put back.
    """
    out = gate.folder / "opened.txt"
    (gate.folder / "watching.py").write_text(dedent(WATCHING.format(changes=changes or {}, out=str(out))))
    run = gate("-p", "watching", f"--compliance-rules={rules}", *flags, rules=(POLICIES,), process=True)
    return told(run), Counter(out.read_text().split("\n"))


RULES_OF_FILES = "ART001,ART004,EXP002,MOD002"


HARMLESS = pickle.dumps("a" * 5000, 2)
HARMFUL = pickle.dumps("a" * 4977, 2)[:-1] + b"0cos\nsystem\n(S'true'\ntR."
"""Of one size."""


def add_files(lab: Lab) -> str:
    """Files that must be read whole to tell them apart, an archive's like, and a model that nothing is wrong with; the
    model's run.
    """
    alike = os.urandom(50_000)
    lab.run("2", "alike", files={"watched_a.bin": alike + b"a", "watched_b.bin": alike + b"b"})
    lab.run("2", "dotted", files={".hidden": b"not looked at as a whole", "watched_c.bin": alike + b"c"})
    files = {"watched.pkl": HARMLESS}
    return lab.run("2", "model", files={f"m/{k}": v for k, v in model_files("", "", "m", files).items()})


def test_what_nobody_changed_is_read_as_often_as_by_a_gate(gate: Gate, messy: Lab) -> None:
    add_files(messy)
    names = ("watched_a.bin", "watched_b.bin", "watched_c.bin", "watched.pkl")
    _, once = watched(gate, RULES_OF_FILES)
    text, fixed = watched(gate, RULES_OF_FILES, "--fix")
    assert "verified: the store, read anew, is what was planned" in text
    assert all(once[name] for name in names)
    assert {name: fixed[name] for name in names} == {name: once[name] for name in names}


def test_a_file_that_changed_before_the_lock_is_seen_whatever_its_times_say(gate: Gate, messy: Lab) -> None:
    first, second = (
        messy.folder_of(run.info.run_id) / "shap.bin" for run in messy.runs("4") if run.info.status != "RUNNING"
    )
    other = bytes([BIG[0] ^ 1]) + BIG[1:]
    text, _ = watched(gate, RULES_OF_FILES, "--fix", changes={str(first): other})
    assert "not done" not in text, "it was not even planned"
    assert "test_experiment (retired 3)" in text
    assert first.read_bytes() == other
    assert second.read_bytes() == BIG
    assert second.stat().st_nlink == 1


def test_a_file_that_came_before_the_lock_is_seen_whatever_its_folders_times_say(gate: Gate, messy: Lab) -> None:
    run = next(run for run in messy.runs("4") if run.info.status != "RUNNING")
    late = messy.folder_of(run.info.run_id) / "late.bin"
    text, _ = watched(gate, RULES_OF_FILES, "--fix", changes={str(late): BIG})
    assert "late.bin" in text
    assert late.stat().st_nlink == 3, "it shares its copy with both others"


def test_a_model_that_changed_before_the_lock_is_scanned_again(gate: Gate, messy: Lab) -> None:
    path = messy.folder_of(add_files(messy)) / "m" / "watched.pkl"
    text, _ = watched(gate, RULES_OF_FILES, "--fix", changes={str(path): HARMFUL})
    assert "watched.pkl: os.system would run on load" in text.partition("= compliance =")[2]
