"""The report as OSCAL: the results of an assessment, and a plan of action for what is open."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlflow_compliance.audit.results import SWITCHED_OFF, WAIVED
from mlflow_compliance.report.problems import problems_of
from mlflow_compliance.report.verdict import parts_of, verdict_of
from mlflow_compliance.safe_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.audit.results import Report
    from mlflow_compliance.report.problems import Problem

OSCAL = "1.1.2"
NAMESPACE = "https://github.com/pytest-mlflow-compliance/pytest-mlflow-compliance/ns/oscal"
"""Whose words the properties are."""
_ROOT = uuid.uuid5(uuid.NAMESPACE_URL, NAMESPACE)


def as_assessment_results(report: Report) -> str:
    made = _Assessment(report)
    result: dict[str, Any] = {
        "uuid": made.id("result"),
        "title": f"MLflow compliance: {verdict_of(report)}",
        "description": "   ".join(parts_of(report)),
        "start": made.moment,
        "props": list(made.props(ok=str(report.ok).lower(), partial=str(report.partial).lower())),
        "local-definitions": {"components": made.components(), **made.inventory()},
        "reviewed-controls": made.reviewed(),
        "observations": made.observations(),
        "risks": made.risks(),
        "findings": made.findings(),
    }
    document = {
        "uuid": made.id("assessment-results"),
        "metadata": made.metadata("Assessment results of an MLflow store"),
        "import-ap": {"href": f"#{made.id('plan')}"},
        "results": [_filled(result)],
        "back-matter": {"resources": [made.plan()]},
    }
    return _text({"assessment-results": document})


def as_poam(report: Report) -> str:
    """What is open or waived, an item each. OSCAL wants at least one: where nothing is open, it says that."""
    made = _Assessment(report)
    items = made.items() or [
        {
            "uuid": made.id("nothing"),
            "title": "Nothing is open",
            "description": f"The audit has no finding that is open or waived. {'   '.join(parts_of(report))}",
        }
    ]
    document = {
        "uuid": made.id("poam"),
        "metadata": made.metadata("Plan of action for an MLflow store"),
        "system-id": {"identifier-type": "https://ietf.org/rfc/rfc4122", "id": made.id("store")},
        "local-definitions": {"components": made.components(), **made.inventory()},
        "observations": made.observations(),
        "risks": made.risks(),
        "poam-items": items,
    }
    return _text({"plan-of-action-and-milestones": _filled(document)})


class _Assessment:
    """The parts that both documents have. The same report gives the same ids."""

    def __init__(self, report: Report) -> None:
        self.report, self.summary = report, report.summary
        self.problems = problems_of(report)
        self.moment = self.summary.moment or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def id(self, *words: str) -> str:
        """Of a thing in this audit."""
        return str(uuid.uuid5(_ROOT, "\0".join((self.summary.uri, self.moment, *words))))

    def props(self, **facts: str) -> Iterator[dict[str, str]]:
        """Facts that OSCAL has no field for; one without a value is left out."""
        for name, value in facts.items():
            shown = printable(value).strip()
            if shown:
                yield {"name": name.replace("_", "-"), "ns": NAMESPACE, "value": shown}

    def metadata(self, title: str) -> dict[str, Any]:
        facts = {name.replace(" ", "-"): version for name, version in self.summary.versions}
        props = list(self.props(**facts, host=self.summary.host, settings_sha256=self.summary.settings_sha256))
        made: dict[str, Any] = {
            "title": title,
            "last-modified": self.moment,
            "version": self.moment,
            "oscal-version": OSCAL,
            "props": props,
        }
        if self.summary.who:
            who = self.id("who")
            made["roles"] = [{"id": "assessor", "title": "Who ran the audit"}]
            made["parties"] = [{"uuid": who, "type": "person", "name": printable(self.summary.who)}]
            made["responsible-parties"] = [{"role-id": "assessor", "party-uuids": [who]}]
        return _filled(made)

    def plan(self) -> dict[str, Any]:
        rules = ", ".join(rule.id for rule in self.summary.rules) or "none"
        return {
            "uuid": self.id("plan"),
            "title": "The rules that were asked",
            "description": f"No assessment plan was written: the audit asks these rules of the whole store: {rules}.",
        }

    def components(self) -> list[dict[str, Any]]:
        """The store, and the program that looked at it."""
        uri = printable(self.summary.uri) or "a store that was not read"
        tool = "pytest-mlflow-compliance"
        return [
            {
                "uuid": self.id(name),
                "type": kind,
                "title": title,
                "description": described,
                "status": {"state": "operational"},
            }
            for name, kind, title, described in (
                ("store", "service", "MLflow store", uri),
                ("tool", "software", tool, "Policy as tests for MLflow stores."),
            )
        ]

    def inventory(self) -> dict[str, Any]:
        """What findings are about, each once."""
        entities = {item.entity: item for item in self.problems if item.entity}
        items = [
            _filled(
                {
                    "uuid": self.id("entity", entity),
                    "description": entity,
                    "props": list(self.props(kind=item.finding.kind, key=item.finding.key)) if item.finding else [],
                    "implemented-components": [{"component-uuid": self.id("store")}],
                }
            )
            for entity, item in entities.items()
        ]
        return {"inventory-items": items} if items else {}

    def reviewed(self) -> dict[str, Any]:
        selected: dict[str, Any] = {"include-controls": [{"control-id": rule} for rule in self.asked()]}
        return {"control-selections": [selected if self.asked() else {"include-all": {}}]}

    def observations(self) -> list[dict[str, Any]]:
        return [self._observation(problem) for problem in self.problems]

    def _observation(self, problem: Problem) -> dict[str, Any]:
        finding = problem.finding
        facts = {"policy": problem.policy, "severity": problem.severity, "status": problem.status}
        if finding is not None:
            names = ("code", "observed", "expected", "owner", "contact", "remedy", "advice")
            facts |= {name: getattr(finding, name) for name in names}
        kind = "inventory-item" if problem.entity else "component"
        about = self.id("entity", problem.entity) if problem.entity else self.id("store")
        return {
            "uuid": self.id("observation", problem.fingerprint),
            "title": f"{problem.policy} {problem.title}",
            "description": problem.text,
            "props": list(self.props(**facts, fingerprint=problem.fingerprint)),
            "methods": ["TEST"],
            "types": ["finding"] if problem.judged else ["discovery"],
            "origins": [{"actors": [{"type": "tool", "actor-uuid": self.id("tool")}]}],
            "subjects": [{"subject-uuid": about, "type": kind}],
            "collected": self.moment,
        }

    def risks(self) -> list[dict[str, Any]]:
        return [self._risk(problem) for problem in self.problems if problem.judged]

    def _risk(self, problem: Problem) -> dict[str, Any]:
        waiver = problem.finding.waiver if problem.finding else None
        origin = {"actors": [{"type": "tool", "actor-uuid": self.id("tool")}]}
        facet = {"name": "severity", "system": NAMESPACE, "value": problem.severity}
        made: dict[str, Any] = {
            "uuid": self.id("risk", problem.fingerprint),
            "title": f"{problem.policy} {problem.title}",
            "description": problem.text,
            "statement": f"{problem.title}: this does not hold.",
            "status": "deviation-approved" if problem.status == WAIVED else "open",
            "characterizations": [{"origin": origin, "facets": [facet]}],
            "related-observations": [{"observation-uuid": self.id("observation", problem.fingerprint)}],
        }
        if waiver is not None:
            facts = self.props(waived_because=waiver.reason, waived_by=waiver.owner, waived_until=waiver.expires)
            made["props"] = list(facts)
        return made

    def findings(self) -> list[dict[str, Any]]:
        """One a rule: whether what it asks for holds."""
        return [self._finding(policy) for policy in self.asked()]

    def asked(self) -> list[str]:
        return sorted({result.policy for result in self.report.results if result.outcome != SWITCHED_OFF})

    def _finding(self, policy: str) -> dict[str, Any]:
        results = list(self.report.of_rule(policy))
        own = [item for item in self.problems if item.policy == policy]
        holds = not own and not any(result.fails for result in results)
        outcomes = ", ".join(sorted({result.outcome for result in results}))
        return _filled(
            {
                "uuid": self.id("finding", policy),
                "title": printable(f"{policy} {results[0].title}"),
                "description": f"Checks of this rule ended: {outcomes}.",
                "target": {
                    "type": "objective-id",
                    "target-id": policy,
                    "status": {"state": "satisfied" if holds else "not-satisfied", "remarks": outcomes},
                },
                "related-observations": [
                    {"observation-uuid": self.id("observation", item.fingerprint)} for item in own
                ],
                "related-risks": [{"risk-uuid": self.id("risk", item.fingerprint)} for item in own if item.judged],
            }
        )

    def items(self) -> list[dict[str, Any]]:
        return [
            _filled(
                {
                    "uuid": self.id("item", item.fingerprint),
                    "title": f"{item.policy} {item.title}",
                    "description": item.text,
                    "props": list(self.props(severity=item.severity, status=item.status, **_answers(item))),
                    "related-observations": [{"observation-uuid": self.id("observation", item.fingerprint)}],
                    "related-risks": [{"risk-uuid": self.id("risk", item.fingerprint)}] if item.judged else [],
                }
            )
            for item in self.problems
        ]


def _answers(problem: Problem) -> dict[str, str]:
    """Who answers for it, and what can be done."""
    finding = problem.finding
    if finding is None:
        return {}
    return {"owner": finding.owner, "contact": finding.contact, "remedy": finding.remedy, "advice": finding.advice}


def _filled(facts: dict[str, Any]) -> dict[str, Any]:
    """Without empty lists: OSCAL has no place for them."""
    return {name: value for name, value in facts.items() if value != []}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"
