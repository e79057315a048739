"""Reports made by hand, and the page that pytest-html makes of one: what a store rarely shows all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest_html
import reports
from pytest_html.util import _read_template

from mlflow_compliance.audit.results import (
    BaselineFacts,
    ExperimentFacts,
    FoundProblem,
    HistoryPoint,
    Line,
    NotJudged,
    ProductFacts,
    Report,
    RuleFacts,
    Summary,
    WaivedBy,
)
from mlflow_compliance.report.html import cells_of, header_cells
from mlflow_compliance.report.markup import deeply_safe, safe
from mlflow_compliance.report.page import page_of

SEVERITIES = ("critical", "high", "medium", "low")
STATUSES = ("failing", "failing", "warning", "known", "waived")


def problem(number: int, name: str, status: str = "failing") -> FoundProblem:
    """One finding about something of that name; every field says something."""
    return reports.problem(
        number,
        code="wrong",
        severity=SEVERITIES[number % 4],
        entity=f"experiment {name}",
        message=f"is wrong in way {number}",
        observed=name,
        expected="right",
        remedy="set a tag (1 change)" if number % 2 else "only people know",
        toml=f'[experiments]\ntest_names = ["{number}"]' if number % 3 == 0 else "",
        cause=("EXP001", f"experiment {name}") if number % 7 == 6 else None,
        experiment=name,
        fixable=bool(number % 2),
        advice=f"call `log_model(..., name={name!r})`",
        owner=f"team {name}",
        contact="#ml",
        status=status,
        waiver=WaivedBy(f"agreed with {name}", name, "2027-03-31") if status == "waived" else None,
    )


def full_report(names: list[str], findings: int = 60) -> Report:
    """A report with everything that one can have: all statuses, a repair, a history, a baseline, clauses, waivers."""
    rules = [f"EXP{number:03}" for number in range(1, 13)]
    results = [
        reports.result(
            rule,
            *(
                problem(number, names[number % len(names)], STATUSES[number % 5])
                for number in range(at, findings, len(rules))
            ),
            title=f"Rule {names[at % len(names)]}",
            severity=SEVERITIES[at % 4],
            entity=f"experiment {names[at % len(names)]}",
            examined=(("experiment", str(at)),),
            nodeid=f"policies/test_x.py::test_{at}[experiment-{at}]",
            notes=(f"note about {names[0]}",),
        )
        for at, rule in enumerate(rules)
    ]
    results += [
        reports.result(
            "RUN001",
            severity="medium",
            outcome="fixed",
            entity=f"run {names[0]}",
            was=(f"run {names[0]}: is stuck",),
            done=(f"set tag a of run {names[0]}",),
        ),
        reports.result(
            "MOD002",
            severity="critical",
            outcome="not evaluated",
            unevaluated=(NotJudged(f"model {names[0]}", "unread", f"the bucket of {names[0]} is down"),),
            fails=True,
        ),
    ]
    return Report(_summary(names, rules), tuple(results))


def _summary(names: list[str], rules: list[str]) -> Summary:
    return reports.summary(
        head=(f"store: sqlite:////srv/{names[0]}.db",),
        read_at="2026-11-26 22:24:27 UTC",
        repair=(Line("repair: 1 of 1 changes made"),),
        policies=14,
        rules=tuple(
            RuleFacts(rule, f"Rule {rule}", "high", clauses=("EU AI Act Art. 12", "SR 26-2")) for rule in rules
        ),
        products=(
            ProductFacts(
                name=names[0],
                experiment=names[0],
                experiment_id="1",
                run=names[0],
                run_id="485b90636f0e42f4ac8d203807ee601e",
                since="2025-07-01T09:17:00+00:00",
                registered_model=names[0],
                alias="production",
                version="3",
                threshold="0.48",
                model_sha256="49fd294b96a2eeba7e3f2c02cd9c463d91a1dc791be03051cdbb10ec64b95258",
            ),
            ProductFacts(name="fraud"),
        ),
        experiments=tuple(
            ExperimentFacts(
                str(number), name, "active", 5, f"team {name}" if number else "", 1000 * number, 400 * number
            )
            for number, name in enumerate(names)
        ),
        reclaimable=123_456_789,
        baseline=BaselineFacts("baseline.json", 12, ("00ff",)),
        warnings=("a waiver expires in 3 days",),
        uri=f"sqlite:////srv/{names[0]}.db",
        settings="compliance.toml",
        who="dana",
        host="gate",
        journals=("20261126-222427-abcdef",),
        history=(
            HistoryPoint("2026-09-01T08:00:00+00:00", ok=False, failing={"high": 4, "low": 9}, waived=0),
            HistoryPoint(
                "2026-10-01T08:00:00+00:00",
                ok=False,
                failing={"high": 2},
                waived=1,
                production={names[0]: "2"},
                fingerprints=("0" * 16, "f" * 16),
            ),
        ),
    )


def written(report: Report, path: Path) -> Path:
    """The page of a report, with a row for each check as pytest-html holds them."""
    resources = Path(pytest_html.__file__).parent / "resources"
    rows = {
        result.nodeid: [
            {
                "extras": [],
                "result": "Failed" if result.fails else "Passed",
                "testId": safe(result.nodeid),
                "resultsTableRow": [
                    f'<td class="col-result">{"Failed" if result.fails else "Passed"}</td>',
                    *cells_of(result),
                    f'<td class="col-testId">{safe(result.nodeid)}</td>',
                    '<td class="col-duration">1 ms</td>',
                    '<td class="col-links"></td>',
                ],
                "log": "",
            }
        ]
        for result in report.results
    }
    data = {
        "environment": deeply_safe({"Python": "3.11", "Plugins": {"html": "4"}}),
        "tests": rows,
        "renderCollapsed": ["passed"],
        "initialSort": "result",
        "title": path.name,
    }
    outcomes = {
        name: {"label": name.capitalize(), "value": 1}
        for name in ("failed", "passed", "skipped", "xfailed", "xpassed", "error", "rerun", "retried")
    }
    text = _read_template([str(resources)]).render(
        title=path.name,
        date="26-Nov-2026",
        time="22:24:27",
        version="4",
        styles=(resources / "style.css").read_text("utf-8"),
        run_count=f"{len(rows)} tests took 1 ms.",
        running_state="finished",
        self_contained=True,
        outcomes=outcomes,
        test_data=json.dumps(data),
        table_head=[
            '<th class="sortable" data-column-type="result">Gate</th>',
            *header_cells(),
            '<th class="sortable" data-column-type="testId">Test</th>',
            '<th class="sortable" data-column-type="duration">Duration</th>',
            "<th>Links</th>",
        ],
        additional_summary={"prefix": page_of(report), "summary": [], "postfix": []},
    )
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
