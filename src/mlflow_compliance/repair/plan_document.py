"""A plan as a document that people review and a later repair carries out: its form, and its hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlflow_compliance.changes import Change
from mlflow_compliance.repair.journal import host_name, user_name
from mlflow_compliance.repair.plan import Plan
from mlflow_compliance.repair.totals import totals
from mlflow_compliance.rules.finding import Finding
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot

FAMILY = "urn:mlflow-compliance:plan:"
SCHEMA_ID = f"{FAMILY}1"
_FIRST = 5
"""Experiments that tell a store from another one: the oldest."""
_ASIDE = {"summary", "made", "plan", "sha256"}
"""What two plans of the same store may differ in."""


class Part(BaseModel):
    """Part of the document; nothing else stands in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Summary(Part):
    """The plan for people; nothing is read from it."""

    totals: str
    changes: int
    entities: int
    left: int = Field(description="findings that stay")
    lines: list[str] = Field(description="as the terminal shows it")


class Made(Part):
    """When, by whom and where it was made."""

    at: str
    by: str
    host: str

    @classmethod
    def now(cls) -> Made:
        """Here and now, by whoever runs this."""
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(at=at, by=user_name(), host=host_name())


class StoreFacts(Part):
    """What tells the store from another one."""

    uri: str = Field(description="without credentials; that of a file on its real path")
    backend: str
    database_schema: str = Field(description="revision, empty where there is none")
    workspace: str
    experiments: dict[str, int] = Field(
        description="the oldest experiments: id -> time of creation in milliseconds, 0 where it is not known"
    )


class Asked(Part):
    """What was asked for on the command line."""

    rules: list[str] = Field(description="--compliance-rules, empty for every rule")
    safe_alone: bool = Field(description="--fix-safe")
    not_asked: list[str] = Field(description="ids of rules that were not asked, or not of everything")


class Entity(Part):
    """An experiment, a run, a file, ..."""

    kind: str
    key: str
    label: str

    @classmethod
    def of(cls, ref: EntityRef) -> Entity:
        return cls(kind=ref.kind, key=clean(ref.key), label=clean(ref.label))


class PlannedFinding(Part):
    """What is wrong."""

    policy: str
    code: str
    entity: Entity
    message: str
    fingerprint: str

    @classmethod
    def of(cls, found: Finding) -> PlannedFinding:
        return cls(
            policy=found.policy,
            code=found.code,
            entity=Entity.of(found.entity),
            message=clean(found.message),
            fingerprint=found.fingerprint,
        )


class PlannedChange(Part):
    """One change."""

    applicability: Literal["safe", "reversible"]
    says: str
    change: dict[str, Any] = Field(
        description="kind and values, without those that are made anew when it is planned again"
    )


class PlannedStep(Part):
    """A finding and the changes that mend it, in order."""

    finding: PlannedFinding
    follows: bool = Field(description="whether the finding only comes up when earlier steps are done")
    changes: list[PlannedChange]


class Left(Part):
    """A finding that stays, with advice or the reason."""

    finding: PlannedFinding
    applicability: Literal["advice"] = "advice"
    reason: str


class NotEvaluated(Part):
    """What a rule could not judge."""

    policy: str
    entity: Entity
    code: str


class SavedPlan(Part):
    """A plan of pytest-mlflow-compliance: what --fix-dry-run planned and --fix carries out."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, title="Plan of a repair")

    summary: Summary
    schema_id: Literal["urn:mlflow-compliance:plan:1"] = Field(alias="schema")
    made: Made
    versions: dict[str, str]
    store: StoreFacts
    settings: str = Field(description="SHA-256 of the settings in force")
    asked: Asked
    steps: list[PlannedStep]
    left: list[Left]
    not_evaluated: list[NotEvaluated]
    plan: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of what it does: of all but summary, made, plan and sha256; the journal names it",
    )
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of all but itself, as canonical JSON")

    @property
    def changes(self) -> list[PlannedChange]:
        return [change for step in self.steps for change in step.changes]


def facts_of(snapshot: Snapshot, home: str) -> StoreFacts:
    """What tells the store of a snapshot from another one; `home` is the folder that it lies in, '' for none."""
    oldest = sorted((found.created, key) for key, found in snapshot.experiments.items())[:_FIRST]
    info = snapshot.info
    scheme, name = info.uri.partition(":")[0], info.uri.rpartition("/")[2]
    slashes = "///" if scheme.startswith("sqlite") else "//"
    return StoreFacts(
        # A relative path means another store in another working folder.
        uri=f"{scheme}:{slashes}{home}/{name}" if home else info.uri,
        backend=info.backend,
        database_schema=info.schema,
        workspace=info.workspace,
        experiments={key: created for created, key in oldest},
    )


def document_of(
    plan: Plan, made: Made, versions: Mapping[str, str], store: StoreFacts, settings: str, asked: Asked
) -> dict[str, Any]:
    """The document of a plan as JSON values, with its hashes."""
    told = {
        "summary": Summary(
            totals=totals(plan.changes, plan.start),
            changes=len(plan.changes),
            entities=len(plan.entities),
            left=len(plan.unfixed),
            lines=[clean(line) for line in plan.lines()],
        ),
        "schema": SCHEMA_ID,
        "made": made,
        "versions": dict(sorted(versions.items())),
        "store": store,
        "settings": settings,
        "asked": asked,
        "steps": [
            PlannedStep(
                finding=PlannedFinding.of(step.finding),
                follows=step.follows,
                changes=[planned(change) for change in step.changes],
            )
            for step in plan.steps
        ],
        "left": [Left(finding=PlannedFinding.of(item.finding), reason=clean(item.reason)) for item in plan.unfixed],
        "not_evaluated": [
            NotEvaluated(policy=item.policy, entity=Entity.of(item.entity), code=item.code) for item in plan.not_judged
        ],
    }
    return sealed(told)


def sealed(told: Mapping[str, Any]) -> dict[str, Any]:
    """A document as JSON values, with its hashes."""
    document = {name: plain(value) for name, value in told.items()}
    document["plan"] = hash_of_plan(document)
    document["sha256"] = hash_of(document)
    return document


def planned(change: Change) -> PlannedChange:
    """A change as the document holds it."""
    return PlannedChange(
        applicability=change.applicability.value, says=clean(change.describe()), change=change.lasting()
    )


def key_of(values: Mapping[str, Any]) -> str:
    """The same text for the same change; `values` are those of `Change.lasting`."""
    return json.dumps(values, sort_keys=True)


def hash_of(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_whole(document: Mapping[str, Any]) -> bool:
    """Whether a document is as it was written, by both of its hashes."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return (document.get("sha256"), document.get("plan")) == (hash_of(rest), hash_of_plan(document))


def hash_of_plan(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what a plan does: of all but who made it, how it is told, and the hashes themselves."""
    return hash_of({name: value for name, value in document.items() if name not in _ASIDE})


def as_text(document: Mapping[str, Any]) -> str:
    """As it is written to a file. What could steer a terminal, or hide from a reader, is escaped."""
    lines = json.dumps(document, indent=2, ensure_ascii=False).split("\n")
    return "".join(f"{line if line.isprintable() else ''.join(map(_visible, line))}\n" for line in lines)


def _visible(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1]


def clean(text: str) -> str:
    """A text that a store brought along, without secrets; names of files may hold bytes that are no text."""
    return without_secrets(text).encode(errors="backslashreplace").decode()


def plain(value: object) -> Any:
    """A value as JSON values alone, so that a hash is the same before and after a way through a file."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return json.loads(json.dumps(value.model_dump() if isinstance(value, BaseModel) else value))
