"""What was begun and not brought to its end: logged models and versions that are half made, traces in progress, files
of traces without a row.
"""

from __future__ import annotations

from typing import NamedTuple

from mlflow_compliance.snapshot.refs import EntityRef

HALF_MADE_MODEL = frozenset({"PENDING", "FAILED"})
"""Statuses of a logged model that is not READY."""
HALF_MADE_VERSION = frozenset({"PENDING_REGISTRATION", "FAILED_REGISTRATION"})
"""The same of a version of a registered model."""
IN_PROGRESS = "IN_PROGRESS"
"""Status of a trace that was not ended."""


class HalfMade(NamedTuple):
    """An active logged model, or a version, whose row does not say READY."""

    ref: EntityRef
    status: str
    at: int
    """The latest time that its row is dated, in milliseconds; 0 where it is not."""
    experiment_id: str = ""
    """Of a logged model."""
    run_id: str = ""
    """The run that is making a logged model, empty where none is named."""


class OpenTraces(NamedTuple):
    """The traces of one experiment that have been in progress for longer than the settings take for alive."""

    experiment_id: str
    number: int
    oldest: int
    """When the first of them began, in milliseconds."""
    example: str


class LostTraces(NamedTuple):
    """Folders of traces, in that of one experiment, whose traces have no row."""

    experiment_id: str
    folder: str
    """Path of what holds them."""
    ids: tuple[str, ...]
    """Their names, sorted."""
    files: int
    size: int
    unknown: str = ""
    """Why it is not known whether a row means them; empty where none does."""
