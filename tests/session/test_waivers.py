"""`[[waivers]]`: findings that fail nothing until a day, told with their reason, and never repaired."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gates import EVERY_RULE, POLICIES, Gate, plan_in, told
from stores import Lab

LATER = dt.datetime.now(dt.timezone.utc).date() + dt.timedelta(200)
REPORT = "--compliance-report=json:audit.json"


def waiver(policy: str, entity: str = "*", expires: object = LATER, **more: str) -> str:
    words = {"policy": policy, "entity": entity, "reason": "merged in March", "owner": "jo", **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in words.items() if value]
    return "\n".join(["[[waivers]]", *lines, f"expires = {expires}", ""])


def report(gate: Gate) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((gate.folder / "audit.json").read_text())
    return found


def found(gate: Gate) -> dict[str, str]:
    """Policy -> status of its findings."""
    return {result["policy"]: item["status"] for result in report(gate)["results"] for item in result["findings"]}


def test_waived_findings_are_told_and_fail_nothing(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, "".join(waiver(rule) for rule in sorted(EVERY_RULE)))
    result = gate(REPORT, "-v", "--junitxml=junit.xml")
    text = told(result)
    assert result.ret == 0
    assert found(gate) == dict.fromkeys(EVERY_RULE, "waived")
    outcomes = [item["outcome"] for item in report(gate)["results"] if item["findings"]]
    assert outcomes == ["waived"] * len(EVERY_RULE)
    assert result.parseoutcomes()["waived"] == len(EVERY_RULE)
    assert len(re.findall(r"^\S+ WAIVED", text, re.MULTILINE)) == len(EVERY_RULE)
    assert f"nothing: waived until {LATER} by jo: merged in March" in text
    assert "asks for less than is built in: waivers = 6 tables (compliance.toml:" in text
    (one,) = {json.dumps(item["waiver"]) for r in report(gate)["results"] for item in r["findings"][:1]
              if r["policy"] == "EXP003"}  # fmt: skip
    assert json.loads(one)["reason"] == "merged in March"
    assert report(gate)["counts"]["failing"] == {}
    assert sum(report(gate)["counts"]["waived"].values()) == len(EVERY_RULE)
    assert report(gate)["counts"]["fixable"] == 0
    skipped = [item.get("message") or "" for item in ElementTree.parse(gate.folder / "junit.xml").iter("skipped")]
    assert sum("merged in March" in message for message in skipped) == len(EVERY_RULE)


def test_it_is_narrow(gate: Gate, messy: Lab) -> None:
    """It means an entity by its label, key or both with its kind; not what lies in an experiment of that name."""
    gate.settings(
        messy.uri,
        waiver("RUN001", "credit_selection")  # the experiment of the run that is stuck
        + waiver("EXP003", "credit_sel*")
        + waiver("EXP002", "experiment test_experiment")
        + waiver("EXP001", "experiment 99"),
    )
    assert gate(REPORT).ret == 1
    statuses = dict.fromkeys(EVERY_RULE, "failing") | {"EXP003": "waived", "EXP002": "waived"}
    assert found(gate) == statuses


def test_nothing_waived_is_repaired(gate: Gate, messy: Lab) -> None:
    """Neither planned, nor in a saved plan, nor done; and the repair verifies."""
    gate.settings(messy.uri, waiver("EXP002", "test_*") + waiver("ART001") + waiver("RUN001", "stuck"))
    dry = gate("--fix-dry-run", "--fix-plan=plan.json")
    lines = plan_in(dry)
    assert sum(f"! not fixed: waived until {LATER} by jo: merged in March" in line for line in lines) == 3
    assert "; 0 findings are left for people, 3 stay as they are" in lines[-1]
    plan = json.loads((gate.folder / "plan.json").read_text())
    assert {step["finding"]["policy"] for step in plan["steps"]}.isdisjoint({"EXP002", "ART001", "RUN001"})
    assert {item["finding"]["policy"] for item in plan["left"]} == {"EXP002", "ART001", "RUN001"}
    result = gate("--fix", "--fix-plan=plan.json", REPORT)
    text = told(result)
    assert result.ret == 0, text
    assert "verified: the store, read anew, is what was planned" in text
    assert "not done" not in text
    assert found(gate) == {"EXP002": "waived", "ART001": "waived", "RUN001": "waived"}
    assert result.parseoutcomes()["fixed"] == 3
    snapshot = messy.everything()
    names = {item.name: item for item in snapshot.experiments.values()}
    assert names["test_experiment"].active
    assert "RUNNING" in {status for (_, status) in names["credit_selection"].runs}
    gate.settings(messy.uri)
    assert gate("--fix", REPORT).ret == 0
    assert found(gate) == {}


def test_its_last_day_counts_and_the_next_does_not(gate: Gate, messy: Lab) -> None:
    today = dt.datetime.now(dt.timezone.utc).date()  # not that of the start of the tests: midnight passes meanwhile
    yesterday = today - dt.timedelta(1)
    gate.settings(
        messy.uri,
        waiver("EXP001", expires=today)
        + waiver("EXP002", expires=yesterday)
        + waiver("EXP003", expires=f'"{LATER}"')
        + waiver("ART001", expires=today + dt.timedelta(30))
        + waiver("ART002", expires=today + dt.timedelta(31)),
    )
    result = gate(REPORT, rules=[POLICIES])
    statuses = found(gate)
    assert [statuses[rule] for rule in ("EXP001", "EXP002", "EXP003", "ART001", "ART002")] == [
        *("waived", "failing", "waived", "waived", "waived")
    ]
    warnings = report(gate)["summary"]["warnings"]
    assert len(warnings) == 3
    assert re.search(rf"waiver of EXP001 for '\*' expires on {today} \(today is its last day\)", warnings[0])
    assert re.search(rf"waiver of EXP002 for '\*' expired on {yesterday}, and what it waived counts again", warnings[1])
    assert re.search(r"waiver of ART001 for '\*' expires on .* \(in 30 days\)", warnings[2])
    assert "warning: compliance.toml:" in told(result)


def test_a_date_that_is_none_has_expired(gate: Gate, messy: Lab) -> None:
    """Also where TOML knows no such date, and without quotes."""
    days = ["2027-02-30", "2027-3-31", "31.03.2027", "soon", '"next year"', "2027-03-31T12:00:00Z", "7", "[2027]"]
    more = "".join(waiver("EXP003", expires=f"{day}  # when we are done") for day in days)
    gate.settings(messy.uri, more)
    lines = (gate.folder / "compliance.toml").read_text().splitlines()
    assert gate("--compliance-rules=EXP003", REPORT).ret == 1
    assert found(gate) == {"EXP003": "failing"}
    starts = [f"compliance.toml:{number}: " for number, line in enumerate(lines, 1) if line.startswith("expires")]
    warnings = report(gate)["summary"]["warnings"]
    assert len(warnings) == len(days)
    for start, warning in zip(starts, warnings, strict=True):
        assert warning.startswith(f"{start}the waiver of EXP003 for '*' counts as expired, since its date cannot be")


def test_one_that_matches_nothing_is_told_where_all_rules_ran(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, waiver("EXP003", "fraud-*") + waiver("QQQ001"))
    gate(REPORT, rules=[POLICIES])
    warnings = report(gate)["summary"]["warnings"]
    assert [line.partition(": ")[2] for line in warnings] == [
        "the waiver of EXP003 for 'fraud-*' matches no finding: take it out",
        "the waiver of QQQ001 for '*' matches no finding: take it out",
    ]
    for some in (["-k", "EXP003"], ["--compliance-metadata-only"], ["-x"]):
        gate(REPORT, *some, rules=[POLICIES])
        assert report(gate)["summary"]["warnings"] == []
    gate(REPORT, "-n2", rules=[POLICIES], process=True)
    assert report(gate)["summary"]["warnings"] == warnings


def test_a_mistake_is_told_with_its_line(gate: Gate, messy: Lab) -> None:
    wrong = {
        waiver("EXP003", reason=""): "reason: is required",
        waiver("EXP003", owner=""): "owner: is required",
        waiver("EXP003", owner="  "): "owner: must not be empty",
        waiver("EXP003", reason="\t"): "reason: must not be empty",
        waiver("EXP003", ticket="A-1"): "ticket: unknown key",
        waiver("EXP003").partition("expires")[0]: "expires: is required",
        waiver("EXP003", ""): "entity: is required",
    }
    gate.settings(messy.uri, "".join(wrong))
    result = gate("--compliance-rules=EXP003")
    assert result.ret == 4
    text = told(result)
    for number, said in enumerate(wrong.values()):
        assert re.search(rf"compliance\.toml:\d+: {re.escape(f'waivers[{number}].{said}')}", text), said
    gate.settings(messy.uri, waiver("EXP003", expires="soon") + "[runs]\nrunning_max_hours = = 3\n")
    assert "this is not TOML" in told(gate("--compliance-rules=EXP003")), "whatever else is wrong with it"


def test_a_crash_is_not_waived(gate: Gate, messy: Lab, tmp_path: Path) -> None:
    gate.settings(messy.uri, waiver("*"))
    gate.pack("policies", test_own='''
        from mlflow_compliance.api import Severity, policy

        @policy("OWN001", "Crashes", severity=Severity.LOW)
        def test_crash(store, violations):
            """Because."""
            violations.add("first", "it found something before")
            raise RuntimeError("broken")

        @policy("OWN002", "Asserts", severity=Severity.LOW)
        def test_assertion(store):
            """Because."""
            assert not store.experiments, "there are experiments"

        @policy("OWN003", "Could not look", severity=Severity.CRITICAL)
        def test_evidence(store, violations):
            """Because."""
            violations.add("first", "it found something")
            violations.not_evaluated("unseen", "could not be looked at")
        ''')  # fmt: skip
    assert gate(REPORT, rules=["policies"]).ret == 1
    ends = {item["policy"]: (item["outcome"], item["fails"]) for item in report(gate)["results"]}
    assert ends["OWN001"] == ("failed", True)
    assert ends["OWN002"] == ("waived", False)
    assert ends["OWN003"] == ("not evaluated", True)
