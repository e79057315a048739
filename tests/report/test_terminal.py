"""What our section of the terminal says, on Reports that are built by hand."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import Any

import pytest

from mlflow_compliance.audit.results import (
    BaselineFacts,
    FoundProblem,
    Line,
    NotJudged,
    Report,
    Result,
    Summary,
    WaivedBy,
)
from mlflow_compliance.report.following import first_causes
from mlflow_compliance.report.terminal import lines_of
from mlflow_compliance.safe_text import WHOLE

SUMMARY = Summary(("store: sqlite:////srv/mlflow.db (sqlite)", "settings: compliance.toml, sha256 00"), "2027-01-01")


def problem(number: int = 0, **values: Any) -> FoundProblem:
    """A finding about an experiment of its own."""
    name = values.get("name", f"fraud-lgbm-{number:02}")
    made: dict[str, Any] = {
        "code": "unclassified",
        "fingerprint": f"{number:016x}",
        "severity": "medium",
        "entity": f"experiment {name}",
        "message": "not classified",
        "observed": "",
        "expected": "",
        "remedy": "set the tag lifecycle",
        "kind": "experiment",
        "key": str(number),
        "name": name,
        "advice": "set the tag lifecycle",
        **values,
    }
    return FoundProblem(text=f"{made['entity']}: {made['message']}", **made)


def check(policy: str, *findings: FoundProblem, **values: Any) -> Result:
    worst = findings[0].severity if findings else "medium"
    failing = any(finding.status == "failing" for finding in findings)
    made: dict[str, Any] = {
        "title": "a title",
        "severity": worst,
        "outcome": "failed" if failing else "passed",
        "entity": findings[0].entity if findings else "",
        "findings": findings,
        "nodeid": f"test_of.py::test_{policy}[experiment-1]",
        "fails": failing,
        **values,
    }
    return Result(policy=policy, **made)


def shown(*results: Result, show: str = "findings", width: int | None = 120, **summary: Any) -> list[str]:
    report = Report(replace(SUMMARY, **summary), results)
    return [line.text for line in lines_of(report, show, width)]


def row(policy: str, lines: list[str]) -> str:
    (found,) = [line for line in lines if line.startswith(f" {policy} ")]
    return found


def test_the_verdict_is_the_first_line_and_the_last() -> None:
    results = [
        check("RUN002", problem(1, severity="critical", code="several", remedy="mark one", advice="")),
        check("MOD001", problem(2, severity="critical", code="none", fixable=True, remedy="Build it. (6 changes)")),
        check("EXP003", *(problem(number, fixable=number < 11) for number in range(20))),
        check("REG001", *(problem(number, status="known") for number in range(498))),
        check("REG002", *(problem(number, status="waived") for number in range(4))),
        check("MOD003", outcome="not evaluated", unevaluated=(NotJudged("product credit", "away", "it is away"),)),
        check("SRV001", outcome="switched off"),
    ]
    known = (*(result.policy for result in results), "RET001")
    lines = shown(*results, known=known, reclaimable=412_000_000, baseline=BaselineFacts("base.json", 498, ("a", "b")))
    assert lines[0] == lines[-1].replace("      ", "", 1) or lines[0].startswith(
        "FAIL  2 critical · 20 medium   rules 8: "
    )
    wide = shown(*results, known=known, reclaimable=412_000_000, width=200)
    assert wide[0] == wide[-1]
    assert wide[0] == (
        "FAIL  2 critical · 20 medium   rules 8: 5 ran, 1 off, 1 not evaluated, 1 not asked   12 fixable   "
        "412 MB reclaimable   (waived 4, baseline 498)"
    )
    narrow = shown(*results, known=known, reclaimable=412_000_000, width=80)
    assert narrow[0].startswith("FAIL  2 critical")
    assert narrow[-1] == narrow[0]
    assert narrow[1].startswith("      ")
    assert "reclaimable" not in narrow[-2], "an indented line at the end would belong to nothing"
    cut = shown(check("RUN002", problem(1, message="is " + "words " * 60)), width=80)
    assert next(line for line in cut if line.endswith(" …")).endswith(" words …")
    assert max(map(len, narrow)) <= 80


def test_what_was_not_judged_is_never_plain_compliance() -> None:
    whole = shown(check("EXP001"))
    assert whole[0] == "PASS  no finding   rules 1: 1 ran"
    judged = check("EXP001")
    unjudged = check(
        "MOD003", outcome="not evaluated", unevaluated=(NotJudged("product credit", "away", "it is away"),)
    )
    for lines in (
        shown(judged, unjudged),
        shown(judged, head=("PARTIAL: 1 of 2 rules were asked", "store: x")),
        shown(check("EXP001", outcome="switched off")),
        shown(judged, unjudged, show="summary"),
        shown(judged, unjudged, show="all", width=None),
    ):
        assert lines[0].startswith("INCOMPLETE  ")
        assert lines[-1].startswith("INCOMPLETE  ")
        assert not any(line.startswith("PASS") for line in lines)
    must = shown(judged, replace(unjudged, fails=True))
    assert must[0].startswith(
        "FAIL  no finding, and 1 rule that must be judged was not   rules 2: 1 ran, 1 not evaluated"
    )
    assert "not evaluated: MOD003: product credit: it is away" in must
    assert shown()[0] == "FAIL  nothing was judged   rules 0: 0 ran"
    stopped = shown(judged, stopped="pytest was interrupted")
    assert stopped[0].startswith("FAIL  ")
    assert not [line for line in stopped if "interrupted" in line], "pytest tells it itself"
    assert shown(judged, repair=(Line("the store is not what was planned", ok=False),))[0].startswith("FAIL  ")


def test_one_line_a_rule_and_cause() -> None:
    lines = shown(check("EXP003", *map(problem, range(265))))
    assert row("EXP003", lines) == (
        " EXP003 medium    265 experiments not classified  e.g. fraud-lgbm-00, fraud-lgbm-01, fraud-lgbm-02, ... +262"
    )
    two = [problem(number, code="archived", message="is archived, and nobody says so") for number in range(2)]
    lines = shown(check("EXP003", *map(problem, range(3)), *two))
    assert [line for line in lines if line.startswith(" EXP003")] == [
        " EXP003 medium    3 experiments not classified  e.g. fraud-lgbm-00, fraud-lgbm-01, fraud-lgbm-02",
        " EXP003 medium    2 experiments: is archived, and nobody says so  e.g. fraud-lgbm-00, fraud-lgbm-01",
    ]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (["has no metric tn", "has no metric fp", "has no metric fn"], "run final has no metric tn, fp, fn"),
        (["stored 3 times", "stored 19 times"], "run final stored 3, 19 times"),
        (["is odd", "is odd"], "run final is odd, 2 times"),
    ],
)
def test_what_tells_findings_about_one_entity_apart_is_named(messages: list[str], said: str) -> None:
    found = [problem(1, kind="run", entity="run final", name="final", message=text) for text in messages]
    assert row("PRD002", shown(check("PRD002", *found))) == f" PRD002 medium    {said}"


def test_entities_of_one_name_are_told_apart_and_long_paths_keep_their_end() -> None:
    same = [problem(0, kind="run", name="trial", key=f"{number}{'0' * 31}") for number in (4, 5)]
    assert row("RUN001", shown(check("RUN001", *same))).endswith("e.g. trial (40000000), trial (50000000)")
    far = [problem(number, kind="artifact", name=f"mlruns/{'0' * 60}/{number}.png") for number in range(2)]
    assert re.search(r"e\.g\. …0+/0\.png, …0+/1\.png$", row("ART001", shown(check("ART001", *far), width=200)))
    mixed = [problem(0), problem(1, kind="registry", entity="registry b", name="b")]
    assert "2 entities not classified" in row("EXP003", shown(check("EXP003", *mixed)))


def test_by_severity_then_rule() -> None:
    results = [
        check("ZZZ001", problem(severity="critical")),
        check("AAA002", problem(severity="low")),
        check("AAA001", problem(severity="high")),
        check("MMM001", problem(severity="critical")),
        check("AAA003", problem(severity="strange")),
    ]
    lines = shown(*results)
    ids = [line.split()[0] for line in lines if re.match(r" [A-Z]{3}\d", line)]
    assert ids == ["MMM001", "ZZZ001", "AAA001", "AAA002", "AAA003"]


def of(policy: str, entity: str, cause: tuple[str, str] | None = None, **values: Any) -> Result:
    return check(policy, problem(1, entity=entity, cause=cause, **values), entity=entity)


def test_what_blocks_what() -> None:
    chain = [
        of("RUN002", "product credit", severity="high"),
        of("MOD001", "run final", ("RUN002", "product credit"), severity="critical"),
        of("MOD003", "product credit", ("MOD001", "run final")),
        of("PRD005", "product churn", ("RUN002", "product churn")),
    ]
    lines = shown(*chain)
    assert row("RUN002", lines).endswith("blocks MOD001 MOD003")
    assert not any(line.startswith(" MOD0") for line in lines)
    assert row("PRD005", lines), "the check that would tell its cause was not asked"
    every = shown(*chain, show="all", width=None)
    ways = {
        line.split()[0]: every[number + 1].split(maxsplit=4)[-1]
        for number, line in enumerate(every)
        if re.match(r" [A-Z]{3}\d", line)
    }
    assert (ways["MOD001"], ways["MOD003"]) == ("see RUN002", "see RUN002")
    # What is waived fails nothing, so what follows from it stands by itself, and says where to look.
    waived = shown(of("RUN002", "product credit", status="waived"), *chain[1:])
    assert row("MOD001", waived)
    assert any("see RUN002" in line for line in waived)
    # Critical is what follows: it stands in front of what is merely high.
    first = shown(of("AAA001", "product x", severity="high"), *chain)
    assert next(line.split()[0] for line in first if re.match(r" [A-Z]{3}\d", line)) == "RUN002"


def test_a_circle_of_causes_ends() -> None:
    circle = [of("AAA001", "x", ("AAA002", "y")), of("AAA002", "y", ("AAA001", "x"))]
    assert set(first_causes(circle)) == {("AAA001", "x", "unclassified"), ("AAA002", "y", "unclassified")}
    every = "\n".join(shown(*circle))
    assert "AAA001" in every
    assert "AAA002" in every


def test_what_fix_would_do_and_what_people_can_do_are_two_lines() -> None:
    lines = shown(
        check("EXP002", problem(1, severity="high", fixable=True, remedy="Rename it. Then delete it. (7 changes)")),
        check("REG001", problem(2, remedy="which one is meant is not known", advice="register it")),
        check("SRV001", problem(3, remedy="mend it", advice="mend it")),
        check(
            "ART001",
            *(problem(number, fixable=True, remedy="Link them. (3 changes)") for number in range(2)),
            problem(4, remedy="a file is in use", advice="close it"),
        ),
        width=200,
    )
    after = {line.split()[0]: number for number, line in enumerate(lines) if re.match(r" [A-Z]{3}\d", line)}
    fix, you = "     what --fix would do  ", "     what you can do      "
    assert lines[after["EXP002"] + 1] == f"{fix}Rename it (7 changes)"
    assert lines[after["REG001"] + 1 :][:2] == [f"{fix}nothing: which one is meant is not known", f"{you}register it"]
    assert lines[after["SRV001"] + 1] == f"{you}mend it"
    assert lines[after["ART001"] + 1 :][:2] == [f"{fix}Link them (6 changes, for 2 of 3)", f"{you}close it"]


def test_what_does_not_fail_is_counted_apart() -> None:
    waiver = WaivedBy("the vendor mends it", "ann", "2027-03-31")
    results = [
        check("EXP003", problem(1, status="waived", waiver=waiver), problem(2, status="known")),
        check("ART001", *(problem(number, status="warning", severity="low") for number in range(3))),
    ]
    lines = shown(*results, warnings=("waiver 1 expires in 12 days",))
    assert lines[0] == "PASS  no finding that fails   rules 2: 2 ran   (warnings 3, waived 1, baseline 1)"
    assert "  warning  3 low: ART001 3" in lines
    assert "  known    1 medium: EXP003 1" in lines
    assert "  waived   1 medium: EXP003 1" in lines
    assert "warning: waiver 1 expires in 12 days" in lines
    assert not any(re.match(r" [A-Z]{3}\d", line) for line in lines), "no row of what fails"
    every = shown(*results, show="all", width=None)
    assert any(line.endswith("until 2027-03-31 by ann: the vendor mends it") for line in every)
    assert not any(re.match(r" [A-Z]{3}\d", line) for line in every)


def test_summary_names_rules_alone() -> None:
    lines = shown(
        check("EXP003", *map(problem, range(30))), check("MOD001", problem(severity="critical")), show="summary"
    )
    assert lines[1:-1] == ["critical: MOD001 1", "medium: EXP003 30"]
    assert lines[0] == lines[-1]


def test_a_rule_takes_no_more_than_a_screenful() -> None:
    many = [problem(number, code=f"code{number}", message=f"is wrong in way {number}") for number in range(90)]
    lines = shown(check("EXP003", *many), width=80)
    rule = lines[next(number for number, line in enumerate(lines) if line.startswith(" EXP003")) : -1]
    assert 15 < len(rule) <= 20
    assert any(re.match(r" EXP003 … \d+ more: --compliance-rules=EXP003 --compliance-show=all", line) for line in lines)
    every = shown(check("EXP003", *many), show="all", width=80)
    assert sum(line.startswith(" EXP003") for line in every) == 90


def test_a_large_store_fits_and_what_is_critical_is_shortened_last() -> None:
    results = [
        check(
            f"{name}{number:03}",
            *(
                problem(each, severity=severity, remedy="r " * 90, fixable=True, message=f"m{number} " * 40)
                for each in (1, 2)
            ),
        )
        for severity, name in (("critical", "AAA"), ("low", "BBB"))
        for number in range(8)
    ]
    results += [replace(check("CCC001"), nodeid=f"test_c.py::test_c[{number}]") for number in range(1300)]
    lines = shown(*results)
    pytests = 10 + 1 + -(-1300 // 113)
    assert len(lines) + pytests <= 60
    # Where nothing says how wide a terminal is, pytest writes 80 columns of its own and we write 120.
    beside = [line.text for line in lines_of(Report(SUMMARY, tuple(results)), columns=80)]
    assert len(beside) + 10 + 1 + -(-1300 // 73) <= 60
    for number in range(8):
        assert row(f"AAA{number:03}", lines)
        assert row(f"BBB{number:03}", lines)
    fixes = [number for number, line in enumerate(lines) if "what --fix would do" in line]
    first_low = next(number for number, line in enumerate(lines) if line.startswith(" BBB"))
    assert fixes
    assert all(number < first_low for number in fixes)


def test_what_is_beside_the_findings_gives_way_to_them() -> None:
    head = (*SUMMARY.head, "experiments: 300 active", "artifacts: 46 files")
    some = [check(f"AAA{number:03}", problem(1, severity="high", message=f"m{number}")) for number in range(20)]
    noted = [replace(check("BBB001"), notes=("said",)), replace(check("CCC001"), outcome="not applicable", reason="no")]
    few = [*some, *noted]
    many = [*few, *(replace(check("CCC001"), nodeid=f"test_c.py::test_c[{number}]") for number in range(1500))]
    for results, there in ((few, True), (many, False)):
        report = Report(replace(SUMMARY, head=head), tuple(results))
        lines = [line.text for line in lines_of(report, columns=80)]
        assert [any(line.startswith(word) for line in lines) for word in ("experiments:", "artifacts:", "note")] == [
            there
        ] * 3, lines
        assert all(row(f"AAA{number:03}", lines) for number in range(20))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    words = "word " * 90
    results = [
        check(
            "EXP003",
            *(problem(number, message=words, remedy=words, advice=words + "x") for number in range(3)),
            nodeid="",
        ),
        check("MOD001", problem(1, severity="critical", message=words), nodeid="", notes=(words,)),
        check("MOD003", outcome="not evaluated", unevaluated=(NotJudged("product credit", "away", words),)),
        check("MOD004", outcome="not applicable", reason=words),
    ]
    lines = shown(*results, width=width, head=(f"PARTIAL: {words}", f"store: {words}"), warnings=(words,))
    assert max(map(len, lines)) <= width


def test_the_id_of_a_check_is_never_broken() -> None:
    node = f"test_experiments.py::test_{'x' * 90}[experiment-12]"
    lines = shown(check("EXP003", problem(1), nodeid=node), width=80)
    assert f"'{node}'" in "\n".join(lines)


def test_lines_to_copy_stand_there_once_and_short() -> None:
    toml = "\n".join(
        ["[experiments]", "test_names = [  # leave out what is real work", *(f'  "test_{n}",' for n in range(40)), "]"]
    )
    lines = shown(check("EXP002", *(problem(number, toml=toml) for number in range(9))), width=100)
    start = lines.index("to be copied into compliance.toml:")
    assert sum(line == "[experiments]" for line in lines) == 1
    copied = lines[start + 1 : -1]
    assert len(copied) < 12

    if sys.version_info >= (3, 11):
        import tomllib

        assert len(tomllib.loads("\n".join(copied))["experiments"]["test_names"]) == 40
    waived = shown(check("EXP002", problem(1, toml=toml, status="waived")))
    assert "to be copied into compliance.toml:" not in waived


@pytest.mark.parametrize("show", ["summary", "findings", "all"])
def test_nothing_in_a_name_steers_the_terminal(show: str) -> None:
    bad = "\x1b[31mred\x07\u202e\nFAIL"
    results = [
        check(
            "EXP003",
            *(
                problem(n, name=f"{bad}{n}", entity=f"experiment {bad}{n}", message=bad, remedy=bad, advice=bad)
                for n in (1, 2)
            ),
            nodeid=f"x[{bad}]",
            notes=(bad,),
        ),
        check("MOD003", outcome="not evaluated", unevaluated=(NotJudged(f"run {bad}", "away", bad),)),
        check("MOD004", outcome="not applicable", reason=bad),
        check("MOD005", problem(1, status="waived", waiver=WaivedBy(bad, bad, bad), owner=bad, message=bad)),
    ]
    for width in (80, None):
        for line in shown(*results, show=show, width=width, head=(bad,), repair=(Line(bad),), warnings=(bad,)):
            assert not {"\x1b", "\x07", "\u202e", "\n"} & {*line}
            assert len(line) < WHOLE
