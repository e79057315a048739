"""The report as SARIF 2.1.0, as code scanning reads it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlflow_compliance.audit.results import KNOWN, WAIVED, WARNING
from mlflow_compliance.report.problems import STOPPED, place_of, problems_of
from mlflow_compliance.report.verdict import parts_of
from mlflow_compliance.safe_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow_compliance.audit.results import Report
    from mlflow_compliance.report.problems import Problem

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
HOME = "https://github.com/pytest-mlflow-compliance/pytest-mlflow-compliance"
FINGERPRINT = "mlflowCompliance/v1"
LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}
_KINDS = {"critical": "error", "high": "error", "medium": "warning", "low": "recommendation"}
"""What GitHub calls the severity of a rule that is not about security."""
_PROGRAM = "pytest-mlflow-compliance"


def as_sarif(report: Report) -> str:
    found = problems_of(report)
    problems = [item for item in found if item.policy != STOPPED]
    stopped = [item.text for item in found if item.policy == STOPPED]
    rules = _rules(report, problems)
    numbers = {rule["id"]: number for number, rule in enumerate(rules)}
    driver = {"name": _PROGRAM, "informationUri": HOME, "rules": rules}
    version = dict(report.summary.versions).get(_PROGRAM)
    if version:
        driver["version"] = version
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "invocations": [_invocation(report, stopped)],
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "the folder that the audit was started in"}}},
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": "   ".join(parts_of(report)),
            "ok": report.ok,
            "partial": report.partial,
            "store": report.summary.uri,
            "settingsSha256": report.summary.settings_sha256,
        },
    }
    # An empty list says that nothing is wrong, and whoever keeps alerts closes them: what did not look has no list.
    if not stopped:
        run["results"] = [_result(problem, numbers, report) for problem in problems]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _rules(report: Report, problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Those that were collected, and those that only a result names."""
    found: dict[str, dict[str, Any]] = {}
    for rule in report.summary.rules:
        found[rule.id] = _rule(rule.id, rule.title, rule.severity, rule.advice, rule.clauses, enabled=rule.enabled)
    for item in problems:
        found.setdefault(item.policy, _rule(item.policy, item.title, item.severity))
    return [found[key] for key in sorted(found)]


def _rule(
    key: str, title: str, severity: str, advice: str = "", clauses: tuple[str, ...] = (), *, enabled: bool = True
) -> dict[str, Any]:
    help_text = [f"{title}."]
    help_text += [f"What you can do: {advice}."] if advice else []
    help_text += [f"Evidence for: {', '.join(clauses)}."] if clauses else []
    help_text.append(f"More: pytest --pyargs mlflow_compliance.policies --compliance-explain={key}")
    return {
        "id": key,
        "name": "".join(word.capitalize() for word in printable(title).split()),
        "shortDescription": {"text": printable(title)},
        "fullDescription": {"text": printable(title)},
        "help": {"text": "\n".join(map(printable, help_text))},
        "defaultConfiguration": {"level": LEVELS[severity], "enabled": enabled},
        "properties": {"problem.severity": _KINDS[severity], "tags": ["mlflow", severity, *clauses]},
    }


def _result(problem: Problem, numbers: dict[str, int], report: Report) -> dict[str, Any]:
    level = "warning" if problem.status == WARNING and LEVELS[problem.severity] == "error" else LEVELS[problem.severity]
    result: dict[str, Any] = {
        "ruleId": problem.policy,
        "ruleIndex": numbers[problem.policy],
        # What could not be judged is neither a failure nor a pass.
        "kind": "fail" if problem.judged else "open",
        "level": level if problem.judged else "none",
        "message": {"text": _plain(problem.text)},
        "locations": [_location(problem, report)],
        # The second name is the one that GitHub compares by.
        "partialFingerprints": {
            FINGERPRINT: problem.fingerprint,
            "primaryLocationLineHash": f"{problem.fingerprint}:1",
        },
        "suppressions": _suppressions(problem),
        "properties": _properties(problem),
    }
    if report.summary.baseline is not None and problem.judged and problem.status != WAIVED:
        result["baselineState"] = "unchanged" if problem.status == KNOWN else "new"
    return result


def _plain(text: str) -> str:
    """A message may hold links; one that somebody wrote into a name stays text."""
    return text.replace("](", "] (")


def _location(problem: Problem, report: Report) -> dict[str, Any]:
    """A store has no files and lines: the entity is a logical place, and the settings that it is held to are where a
    reader can go.
    """
    file, line = place_of(problem, report)
    artifact = {"uri": f"file://{quote(file)}"} if os.path.isabs(file) else {"uri": quote(file), "uriBaseId": "SRCROOT"}
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}
    finding = problem.finding
    if problem.entity:
        logical = {
            "name": printable((finding and finding.name) or problem.entity),
            "fullyQualifiedName": problem.entity,
        }
        if finding and finding.kind:
            logical["kind"] = finding.kind
            logical["fullyQualifiedName"] = printable(f"{finding.kind}:{finding.key}")
        location["logicalLocations"] = [logical]
    return location


def _suppressions(problem: Problem) -> list[dict[str, str]]:
    if problem.status != WAIVED:
        return []
    waiver = problem.finding.waiver if problem.finding else None
    why = f"{waiver.reason} ({waiver.owner}, until {waiver.expires})" if waiver else "waived in the settings"
    return [{"kind": "external", "status": "accepted", "justification": printable(why)}]


def _properties(problem: Problem) -> dict[str, Any]:
    facts: dict[str, Any] = {"severity": problem.severity, "status": problem.status}
    finding, result = problem.finding, problem.result
    if finding is not None:
        names = ("code", "entity", "experiment", "owner", "contact", "observed", "expected", "remedy", "advice")
        facts |= {name: printable(value) for name in names if (value := getattr(finding, name))}
        facts["fixable"] = finding.fixable
    if result is not None and result.nodeid:
        facts["check"] = printable(result.nodeid)
    return facts


def _invocation(report: Report, stopped: Sequence[str]) -> dict[str, Any]:
    """Whether there is a verdict at all, and what was said of the audit as a whole."""
    summary = report.summary
    told = [("error", text) for text in stopped]
    told += [("note" if line.ok else "error", line.text) for line in summary.repair]
    told += [("warning", text) for text in summary.warnings]
    made: dict[str, Any] = {
        "executionSuccessful": not stopped,
        "toolExecutionNotifications": [
            {"level": level, "message": {"text": _plain(printable(text))}} for level, text in told
        ],
    }
    made |= {"endTimeUtc": summary.moment} if summary.moment else {}
    made |= {"account": summary.who} if summary.who else {}
    made |= {"machine": summary.host} if summary.host else {}
    return made
