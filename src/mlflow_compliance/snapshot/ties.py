"""Ties between entities that a Snapshot does not hold in full: what reads, names or is at work for a run, a model
or an experiment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlflow_compliance.snapshot.entities import ModelVersion
    from mlflow_compliance.snapshot.refs import EntityRef

_ID = re.compile(r"(?<![0-9a-zA-Z])(?:m-)?[0-9a-f]{32}(?![0-9a-zA-Z])")


class How(str, Enum):
    """What the source of a tie has to do with its target. The values are what people call it."""

    CHILD = "child runs"
    """The source is a run that names the target as its parent."""
    PARENT = "parents at work"
    """The source is a run at work that the target, a run that is deleted, names as its parent. Asked for what is to be
    destroyed alone.
    """
    TRACE = "traces"
    """Traces of the source's experiment were logged for the target, a run or an experiment."""
    MADE = "logged models"
    """The source is a logged model that the target, a run, is making; or one that is not ready yet, in the target,
    an experiment.
    """
    WRITTEN_BY = "models' runs"
    """The source is a logged model that was written by the target, a run."""
    USED = "models that runs read or wrote"
    """The source is a run that read or wrote the target, a logged model."""
    VERSION = "model versions"
    """The source is a version that names the target, a run or logged model, in its source or location."""
    DATASET = "evaluation datasets"
    PROMPT = "prompts"
    ENDPOINT = "gateway endpoints"
    SCORER = "scorers"
    """These four belong to the target, an experiment."""


class Tie(NamedTuple):
    """One tie. `at` is the latest time that the source's rows are dated, in milliseconds; 0 where that does not
    matter.
    """

    how: How
    source: EntityRef
    target: EntityRef
    experiment_id: str = ""
    """Of the source; empty where it lies in none."""
    home: str = ""
    """The experiment that the target is or lies in."""
    at: int = 0


def ids_in(version: ModelVersion) -> tuple[str, ...]:
    """The ids of runs and logged models that a version names: its run, and those in its source and its location."""
    found = [version.run_id or "", *_ID.findall(version.source), *_ID.findall(version.location)]
    return tuple(dict.fromkeys(filter(None, found)))


def is_model(key: str) -> bool:
    """Whether an id in a version is that of a logged model; else it is a run's."""
    return key.startswith("m-")


def sources_of(version: ModelVersion) -> tuple[str, ...]:
    """The ids that a version names as where it comes from: its run, and the logged model or run in its source."""
    scheme, _, rest = version.source.partition(":/")
    named = rest.strip("/").split("/")[0] if scheme == "runs" or rest.startswith("m-") else ""
    return tuple(key for key in (version.run_id or "", named) if key)


def named_in(version: ModelVersion) -> tuple[str, ...]:
    """Every id that a version names, those that it surely comes from first."""
    return tuple(dict.fromkeys((*sources_of(version), *ids_in(version))))


def prompt_homes(value: str) -> list[str]:
    """The ids of experiments in the tag by which a prompt is linked to them (`,1,2,`)."""
    return [key for part in value.split(",") if (key := part.strip())]


def in_order(ties: Iterable[Tie]) -> tuple[Tie, ...]:
    """Every tie once, in the order that all readers bring them in."""
    return tuple(sorted(set(ties)))
