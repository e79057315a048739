"""The experiments in the HTML report: which rules fail in which of them, who owns them, what they hold."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING
from mlflow_compliance.report.markup import left_out, named, safe, severity_mark, size, table
from mlflow_compliance.report.severities import SEVERITIES, rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow_compliance.audit.results import ExperimentFacts, Report

_MOST = 60
"""Experiments in one table; how many more there are is told."""
_ELSEWHERE = ""
"""Stands for the experiment of what lies in none, or in several."""


def experiments_part(report: Report) -> str:
    return f"<h3>Rules by experiment</h3>{_heat_map(report)}<h3>Owners, runs and bytes</h3>{_holdings(report)}"


def _heat_map(report: Report) -> str:
    """How many findings of each rule fail in each experiment, and how bad the worst of them is."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    by_rule: dict[str, list[str]] = defaultdict(list)
    for result, finding in report.findings:
        if finding.status == FAILING:
            found[finding.experiment or _ELSEWHERE][result.policy].append(finding.severity)
            by_rule[result.policy].append(finding.severity)
    if not found:
        return '<p class="c-calm">No finding fails.</p>'
    rules = sorted(by_rule, key=lambda rule: (_worst(by_rule[rule]), rule))
    elsewhere = found.pop(_ELSEWHERE, None)
    order = sorted(found, key=lambda name: (*_badness(found[name]), name))
    rows = [[named(name, 60), *_cells(found[name], rules)] for name in order[:_MOST]]
    rows += [["<em>in no single experiment</em>", *_cells(elsewhere, rules)]] if elsewhere else []
    titles = {rule.id: rule.title for rule in report.summary.rules}
    heads = ("experiment", *(f'<span title="{safe(titles.get(rule, ""))}">{safe(rule)}</span>' for rule in rules))
    marks = " ".join(severity_mark(each) for each in SEVERITIES if any(each in some for some in by_rule.values()))
    return (
        f'<p class="c-note">How many findings fail; the colour is that of the worst: {marks}</p>'
        + table(heads, rows, "Findings that fail, by experiment and rule", "c-map")
        + left_out(len(order) - _MOST, "experiment", ", with less against them")
    )


def _worst(severities: Iterable[str]) -> int:
    return min(map(rank, severities))


def _badness(by_rule: dict[str, list[str]]) -> tuple[int, int]:
    """Of an experiment: the rank of the worst that fails in it, then how much does."""
    return min(map(_worst, by_rule.values())), -sum(map(len, by_rule.values()))


def _cells(by_rule: dict[str, list[str]], rules: Iterable[str]) -> Iterator[str]:
    for rule in rules:
        severities = by_rule.get(rule)
        if not severities:
            yield "<td></td>"
            continue
        worst = safe(min(severities, key=rank))
        yield f'<td class="c-heat c-heat-{worst}" title="{len(severities)} {worst}">{len(severities)}</td>'


def _holdings(report: Report) -> str:
    """What each experiment holds, the largest first; of deleted ones those alone that take room."""
    found = [item for item in report.summary.experiments if item.bytes or item.lifecycle == "active"]
    if not found:
        return '<p class="c-calm">There is no experiment.</p>'
    read = any(item.bytes is not None for item in found)
    order = sorted(found, key=lambda item: (-(item.bytes or 0), -(item.runs or 0), item.name))
    most = order[0].bytes or 1
    rows = (
        [
            named(item.name, 60) + (" (deleted)" if item.lifecycle != "active" else ""),
            named(item.owner, 60) if item.owner else '<span class="c-none">nobody named</span>',
            f'<td class="c-number">{"not counted" if item.runs is None else f"{item.runs:,}"}</td>',
            *(_bytes(item, most) if read else ()),
        ]
        for item in order[:_MOST]
    )
    heads = ["experiment", "owner", _number("runs")]
    heads += [_number("bytes"), _number("reclaimable"), "share"] if read else []
    return (
        f"<p>{_total(report, found) if read else 'No file was read: how many bytes they take is not known.'}</p>"
        + table(heads, rows, "Owners, runs and bytes of experiments", "c-holdings")
        + left_out(len(order) - _MOST, "experiment", ", with less in them")
    )


def _number(head: str) -> str:
    return f'<span class="c-number">{head}</span>'


def _bytes(item: ExperimentFacts, most: int) -> Iterator[str]:
    yield f'<td class="c-number">{size(item.bytes)}</td>'
    yield f'<td class="c-number">{size(item.reclaimable)}</td>'
    yield _bar(item, most)


def _total(report: Report, found: Iterable[ExperimentFacts]) -> str:
    total = f"{size(sum(item.bytes or 0 for item in found))} in all"
    again = report.summary.reclaimable
    return f"{total}, {size(again)} of it reclaimable: repeats of files." if again is not None else f"{total}."


def _bar(item: ExperimentFacts, most: int) -> str:
    whole, again = 160 * (item.bytes or 0) / most, 160 * min(item.reclaimable or 0, item.bytes or 0) / most
    return (
        '<svg class="c-bar" viewBox="0 0 160 10" width="160" height="10" aria-hidden="true">'
        f'<rect class="c-bar-whole" width="{whole:.1f}" height="10"/>'
        f'<rect class="c-bar-again" width="{again:.1f}" height="10"/></svg>'
    )
