"""The report as JUnit XML: a suite for each rule, in it one for each check with what is known of it as properties.

The schema that CI servers follow knows properties of suites alone, so each check has a suite of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from mlflow_compliance.audit.results import SWITCHED_OFF
from mlflow_compliance.report.problems import LONGEST, STOPPED, problems_of
from mlflow_compliance.report.verdict import parts_of
from mlflow_compliance.safe_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_compliance.audit.results import Report, Result

_SKIPPED = ("not evaluated", "not applicable", SWITCHED_OFF)


def as_junit(report: Report) -> str:
    root = ET.Element("testsuites", {"name": "mlflow compliance", **_counts(report.results)})
    del root.attrib["skipped"]  # suites have it, their root has not
    by_rule: dict[str, list[Result]] = {}
    for result in report.results:
        by_rule.setdefault(result.policy, []).append(result)
    _verdict(root, report)
    for policy, results in sorted(by_rule.items()):
        suite = ET.SubElement(root, "testsuite", {"name": _safe(f"{policy} {results[0].title}"), **_counts(results)})
        _properties(suite, {"policy": [policy], "severity": [results[0].severity]})
        for result in results:
            _check(suite, result)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def facts_of(result: Result) -> Iterator[tuple[str, str]]:
    """What is known of a check, as names and values: one of each for a finding's own."""
    yield "policy", result.policy
    yield "severity", result.severity
    yield "outcome", result.outcome
    if result.entity:
        yield "entity", printable(result.entity)
    for finding in result.findings:
        yield "fingerprint", finding.fingerprint
    for name in ("status", "owner"):
        for value in dict.fromkeys(getattr(finding, name) for finding in result.findings):
            if value:
                yield name, printable(value)


def name_of(result: Result) -> str:
    """What a check is called where a person reads it."""
    return printable(f"{result.policy} {result.title}" + (f": {result.entity}" if result.entity else ""))


def _verdict(root: ET.Element, report: Report) -> None:
    """Whether the audit as a whole is no pass for a reason that no check tells."""
    stopped = [item for item in problems_of(report) if item.policy == STOPPED]
    unwell = [line.text for line in report.summary.repair if not line.ok]
    sentences = [*(item.text for item in stopped), *unwell]
    numbers = {"tests": "1", "failures": "0", "errors": str(min(len(sentences), 1)), "skipped": "0"}
    suite = ET.SubElement(root, "testsuite", {"name": "audit", **numbers})
    facts = {"verdict": ["   ".join(parts_of(report))], "store": [report.summary.uri], "read": [report.summary.read_at]}
    _properties(suite, {**facts, "partial": [report.summary.head[0]] if report.partial else []})
    case = ET.SubElement(suite, "testcase", classname="audit", name="the audit came to a verdict")
    if sentences:
        ET.SubElement(case, "error", message=_safe(sentences[0])).text = _safe("\n".join(sentences))
        root.set("errors", "1")
    root.set("tests", str(int(root.get("tests", "0")) + 1))


def _check(rule: ET.Element, result: Result) -> None:
    suite = ET.SubElement(rule, "testsuite", {"name": _safe(result.entity or result.title), **_counts([result])})
    facts: dict[str, list[str]] = {}
    for name, value in facts_of(result):
        facts.setdefault(name, []).append(value)
    _properties(suite, facts)
    case = ET.SubElement(suite, "testcase", classname=result.policy, name=_safe(name_of(result)))
    texts = [printable(item.text, LONGEST) for item in result.findings]
    texts += [printable(f"{item.entity}: {item.reason}", LONGEST) for item in result.unevaluated]
    if result.fails:
        ET.SubElement(
            case, "failure", type=result.severity, message=_safe(next(iter(texts), result.outcome))
        ).text = _safe("\n".join(texts))
    elif result.outcome in _SKIPPED:
        ET.SubElement(case, "skipped", message=_safe(next(iter(texts), result.reason or result.outcome)))
    told = [*(texts if not result.fails else []), *result.done, *result.notes]
    if told:
        ET.SubElement(case, "system-out").text = _safe("\n".join(printable(line, LONGEST) for line in told))


def _counts(results: list[Result] | tuple[Result, ...]) -> dict[str, str]:
    failures = sum(result.fails for result in results)
    skipped = sum(not result.fails and result.outcome in _SKIPPED for result in results)
    return {"tests": str(len(results)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}


def _properties(suite: ET.Element, facts: Mapping[str, list[str]]) -> None:
    made = ET.SubElement(suite, "properties")
    for name, values in facts.items():
        for value in filter(None, values):
            ET.SubElement(made, "property", name=name, value=_safe(value))


def _safe(text: str) -> str:
    """XML has no place for some characters, not even as an escape; lines stay lines."""
    return (
        "\n".join(printable(line, LONGEST) for line in text.split("\n")).replace("\ufffe", "?").replace("\uffff", "?")
    )
