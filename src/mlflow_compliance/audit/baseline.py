"""Baselines: the findings that a store had on the day when somebody began to hold it to the rules, in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_compliance.audit.plan_files import document_in, write_document
from mlflow_compliance.errors import BaselineError, ChangeError, PlanError
from mlflow_compliance.safe_text import first_of
from mlflow_compliance.settings.errors import shown_path

FAMILY = "urn:mlflow-compliance:baseline:"
SCHEMA_ID = f"{FAMILY}1"
WRITE = "--compliance-baseline-write"
_FEW = 3
"""Experiments in one line."""


class Part(BaseModel):
    """Part of the document; nothing else stands in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Entry(Part):
    """A finding. The fingerprint says which it is, the rest is for people."""

    policy: str
    entity: str
    code: str
    message: str
    fingerprint: str = Field(pattern="^[0-9a-f]{16}$")


class _Document(Part):
    schema_id: Literal["urn:mlflow-compliance:baseline:1"] = Field(alias="schema")
    experiments: dict[str, int]
    findings: list[Entry]


@dataclass(frozen=True)
class Baseline:
    """What is known of a store."""

    path: Path
    experiments: Mapping[str, int] = field(default_factory=dict)
    """The oldest ones, id -> time of creation in milliseconds: a store made anew has other things under these ids."""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    """By fingerprint."""

    @property
    def file(self) -> str:
        """The file as people read it."""
        return shown_path(self.path)

    def of_another_store(self, experiments: Mapping[str, int]) -> str:
        """Why it cannot be about a store with these experiments, empty where it can."""
        there = {key: created for key, created in self.experiments.items() if key in experiments}
        others = [key for key, created in there.items() if experiments[key] != created]
        if others:
            return f"experiment {first_of(others, _FEW)} was made at another time here"
        return "none of its experiments is here" if self.experiments and not there else ""


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file. Raises BaselineError with one sentence for anything else."""
    name = shown_path(path)
    way = f"write one with {WRITE}={name}"
    try:
        document = document_in(path)
    except FileNotFoundError:
        raise BaselineError(f"there is no baseline {name}: {way}") from None
    except OSError as error:
        raise BaselineError(f"the baseline {name} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise BaselineError(f"the baseline {name} {error}: move it away and {way}") from None
    schema = document.get("schema")
    if not isinstance(schema, str) or not schema.startswith(FAMILY):
        raise BaselineError(f"{name} is no baseline: {way}, under another name where that file is needed")
    if schema != SCHEMA_ID:
        raise BaselineError(f"{name} is a baseline of another version ({schema}, here {SCHEMA_ID}): {way}")
    try:
        found = _Document.model_validate(document)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        raise BaselineError(
            f"{name} is no baseline that this version can read (at {where or 'its top'}): move it away and {way}"
        ) from None
    return Baseline(path, found.experiments, {entry.fingerprint: entry for entry in found.findings})


def refuse_to_replace(path: Path) -> None:
    """Raise BaselineError where a baseline cannot be written to a file: something else lies there, or its folder does
    not.
    """
    if os.path.lexists(path):
        try:
            read_baseline(path)
        except BaselineError as error:
            raise BaselineError(f"{error}; nothing is written over it") from None
    elif not path.parent.is_dir():
        raise BaselineError(f"there is no folder {shown_path(path.parent)} to write the baseline to: make it first")
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        raise BaselineError(f"the baseline cannot be written to {shown_path(path.parent)}: name another folder for it")


def write_baseline(path: Path, experiments: Mapping[str, int], entries: Iterable[Entry]) -> None:
    """Write a baseline as a whole, in the place of an older one where one lies there. Raises BaselineError."""
    refuse_to_replace(path)
    unique = {entry.fingerprint: entry for entry in entries}.values()
    document: dict[str, Any] = {
        "schema": SCHEMA_ID,
        "experiments": dict(sorted(experiments.items())),
        "findings": [entry.model_dump() for entry in sorted(unique, key=_order)],
    }
    try:
        write_document(path, document)
    except (ChangeError, PlanError) as error:
        raise BaselineError(str(error)) from error


def _order(entry: Entry) -> tuple[str, str, str, str]:
    return entry.policy, entry.entity, entry.code, entry.fingerprint
