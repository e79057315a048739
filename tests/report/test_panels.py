"""The parts of the HTML report whose tables are cut: each says how many more there are."""

from __future__ import annotations

import re

from reports import problem, result, summary

from mlflow_compliance.audit.results import ExperimentFacts, NotJudged, Report, WaivedBy
from mlflow_compliance.report.panels import panels_of


def text_of(part: str, report: Report) -> str:
    html = {key: html for key, _, html in panels_of(report)}[part]
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html.replace("<wbr>", "")))


def of_many(number: int) -> Report:
    waiver = WaivedBy("agreed", "ann", "2027-03-31")
    waived = [problem(at, status="waived", waiver=waiver) for at in range(number)]
    unjudged = tuple(NotJudged(f"model m{at}", "unread", "the bucket is down") for at in range(number))
    experiments = tuple(ExperimentFacts(str(at), f"e{at}", "active", 1, "", at, 0) for at in range(number))
    return Report(
        summary(experiments=experiments, reclaimable=0),
        (
            result("EXP001", *waived),
            result("EXP003", *(problem(at, experiment=f"e{at}") for at in range(number))),
            result("MOD002", unevaluated=unjudged, outcome="not evaluated"),
        ),
    )


def test_what_a_table_leaves_out_is_counted() -> None:
    evidence, experiments = (text_of(part, of_many(602)) for part in ("c-evidence", "c-experiments"))
    assert "Waivers (602)" in evidence
    assert "Not evaluated (602)" in evidence
    assert evidence.count("and 2 more rows: the JSON report has them all") == 2
    assert "and 542 more experiments, with less against them" in experiments
    assert "and 542 more experiments, with less in them" in experiments
    assert "and 1 more row: " in text_of("c-evidence", of_many(601))


def test_a_table_that_shows_all_says_nothing_of_more() -> None:
    for part in ("c-evidence", "c-experiments"):
        assert " more " not in text_of(part, of_many(60))
    assert "more experiment, with less" in text_of("c-experiments", of_many(61))


def test_what_lies_in_no_experiment_comes_last_and_is_never_cut() -> None:
    report = of_many(100)
    whole = result("STO001", problem(1, severity="critical", kind="store", entity="store x"))
    text = text_of("c-experiments", Report(report.summary, (*report.results, whole)))
    assert re.search(r"STO001 EXP003 e0 +1 ", text)
    assert text.index("in no single experiment 1") > text.index(" e5 ")
    assert "and 40 more experiments, with less against them" in text


def test_owners_are_told_where_no_file_was_read() -> None:
    known = ExperimentFacts("1", "fraud_lgbm", "active", 1200, "fraud")
    text = text_of("c-experiments", Report(summary(experiments=(known,)), (result("EXP001"),)))
    assert "No file was read" in text
    assert "experiment owner runs fraud_lgbm fraud 1,200" in text
    assert "not read" not in text


def test_runs_that_were_not_counted_are_no_number() -> None:
    known = ExperimentFacts("1", "fraud_lgbm", "active", None)
    text = text_of("c-experiments", Report(summary(experiments=(known,)), (result("EXP001"),)))
    assert "fraud_lgbm nobody named not counted" in text
