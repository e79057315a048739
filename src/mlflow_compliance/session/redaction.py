"""Cuts what is secret out of what pytest itself is going to show of a policy: tracebacks, captured output, warnings."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import TYPE_CHECKING, Any

from mlflow_compliance.safe_text import without_secrets

if TYPE_CHECKING:
    import warnings

    import pytest


def cut_report(report: pytest.TestReport) -> None:
    """A check that crashes, or prints, may quote what it read."""
    report.sections = [(name, without_secrets(text)) for name, text in report.sections]
    told: Any = report.longrepr
    if isinstance(told, str):
        report.longrepr = without_secrets(told)
    elif isinstance(told, tuple):
        report.longrepr = (told[0], told[1], without_secrets(told[2]))
    elif told is not None:
        for part in _parts_of(told):
            _cut(part)


def cut_warning(warning: warnings.WarningMessage) -> None:
    """A library may warn of a URI that it was given."""
    said = str(warning.message)
    safe = without_secrets(said)
    if safe != said:
        warning.message = UserWarning(safe)
        warning.category = UserWarning


def _parts_of(told: Any) -> Iterator[Any]:
    """The pieces of a failure as pytest draws it: of each exception of a chain the place, the frames, their
    arguments and variables.
    """
    if hasattr(told, "sections"):
        told.sections = [(name, without_secrets(text), sign) for name, text, sign in told.sections]
    for traceback, place, _ in getattr(told, "chain", None) or [
        (getattr(told, "reprtraceback", None), getattr(told, "reprcrash", None), None)
    ]:
        yield place
        for frame in getattr(traceback, "reprentries", ()):
            yield from (frame, getattr(frame, "reprlocals", None))
            arguments = getattr(frame, "reprfuncargs", None)
            if arguments is not None:
                arguments.args = [(name, without_secrets(text)) for name, text in arguments.args]


def _cut(part: Any) -> None:
    if isinstance(getattr(part, "message", None), str):
        part.message = without_secrets(part.message)
    if isinstance(getattr(part, "lines", None), MutableSequence):
        part.lines[:] = [without_secrets(line) for line in part.lines]
