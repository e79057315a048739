"""Reports that are built by hand: one of everything, with texts that somebody hostile wrote."""

from __future__ import annotations

from typing import Any

from mlflow_compliance.audit.results import (
    BaselineFacts,
    FoundProblem,
    HistoryPoint,
    Line,
    NotJudged,
    ProductFacts,
    Report,
    Result,
    RuleFacts,
    Summary,
    WaivedBy,
)

HOSTILE = "a|b`c`\r\n::error::x\x1b[31m\u202e<script>alert(1)</script> @everyone [x](http://evil.test) %0A &amp; \ud800"
"""A name that means something to every format that it is written in."""
FORMATS = ("json", "sarif", "markdown", "github", "gitlab", "junit", "oscal", "oscal-poam")


def problem(number: int = 0, **facts: Any) -> FoundProblem:
    entity = facts.pop("entity", f"experiment e{number}")
    given: dict[str, Any] = {
        "code": "odd",
        "fingerprint": f"{number:016x}",
        "severity": "high",
        "message": "is odd",
        "observed": "odd",
        "expected": "even",
        "remedy": "nothing: look at it",
        "kind": "experiment",
        "key": str(number),
        "name": entity.partition(" ")[2],
        **facts,
    }
    return FoundProblem(text=f"{entity}: {given['message']}; found: {given['observed']}", entity=entity, **given)


def result(policy: str = "EXP001", *findings: FoundProblem, **facts: Any) -> Result:
    failing = any(item.status == "failing" for item in findings)
    outcome = "failed" if failing else (findings[0].status if findings else "passed")
    given: dict[str, Any] = {
        "title": f"The rule {policy}",
        "severity": "high",
        "outcome": outcome,
        "entity": findings[0].entity if findings else "store x",
        "nodeid": f"policies/test_x.py::test_{policy}[x]",
        "fails": failing,
        **facts,
    }
    return Result(policy=policy, findings=findings, **given)


def summary(**facts: Any) -> Summary:
    given: dict[str, Any] = {
        "head": ("store: sqlite:////x/mlflow.db (sqlite)",),
        "read_at": "2026-03-01 12:00:00 UTC",
        "known": ("EXP001", "EXP002", "EXP003", "MOD001", "RUN001"),
        "rules": (
            RuleFacts("EXP001", "The rule EXP001", "high", advice="rename it", clauses=("EU AI Act Art. 12",)),
            RuleFacts("EXP002", "The rule EXP002", "medium", enabled=False),
        ),
        "uri": "sqlite:////x/mlflow.db",
        "settings": "conf dir/compliance.toml",
        "settings_sha256": "ab" * 32,
        "who": "ann",
        "host": "box",
        "versions": (("pytest-mlflow-compliance", "0.1.0"), ("mlflow", "3.17.2")),
        **facts,
    }
    return Summary(**given)


def everything() -> Report:
    """Findings of each status and severity, what could not be judged, what --fix did, products and a history."""
    waiver = WaivedBy(f"not today {HOSTILE}", "ann", "2027-03-31")
    results = (
        result("EXP001", problem(1, severity="critical", owner="fraud", contact="#fraud", fixable=True)),
        result("EXP001", problem(2, entity=f"experiment {HOSTILE}", message=HOSTILE, advice=HOSTILE)),
        result("EXP003", problem(3, severity="medium", expected="24 hours (conf dir/compliance.toml:12)")),
        result("EXP003", problem(4, severity="low"), problem(4, severity="low")),
        result("RUN001", problem(5, severity="low", status="warning")),
        result("RUN001", problem(6, status="known"), problem(7, status="waived", waiver=waiver)),
        result(
            "MOD001",
            severity="critical",
            outcome="not evaluated",
            fails=True,
            unevaluated=(NotJudged(f"model {HOSTILE}", "unread", f"cannot be read {HOSTILE}"),),
        ),
        result("MOD002", outcome="not evaluated", unevaluated=(NotJudged("model m", "unread", "no server was asked"),)),
        result("EXP002", severity="medium", outcome="switched off", reason="EXP002 is switched off in the settings"),
        result("PRD001", outcome="fixed", done=("renamed it",), entity="experiment f"),
        result("PRD002", notes=(f"a note {HOSTILE}",)),
    )
    return Report(
        summary(
            head=("PARTIAL: 8 of 9 rules were asked", "store: x"),
            repair=(Line("repair: 1 change"), Line("the store is not what was planned", ok=False)),
            products=(
                ProductFacts("credit", "credit", "1", HOSTILE, "r1", "2026-01-01T00:00:00Z", "credit", "prod", "3"),
            ),
            baseline=BaselineFacts("baseline.json", 1, ("ff",)),
            warnings=("a waiver ends soon",),
            journals=("j1",),
            history=(HistoryPoint("2026-02-01T00:00:00Z", False, {"high": 1}, 0, {"credit": "2"}, ("aa",)),),
        ),
        results,
    )


def clean() -> Report:
    return Report(summary(), (result("EXP001"), result("EXP002")))


def stopped() -> Report:
    reason = f"the store cannot be read {HOSTILE}"
    return Report(Summary((f"STOPPED: {reason}",), "", stopped=reason), ())
