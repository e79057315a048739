"""The further parts of the HTML report: production, experiments, the repair, clauses, evidence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING
from mlflow_compliance.report.experiments import experiments_part
from mlflow_compliance.report.markup import day, left_out, named, safe, severity_mark, table
from mlflow_compliance.report.severities import rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow_compliance.audit.results import ProductFacts, Report, Result

_MOST = 600
"""Rows of a table of evidence; how many more there are is told."""


def panels_of(report: Report) -> Iterator[tuple[str, str, str]]:
    """(id, title, HTML) of each part that has something to say."""
    if report.summary.products:
        yield "c-production", "Production", _production(report)
    yield "c-experiments", "Experiments", experiments_part(report)
    if any(result.fixed for result in report.results) or report.summary.repair:
        yield "c-repair", "Repair", _repair(report)
    yield "c-clauses", "Clauses", _clauses(report)
    yield "c-evidence", "Evidence", _evidence(report)


def _production(report: Report) -> str:
    cards = "".join(map(_card, report.summary.products))
    note = (
        "Since: when the run was put in production by a repair, else when it ended. MLflow keeps no time of an alias."
    )
    return f'<div class="c-cards">{cards}</div><p class="c-note">{note}</p>'


def _card(product: ProductFacts) -> str:
    alias = f"{named(product.registered_model)} @ {named(product.alias, 40)}" if product.registered_model else ""
    facts = (
        ("Experiment", named(product.experiment) if product.experiment else ""),
        ("Run", f"{named(product.run)} <code>{safe(product.run_id, 40)}</code>" if product.run_id else ""),
        ("Since", safe(product.since)),
        ("Alias", alias),
        ("Model version", named(product.version, 40) if product.version else ""),
        ("Threshold", safe(product.threshold)),
        ("Model SHA-256", f"<code>{safe(product.model_sha256)}</code>" if product.model_sha256 else ""),
    )
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{value or '<span class=c-miss>not on record</span>'}</dd></div>"
        for name, value in facts
    )
    return f'<article class="c-card"><h3>{named(product.name)}</h3><dl>{rows}</dl></article>'


def _repair(report: Report) -> str:
    told = "".join(
        f'<li class="{"" if line.ok else "c-miss"}">{safe(line.text)}</li>' for line in report.summary.repair
    )
    rows = [
        [safe(result.policy), named(result.entity), _lines(result.was), _lines(result.done)]
        for result in report.results
        if result.fixed
    ]
    made = (
        table(("rule", "entity", "before", "what was done"), rows, "Before and after the repair", "c-wide")
        if rows
        else ""
    )
    return f"<ul>{told}</ul>{made}"


def _lines(lines: Iterable[str]) -> str:
    return "<br>".join(f"<bdi>{safe(line, 400)}</bdi>" for line in lines)


def _clauses(report: Report) -> str:
    """Clause -> the rules that give evidence for it, and how their checks ended."""
    clauses: dict[str, list[str]] = {}
    for rule in report.summary.rules:
        for clause in rule.clauses:
            clauses.setdefault(clause, []).append(rule.id)
    note = "What these rules found is evidence for a clause; no clause is met or broken by it alone."
    if not clauses:
        return f'<p class="c-calm">No rule of this audit names a clause.</p><p class="c-note">{note}</p>'
    ended: dict[str, list[Result]] = {}
    for result in report.results:
        ended.setdefault(result.policy, []).append(result)
    rows = [
        [safe(clause), "".join(_rule_line(rule, ended.get(rule, [])) for rule in rules)]
        for clause, rules in sorted(clauses.items())
    ]
    return f'<p class="c-note">{note}</p>' + table(("clause", "evidence"), rows, "Evidence by clause", "c-wide")


def _rule_line(rule: str, results: list[Result]) -> str:
    title = results[0].title if results else "not asked"
    counted = Counter(result.outcome for result in results)
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items()))
    failing = [finding.severity for result in results for finding in result.findings if finding.status == FAILING]
    mark = severity_mark(min(failing, key=rank)) if failing else ""
    return f'<div class="c-rule"><strong>{safe(rule)}</strong> {safe(title)}: {safe(outcomes)} {mark}</div>'


def _evidence(report: Report) -> str:
    summary = report.summary
    examined = {place for result in report.results for place in result.examined}
    facts = [
        ("Who", f"{named(summary.who)} on {named(summary.host)}"),
        ("Store read at", safe(summary.read_at)),
        ("Programs", safe(", ".join(f"{name} {version}" for name, version in summary.versions))),
        ("Settings", f"<bdi>{safe(summary.settings or 'no file, all is built in')}</bdi>"),
        ("Settings SHA-256", f"<code>{safe(summary.settings_sha256 or 'none')}</code>"),
        ("Journals of repairs", safe(", ".join(summary.journals) or "none at hand")),
    ]
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    lines = [
        *summary.head,
        f"read at: {summary.read_at}; {len(examined)} entities examined by {summary.policies} policies",
    ]
    lines += [line.text for line in summary.repair]
    lines += [
        "A check that passes is evidence about this store at this time; it is not a statement of legal compliance."
    ]
    lines += [f"to be looked at: {warning}" for warning in summary.warnings]
    lines += [
        f"note: {note}" for note in sorted(f"{each.policy}: {note}" for each in report.results for note in each.notes)
    ]
    head = "".join(f"<li>{safe(line)}</li>" for line in lines)
    return (
        f'<dl class="c-facts">{rows}</dl><ul class="compliance-head">{head}</ul>{_unjudged(report)}{_waivers(report)}'
    )


def _unjudged(report: Report) -> str:
    rows = [
        [safe(result.policy), named(item.entity), safe(item.reason, 400)]
        for result in report.results
        for item in result.unevaluated
    ]
    return _listed("Not evaluated", ("rule", "entity", "why"), rows, "What could not be judged")


def _waivers(report: Report) -> str:
    rows = [
        [safe(result.policy), named(finding.entity), safe(waiver.reason, 400), named(waiver.owner), day(waiver.expires)]
        for result, finding in report.findings
        if (waiver := finding.waiver)
    ]
    return _listed("Waivers", ("rule", "entity", "reason", "owner", "until"), rows, "What is waived")


def _listed(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table with its title, and how many rows there are beside those that it shows; nothing for none."""
    if not rows:
        return ""
    left = left_out(len(rows) - _MOST, "row", ": the JSON report has them all")
    return f"<h3>{title} ({len(rows):,})</h3>{table(heads, rows[:_MOST], caption, 'c-wide')}{left}"
