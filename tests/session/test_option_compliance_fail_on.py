"""--compliance-fail-on and `[gate] fail_on`: less severe findings are told and fail nothing; severities as markers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from gates import POLICIES, RULES, Gate, told
from stores import Lab


def results(gate: Gate) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((gate.folder / "audit.json").read_text())["results"]
    return found


def statuses(gate: Gate) -> dict[tuple[str, str], int]:
    """(severity, status) -> findings."""
    return dict(Counter((item["severity"], item["status"]) for result in results(gate) for item in result["findings"]))


REPORT = "--compliance-report=json:audit.json"


def test_findings_below_it_are_warnings(gate: Gate, messy: Lab) -> None:
    plain = gate(REPORT)
    assert plain.ret == 1
    before = statuses(gate)
    assert {status for _, status in before} == {"failing"}
    assert {severity for severity, _ in before} >= {"medium", "high", "critical"}
    result = gate(REPORT, "--compliance-fail-on=high", "-v")
    assert result.ret == 1
    after = statuses(gate)
    assert after == {
        (severity, "failing" if severity in ("high", "critical") else "warning"): number
        for (severity, _), number in before.items()
    }
    text = told(result)
    assert "WARNING" in text
    assert 'asks for less than is built in: gate.fail_on = "high" (--compliance-fail-on; built in: "low")' in text
    counted = Counter(item["outcome"] for item in results(gate))
    # Pytest's own helper reads 'warning' as its plural.
    assert result.parseoutcomes()["warnings"] == counted["warning"] > 0
    assert result.parseoutcomes()["failed"] == counted["failed"] == sum(item["fails"] for item in results(gate))
    assert "passed" not in {item["outcome"] for item in results(gate) if item["findings"]}


def test_a_store_with_warnings_alone_does_not_fail(gate: Gate, messy: Lab) -> None:
    result = gate("--compliance-rules=EXP003,ART001", "--compliance-fail-on=critical", "--junitxml=junit.xml")
    assert result.ret == 0
    assert "2 warning" in result.outlines[-1]
    assert "failed" not in result.outlines[-1]
    assert (gate.folder / "junit.xml").read_text().count("<skipped") == 2


def test_the_setting_and_the_flag(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, '[gate]\nfail_on = "critical"\n')
    loose = gate("--compliance-rules=EXP003")
    assert loose.ret == 0
    assert 'gate.fail_on = "critical" (compliance.toml:' in told(loose)
    strict = gate("--compliance-rules=EXP003", "--compliance-fail-on=low")
    assert strict.ret == 1
    assert "gate.fail_on" not in told(strict)
    gate.settings(messy.uri, '[gate]\nfail_on = "high"\n[policies.EXP003]\nseverity = "high"\n')
    assert gate("--compliance-rules=EXP003").ret == 1


@pytest.mark.parametrize("how", ["alone", "-n2"])
def test_what_is_no_severity(gate: Gate, messy: Lab, how: str) -> None:
    result = gate("--compliance-fail-on=serious", *([how] if how != "alone" else []), process=how == "-n2")
    assert result.ret == 4
    assert "--compliance-fail-on takes a severity, one of low, medium, high, critical, not 'serious'" in told(result)
    gate.settings(messy.uri, '[gate]\nfail_on = "never"\n')
    assert gate().ret == 4


PACK = '''
import pytest
from mlflow_compliance.api import Severity, policy

@policy("OWN001", "By a plain assertion", severity=Severity.LOW)
def test_assertion(store):
    """Because."""
    assert not store.experiments, "there are experiments"

@policy("OWN002", "Crashes", severity=Severity.LOW)
def test_crash(store, violations):
    """Because."""
    violations.add("first", "it found something before")
    raise RuntimeError("broken")

@policy("OWN003", "Records and asserts", severity=Severity.LOW)
def test_both(store, violations):
    """Because."""
    violations.add("first", "it found something", severity=Severity.LOW)
    violations.not_evaluated("unseen", "could not be looked at")
    pytest.fail("and this")

@policy("OWN004", "Records, could not judge the rest, and evidence is required", severity=Severity.CRITICAL)
def test_evidence(store, violations):
    """Because."""
    violations.add("first", "it found something", severity=Severity.LOW)
    violations.not_evaluated("unseen", "could not be looked at")

@policy("OWN005", "A worse finding than its rule", severity=Severity.LOW)
def test_worse(store, violations):
    """Because."""
    violations.add("first", "it found something bad", severity=Severity.CRITICAL)
    violations.add("second", "it found something", severity=Severity.LOW)
'''


def test_what_failed_to_look_fails_whatever_its_severity(gate: Gate, messy: Lab) -> None:
    """A check that crashed, or could not judge what must be judged, is no warning."""
    gate.pack("policies", test_own=PACK)
    result = gate(REPORT, "--compliance-fail-on=high", rules=["policies"])
    assert result.ret == 1
    found = {item["policy"]: item for item in results(gate)}
    ends = {key: (item["outcome"], item["fails"]) for key, item in found.items() if key.startswith("OWN")}
    assert ends == {
        "OWN001": ("warning", False),
        "OWN002": ("failed", True),
        "OWN003": ("warning", False),
        "OWN004": ("not evaluated", True),
        "OWN005": ("failed", True),
    }
    assert [item["status"] for item in found["OWN002"]["findings"]] == ["warning", "failing"]
    assert [item["code"] for item in found["OWN003"]["findings"]] == ["first", "assertion"]
    assert [item["status"] for item in found["OWN005"]["findings"]] == ["failing", "warning"]


def test_severities_are_markers(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, '[policies.EXP003]\nseverity = "critical"\n')
    result = gate("--strict-markers", "-m", "critical", REPORT)
    policies = {item["policy"]: item["severity"] for item in results(gate)}
    assert policies.pop("STO003") == "high", "which is asked in every run"
    assert policies["EXP003"] == "critical"
    assert set(policies.values()) == {"critical"}
    assert "PARTIAL" in told(result)
    everything = gate("--collect-only", "-q", "-m", "low or medium or high or critical", rules=[POLICIES])
    assert "deselected" not in told(everything)
    assert "@pytest.mark.critical: rules of this severity" in told(gate("--markers", rules=()))


def test_markers_where_the_settings_are_broken(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, "[gate]\nfail_on = 3\n")
    result = gate("-m", "high", rules=RULES)
    assert result.ret == 4
    assert "compliance.toml:" in told(result)
