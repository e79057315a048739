"""The report as Markdown for a pull request's comment or a step's summary: the verdict first, and short."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING, KNOWN, WAIVED, WARNING
from mlflow_compliance.report.problems import problems_of
from mlflow_compliance.report.verdict import parts_of, verdict_of
from mlflow_compliance.safe_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.audit.results import Report
    from mlflow_compliance.report.problems import Problem

MOST = 25
"""Rows of a table: who wants all of them opens the HTML report."""
LONGEST = 300
_HEADS = {
    FAILING: "What fails the gate",
    WARNING: "Told, and fails nothing",
    WAIVED: "Waived",
    KNOWN: "In the baseline",
}


def as_markdown(report: Report) -> str:
    return "\n".join(_lines_of(report)).rstrip("\n") + "\n"


def _lines_of(report: Report) -> Iterator[str]:
    summary, first = report.summary, "   ".join(parts_of(report))
    yield f"## MLflow compliance: {verdict_of(report)}"
    yield ""
    yield code(first)
    yield ""
    if report.partial:
        yield f"{code(summary.head[0])}"
        yield ""
    problems = problems_of(report)
    for status, head in _HEADS.items():
        yield from _table(head, [item for item in problems if item.status == status], report)
    unwell = [line.text for line in summary.repair if not line.ok]
    for text in [*unwell, *summary.warnings][:MOST]:
        yield f"- {code(text)}"
    if unwell or summary.warnings:
        yield ""
    yield from _products(report)
    settings = f"settings {code(summary.settings)}" if summary.settings else "no settings file"
    store = f"store {code(summary.uri)}" if summary.uri else "no store was read"
    yield f"<sub>{store}, {settings}, read {code(summary.read_at or 'never')}. Evidence, no certificate.</sub>"


def _table(head: str, problems: list[Problem], report: Report) -> Iterator[str]:
    """One row a rule and severity: how often, and the first of them."""
    if not problems:
        return
    groups: dict[tuple[str, str, bool], list[Problem]] = {}
    for item in problems:
        groups.setdefault((item.policy, item.severity, item.judged), []).append(item)
    advice = {rule.id: rule.advice for rule in report.summary.rules}
    last = "Until" if problems[0].status == WAIVED else "What you can do"
    yield f"### {head}: {len(problems)}"
    yield ""
    yield f"| Severity | Rule | Number | `--fix` mends | Such as | {last} |"
    yield "|---|---|---:|---:|---|---|"
    for (policy, severity, _), members in list(groups.items())[:MOST]:
        finding = members[0].finding
        waiver = finding.waiver if finding else None
        way_out = (finding.advice if finding else "") or advice.get(policy, "")
        said = f"{waiver.expires} ({waiver.owner}): {waiver.reason}" if waiver else way_out
        title = code(f"{policy} {members[0].title}")
        mends = sum(bool(item.finding and item.finding.fixable) for item in members)
        example = code(members[0].text)
        yield f"| {severity} | {title} | {len(members)} | {mends or ''} | {example} | {code(said)} |"
    if len(groups) > MOST:
        yield f"| | and {len(groups) - MOST} more | | | | |"
    yield ""


def _products(report: Report) -> Iterator[str]:
    products = report.summary.products
    if not products:
        return
    yield "| Product | Run | Model | Since |"
    yield "|---|---|---|---|"
    for item in products[:MOST]:
        version = f"{item.registered_model} {item.version}" if item.version else item.registered_model
        alias = f"@{item.alias}" if item.alias else ""
        cells = (item.name, item.run or item.run_id or "none", f"{version} {alias}".strip(), item.since)
        yield f"| {' | '.join(map(code, cells))} |"
    if len(products) > MOST:
        yield f"| and {len(products) - MOST} more | | | |"
    yield ""


def code(text: str) -> str:
    """A text from a store as a code span: there no link, no mention and no tag comes to life. Empty for none."""
    safe = printable(" ".join(text.split()), LONGEST)
    if not safe:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", safe)), default=0))
    space = " " if safe[0] == "`" or safe[-1] == "`" else ""
    return f"{fence}{space}{safe}{space}{fence}".replace("|", "\\|")
