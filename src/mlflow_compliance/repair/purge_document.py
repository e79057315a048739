"""The plan of a purge as a document that a person reads before anything is destroyed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from mlflow_compliance.repair.plan_document import FAMILY, Made, Part, StoreFacts, clean, sealed

PURGE_ID = f"{FAMILY}purge:1"


class PurgedFile(Part):
    """One file that goes; `path` relative to the folder of its thing."""

    path: str
    size: int
    sha256: str


class PurgeItem(Part):
    """One run, logged model or thing in a quarantine that goes, with all that is worth knowing of it afterwards."""

    kind: Literal["run", "logged_model", "quarantined"]
    key: str
    label: str
    experiment: str = Field(description="id of its experiment, empty for what lies in a quarantine")
    place: str = Field(description="the folder, or file, on the machine that made the plan; empty where it has none")
    deleted_at: int = Field(description="in milliseconds")
    by: str = Field(description="the journal of the repair that retired it, took it back or put it aside")
    because: str = Field(description="what lets it go")
    files: list[PurgedFile]
    freed: int = Field(description="bytes that no other name of the same file holds")
    row: dict[str, Any] = Field(description="params, metrics, tags and times of a run")


class KeptItem(Part):
    """What this program retired and does not purge, and why."""

    kind: str
    key: str
    why: str


class PurgeSummary(Part):
    """The plan for people; nothing is read from it."""

    things: int
    files: int
    bytes: int
    lines: list[str]


class PurgePlan(Part):
    """The plan of a purge: what --fix-purge --fix-dry-run found, and --fix-purge --fix-plan destroys for good."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, title="Plan of a purge")

    summary: PurgeSummary
    schema_id: Literal["urn:mlflow-compliance:plan:purge:1"] = Field(alias="schema")
    made: Made
    versions: dict[str, str]
    store: StoreFacts
    settings: str = Field(description="SHA-256 of the settings in force")
    items: list[PurgeItem]
    kept: list[KeptItem]
    plan: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of all but summary, made, plan and sha256")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of all but itself, as canonical JSON")


def purge_document(
    items: Sequence[PurgeItem],
    kept: Sequence[KeptItem],
    made: Made,
    versions: Mapping[str, str],
    store: StoreFacts,
    settings: str,
) -> dict[str, Any]:
    """The document as JSON values, with its hashes."""
    summary = PurgeSummary(
        things=len(items),
        files=sum(len(item.files) for item in items),
        bytes=sum(item.freed for item in items),
        lines=[clean(line) for line in lines_of(items, kept)],
    )
    told = {
        "summary": summary,
        "schema": PURGE_ID,
        "made": made,
        "versions": dict(sorted(versions.items())),
        "store": store,
        "settings": settings,
        "items": list(items),
        "kept": list(kept),
    }
    return sealed(told)


def lines_of(items: Sequence[PurgeItem], kept: Sequence[KeptItem]) -> list[str]:
    """What goes and what stays, in lines for people."""
    lines = [f"{word_of(item)}: {_content(item)}; {item.because}" for item in items]
    return [*lines, *(f"stays: {item.kind.replace('_', ' ')} {item.key}: {item.why}" for item in kept)]


def _content(item: PurgeItem) -> str:
    return f"{len(item.files)} file{'s' * (len(item.files) != 1)}, frees {item.freed} bytes"


def word_of(item: PurgeItem) -> str:
    """An item as people read it."""
    name = f" {item.label!r}" if item.label else ""
    home = f" of experiment {item.experiment}" if item.experiment else ""
    return f"{item.kind.replace('_', ' ')} {item.key}{name}{home}"
