"""The first screen of the HTML report: is it compliant, how bad, what first, and what people ask besides."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING, KNOWN, WAIVED, WARNING
from mlflow_compliance.report.groups import groups_of
from mlflow_compliance.report.markup import day, named, safe, severity_mark, table
from mlflow_compliance.report.severities import SEVERITIES, rank
from mlflow_compliance.report.trend import trend
from mlflow_compliance.report.verdict import FAIL, INCOMPLETE, PASS, by_severity, facts_of, verdict_of
from mlflow_compliance.words import several

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.audit.results import HistoryPoint, ProductFacts, Report
    from mlflow_compliance.report.groups import Group

_FIRST = 5
"""Causes that are shown on the first screen."""
_FEW = 2
"""Products that are named on the first screen."""
_SIGNS = {PASS: "M14 25l7 7 14-15", FAIL: "M16 16l16 16M32 16L16 32", INCOMPLETE: "M24 13v14M24 33v2"}


def first_screen(report: Report) -> str:
    """What is seen first."""
    return (
        f"{_verdict(report)}{_answers(report)}"
        f'<div class="c-two"><div>{_part("grid", "How bad", _grid(report))}{trend(report)}</div>'
        f"{_part('first', 'What first', _first(report))}</div>"
    )


def _part(key: str, title: str, html: str) -> str:
    return f'<section aria-labelledby="c-{key}-head"><h2 id="c-{key}-head">{title}</h2>{html}</section>'


def _verdict(report: Report) -> str:
    word, counts, summary = verdict_of(report), report.counts, report.summary
    failing = sum(counts.failing.values())
    unjudged = sum(result.fails and not result.findings for result in report.results)
    words = [several(failing, "finding") + f" fail{'s' * (failing == 1)} the gate"] if failing else []
    words += [f"{several(unjudged, 'check')} could not judge what must be judged"] if unjudged else []
    words += [line.text for line in summary.repair if not line.ok][:1]
    words += ["not everything was asked"] if word == FAIL and report.partial else []
    if word == INCOMPLETE:
        words = ["nothing that was asked fails, and not everything was asked or could be judged"]
    elif word == PASS:
        words = ["nothing that was asked fails the gate"]
    facts = [by_severity(counts.failing), *facts_of(report)]
    told = " ".join(f"<span>{safe(fact)}</span>" for fact in facts if fact)
    return (
        f'<header class="c-verdict c-is-{word.lower()}">'
        '<svg viewBox="0 0 48 48" aria-hidden="true"><circle cx="24" cy="24" r="21"/>'
        f'<path d="{_SIGNS[word]}"/></svg><div><h1>{word} <span>{safe("; ".join(words))}</span></h1>'
        f'<p class="c-verdict-facts">{told}</p><p>Store <code>{named(summary.uri, 200)}</code></p></div></header>'
    )


def _answers(report: Report) -> str:
    """Five questions of whoever answers for the models, each with its answer."""
    asked = (
        ("Is it compliant?", _compliant(report)),
        ("In production, since when?", _production(report)),
        ("Waived, until when?", _waived(report)),
        ("What changed?", _changed(report)),
        ("Who ran this?", _who(report)),
    )
    items = "".join(f"<div><dt>{question}</dt><dd>{answer}</dd></div>" for question, answer in asked)
    return f'<dl class="c-answers">{items}</dl>'


def _compliant(report: Report) -> str:
    word, worst = verdict_of(report), min(report.counts.failing, key=rank, default="")
    if word == FAIL:
        return f"<strong>No.</strong> The worst finding is {severity_mark(worst)}" if worst else "<strong>No.</strong>"
    limits = " Not everything was judged." if word == INCOMPLETE else ""
    found = "What was found does not fail the gate" if report.findings else "Nothing found against it"
    return f"<strong>{found}.</strong>{limits} This is evidence, not a statement of legal compliance."


def _production(report: Report) -> str:
    products = report.summary.products
    if not products:
        return "The settings name no product."
    lines = [_in_service(product) for product in products[:_FEW]]
    more = len(products) - _FEW
    return "<br>".join(lines) + (f"<br>and {several(more, 'more product')}" if more > 0 else "")


def _in_service(product: ProductFacts) -> str:
    if not product.run_id:
        return f"{named(product.name, 40)}: <strong>nothing found</strong>"
    what = (
        f"version {safe(product.version, 20)}" if product.version else f"run {named(product.run or product.run_id, 40)}"
    )
    since = f" since {_day(product.since)}" if product.since else ", since when is not on record"
    return f"{named(product.name, 40)}: <strong>{what}</strong>{since}"


def _day(time: str) -> str:
    return f'<span class="c-nowrap">{day(time)}</span>'


def _waived(report: Report) -> str:
    waivers = [finding.waiver for _, finding in report.findings if finding.status == WAIVED and finding.waiver]
    if not waivers:
        return "Nothing."
    ends = sorted({waiver.expires for waiver in waivers if waiver.expires})
    until = f", until {_day(ends[0])}" if ends else ""
    until += f" to {_day(ends[-1])}" if len(ends) > 1 else ""
    owners = sorted({waiver.owner for waiver in waivers if waiver.owner})
    by = f" by {', '.join(named(owner, 30) for owner in owners[:_FEW])}" if owners else ""
    return f"<strong>{several(len(waivers), 'finding')}</strong>{until}{by}"


def _changed(report: Report) -> str:
    return "<br>".join(_changes(report)) or "No earlier audit is at hand: <code>[history] folder</code> keeps them."


def _changes(report: Report) -> Iterator[str]:
    history, baseline = report.summary.history, report.summary.baseline
    if history:
        yield _since_last(report, history[-1])
        now = {item.name: item.version or item.run_id for item in report.summary.products}
        for product, before in history[-1].production.items():
            if now.get(product, before) != before:
                yield f"{named(product, 40)}: {named(before, 20)} → {named(now[product], 20)}"
    if baseline:
        new, gone = sum(report.counts.failing.values()), len(baseline.gone)
        yield f"<strong>{new} new</strong>, {baseline.known} known, {gone} gone against the baseline"
    mended = sum(result.fixed for result in report.results)
    if mended:
        yield f"<strong>{several(mended, 'check')}</strong> mended by this run"


def _since_last(report: Report, last: HistoryPoint) -> str:
    if last.fingerprints is None:
        before, now = sum(last.failing.values()), sum(report.counts.failing.values())
        return f"<strong>{now} fail</strong>, {before} did on {_day(last.at)}"
    new, gone = new_and_gone(report, last)
    return f"<strong>{new} new, {gone} gone</strong> since {_day(last.at)}"


def new_and_gone(report: Report, last: HistoryPoint) -> tuple[int, int]:
    """How many findings fail that did not in the last audit, and the other way round."""
    now = {finding.fingerprint for _, finding in report.findings if finding.status == FAILING}
    before = set(last.fingerprints or ())
    return len(now - before), len(before - now)


def _who(report: Report) -> str:
    summary = report.summary
    versions = ", ".join(f"{name.removeprefix('pytest-')} {version}" for name, version in summary.versions[:2])
    who = f"<strong>{named(summary.who, 40)}</strong> on {named(summary.host, 40)}"
    return f"{who}, {safe(summary.read_at)}<br>{safe(versions)}"


def _grid(report: Report) -> str:
    """Severities by how findings end."""
    found = {each: Counter[str]() for each in SEVERITIES}
    last = report.summary.history[-1] if report.summary.history else None
    # What a baseline knows does not fail: beside one, all that fails is new.
    by_history = last is not None and last.fingerprints is not None and report.summary.baseline is None
    before = set(last.fingerprints or ()) if last and by_history else None
    compared = report.summary.baseline is not None or by_history
    for _, finding in report.findings:
        row = found.setdefault(finding.severity, Counter())
        row[finding.status] += 1
        if finding.status == FAILING:
            row["fixable"] += finding.fixable
            row["new"] += finding.fingerprint not in before if before is not None else 1
    for result in report.results:
        found.setdefault(result.severity, Counter())["not evaluated"] += bool(result.unevaluated)
        found[result.severity]["mended"] += result.fixed
    shown = [(FAILING, "failed"), ("fixable", "fixable"), ("new", "new"), (WAIVED, "waived")]
    shown += [(key, key) for key in (KNOWN, WARNING, "mended") if any(row[key] for row in found.values())]
    shown += [("not evaluated", "not evaluated")]
    rows = [
        [
            severity_mark(each),
            *(_number(each, key, found[each][key], told=key != "new" or compared) for key, _ in shown),
        ]
        for each in sorted(found, key=rank)
    ]
    return table(("severity", *(name for _, name in shown)), rows, "Findings by severity and outcome", "c-grid")


def _number(severity: str, key: str, number: int, *, told: bool) -> str:
    if not told:
        return '<td class="c-none" title="there is no baseline and no earlier audit to compare with">–</td>'
    if not number or key in ("new", "not evaluated", "mended"):
        return f'<td class="{"c-some" if number else "c-none"}">{number}</td>'
    status = f' data-status="{FAILING if key == "fixable" else key}"'
    fixable = ' data-fixable="yes"' if key == "fixable" else ""
    label = f' aria-label="{safe(f"show {number} {key} of severity {severity}")}"'
    to = f'href="#c-findings" data-severity="{safe(severity)}"{status}{fixable}'
    return f'<td class="c-some"><a {to}{label}>{number:,}</a></td>'


def _first(report: Report) -> str:
    """What to mend first: causes before what follows from them, then by severity and by how much they block."""
    groups = sorted(
        (group for group in groups_of(report) if group.status == FAILING),
        key=lambda group: (bool(group.follows), rank(group.worst), -len(group.blocks), -len(group.findings)),
    )
    if not groups:
        return f'<p class="c-calm">{"Nothing." if report.ok else "What could not be judged: see Evidence."}</p>'
    counts = report.counts
    items = "".join(map(_cause, groups[:_FIRST]))
    more = len(groups) - _FIRST
    total = several(sum(counts.failing.values()), "finding")
    lead = f"<code>pytest --fix</code> would mend {counts.fixable:,} of {total}." if counts.fixable else ""
    rest = f'<p><a href="#c-findings">and {several(more, "more cause")}</a></p>' if more > 0 else ""
    return f'<p class="c-lead">{lead}</p><ol class="c-first">{items}</ol>{rest}'


def _cause(group: Group) -> str:
    finding, policy = group.findings[0], safe(group.policy)
    blocks = f" It blocks {safe(', '.join(group.blocks))}." if group.blocks else ""
    one = f"{named(finding.entity, 80)}: {safe(finding.message, 140)}"
    return (
        f'<li>{severity_mark(group.severity)} <a href="#c-findings" data-rule="{policy}">{policy}</a> '
        f"<span>{one if len(group.findings) == 1 else named(group.sentence(), 240)}.{blocks}</span></li>"
    )
