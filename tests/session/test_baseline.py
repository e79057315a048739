"""--compliance-baseline: what a store has today is known, and what comes is new."""

from __future__ import annotations

import json
from typing import Any

from gates import EVERY_RULE, RULES, Gate, told
from stores import BIG, Lab

REPORT = "--compliance-report=json:audit.json"
WRITE, READ = "--compliance-baseline-write=known.json", "--compliance-baseline=known.json"


def report(gate: Gate) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((gate.folder / "audit.json").read_text())
    return found


def found(gate: Gate) -> list[tuple[str, str]]:
    """(policy, status) of each finding."""
    results = report(gate)["results"]
    return sorted((result["policy"], item["status"]) for result in results for item in result["findings"])


def known(gate: Gate) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((gate.folder / "known.json").read_text())
    return document


def test_the_gate_is_on_in_one_command(gate: Gate, messy: Lab) -> None:
    """What was there is known, also when its counts change; what comes is new, what is mended is gone."""
    written = gate(WRITE, REPORT)
    assert written.ret == 0, "it is judged by what it writes"
    assert "baseline written to known.json: 6 findings; to fail on new ones alone" in told(written)
    assert 'gate.baseline = "known.json" (--compliance-baseline-write; built in' in told(written)
    assert found(gate) == [(rule, "known") for rule in sorted(EVERY_RULE)]
    entries = known(gate)["findings"]
    assert [entry["policy"] for entry in entries] == sorted(EVERY_RULE)
    assert all(entry.keys() == {"policy", "entity", "code", "message", "fingerprint"} for entry in entries)

    same = gate(READ, REPORT, "-v")
    assert same.ret == 0
    assert found(gate) == [(rule, "known") for rule in sorted(EVERY_RULE)]
    assert "KNOWN" in told(same)
    assert same.parseoutcomes()["known"] == 6
    assert "baseline known.json: new 0, known 6, gone 0" in told(same)
    assert 'asks for less than is built in: gate.baseline = "known.json" (--compliance-baseline;' in told(same)
    before = (gate.folder / "known.json").read_bytes()
    assert "(0 added, 0 taken out)" in told(gate(WRITE))
    assert (gate.folder / "known.json").read_bytes() == before

    (selection,) = [key for key, item in messy.everything().experiments.items() if item.name == "credit_selection"]
    messy.run(selection, "one more", files={"shap.bin": BIG})
    messy.sql("UPDATE runs SET status = 'FINISHED', end_time = start_time WHERE status = 'RUNNING'")
    messy.experiment("credit_scratch_test")
    after = gate(READ, REPORT)
    assert after.ret == 1
    assert found(gate) == sorted([("EXP002", "failing"), *((rule, "known") for rule in EVERY_RULE - {"RUN001"})]), (
        "the same file is stored three times now"
    )
    assert "baseline known.json: new 1, known 5, gone 1" in told(after)
    assert "known.json: 1 of its findings are gone: --compliance-baseline-write=known.json takes them out" in told(
        after
    )
    (gone,) = report(gate)["summary"]["baseline"]["gone"]
    assert gone in {entry["fingerprint"] for entry in entries if entry["policy"] == "RUN001"}
    assert report(gate)["summary"]["baseline"]["new"] == 1

    for some in (["--compliance-rules=RUN001,EXP003"], ["-k", "EXP002 and experiment-1"]):
        result = told(gate(READ, *some, REPORT))
        assert f"gone {1 if 'RUN001' in some[0] else 0}" in result
    assert "(0 added, 0 taken out)" in told(gate(WRITE, "--compliance-rules=EXP003"))
    again = gate(WRITE, READ, "-n2", process=True)
    assert again.ret == 1, "named to be read too, it judges by the one that was there"
    assert "baseline written to known.json: 6 findings (1 added, 1 taken out)" in told(again)
    assert gate(WRITE, "-n2", process=True).ret == 0
    assert gate(READ, "-n2", REPORT, process=True).ret == 0
    assert {status for _, status in found(gate)} == {"known"}


def test_writing_it_goes_by_no_older_one(gate: Gate, messy: Lab) -> None:
    """The settings may name the file before it is there; what falls short of fail_on is in it as well."""
    gate.settings(messy.uri, '[gate]\nbaseline = "known.json"\nfail_on = "critical"\n')
    assert gate(REPORT).ret == 4, "there is none yet"
    assert gate(WRITE, REPORT).ret == 0
    assert {status for _, status in found(gate)} == {"known"}
    gate.settings(messy.uri, '[gate]\nbaseline = "known.json"\n')
    assert gate(REPORT).ret == 0
    messy.experiment("one more of them")
    assert gate(REPORT).ret == 1
    assert "6 findings" not in told(again := gate(WRITE, REPORT))
    assert (again.ret, "7 findings (1 added, 0 taken out)" in told(again)) == (0, True)
    assert gate(REPORT).ret == 0


def test_a_repair_mends_what_is_known(gate: Gate, messy: Lab) -> None:
    gate(WRITE)
    gate.settings(messy.uri, '[gate]\nbaseline = "known.json"\n')
    repaired = gate("--fix", REPORT)
    assert repaired.ret == 0
    assert found(gate) == []
    assert "baseline known.json: new 0, known 0, gone 6" in told(repaired)
    assert 'gate.baseline = "known.json" (compliance.toml:' in told(repaired)


def test_what_is_waived_today_is_no_part_of_it(gate: Gate, messy: Lab) -> None:
    text = '[[waivers]]\npolicy = "EXP003"\nentity = "*"\nreason = "r"\nowner = "o"\nexpires = {}\n'
    gate.settings(messy.uri, text.format("2999-12-31"))
    gate(WRITE, READ)
    assert {entry["policy"] for entry in known(gate)["findings"]} == EVERY_RULE - {"EXP003"}
    gate.settings(messy.uri, text.format("2020-12-31"))
    assert gate(READ, REPORT).ret == 1
    assert ("EXP003", "failing") in found(gate)


def test_what_looked_at_nothing_is_never_known(gate: Gate, messy: Lab) -> None:
    gate.pack("policies", test_own='''
        from mlflow_compliance.api import Severity, policy

        @policy("OWN001", "Crashes", severity=Severity.LOW)
        def test_crash(store):
            """Because."""
            raise RuntimeError("broken")
        ''')  # fmt: skip
    assert gate(WRITE, rules=["policies"]).ret == 1
    assert known(gate)["findings"] == []
    assert gate(READ, rules=["policies"]).ret == 1


def test_files_that_cannot_be_used(gate: Gate, messy: Lab) -> None:
    """One sentence and exit code 4, before anything is checked; and nothing is written over what is something else."""
    gate(WRITE)
    good = (gate.folder / "known.json").read_text()
    document = json.loads(good)
    bad = {
        "": "known.json is no baseline",
        "[]": "known.json is no baseline",
        "<<<<<<< HEAD\n" + good: "known.json is no baseline",
        '{"schema": "urn:mlflow-compliance:plan:1"}': "known.json is no baseline",
        good.replace("baseline:1", "baseline:7"): "is a baseline of another version",
        good.replace('"findings"', '"experiments": {},\n "findings"'): "holds a key twice",
        json.dumps({**document, "findings": [{"policy": "EXP003"}]}): "is no baseline that this version can read (at",
        json.dumps({**document, "more": 1}): "is no baseline that this version can read (at more)",
    }
    for text, said in bad.items():
        (gate.folder / "known.json").write_text(text)
        for flag in (READ, WRITE):
            result = gate(flag, rules=RULES)
            assert (result.ret, said in told(result)) == (4, True), (flag, said)
            assert (gate.folder / "known.json").read_text() == text
    (gate.folder / "known.json").unlink()
    missing = gate(READ)
    assert missing.ret == 4
    assert "there is no baseline known.json: write one with --compliance-baseline-write=known.json" in told(missing)
    nowhere = gate("--compliance-baseline-write=none/known.json")
    assert (nowhere.ret, "there is no folder none" in told(nowhere)) == (4, True)
    folder = gate("--compliance-baseline=.")
    assert folder.ret == 4
    empty = gate("--compliance-baseline=")
    assert (empty.ret, "--compliance-baseline takes a file" in told(empty)) == (4, True)
    for key in document["experiments"]:
        document["experiments"][key] += 1
    (gate.folder / "known.json").write_text(json.dumps(document))
    other = gate(READ)
    assert (other.ret, "is of another store (experiment " in told(other)) == (4, True)
    parallel = gate(READ, "-n2", process=True)
    assert (parallel.ret, "is of another store (experiment " in told(parallel)) == (4, True)
