"""Whether a report can be written where it is asked for: told before an audit that may take hours, not after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest


def refuse_unwritable_html(config: pytest.Config) -> None:
    """Raise UsageError where pytest-html could not write its page; it makes the folders that are not there."""
    given = getattr(config.option, "htmlpath", None)
    if given:
        reason = why_unwritable(Path.cwd() / Path(os.path.expandvars(given)).expanduser())
        if reason:
            raise pytest.UsageError(f"--html={given}: the report cannot be written there ({reason}); name another file")


def why_unwritable(path: Path) -> str:
    """Why a file cannot be written, folders on the way to it made where they are missing; empty where it can.
    Nothing is left of the try.
    """
    try:
        if path.is_dir():
            return f"{path} is a folder"
        if path.exists():
            with path.open("ab"):
                return ""
        above = next(folder for folder in path.parents if os.path.lexists(folder))
        if not above.is_dir():
            return f"{above} is no folder"
        with tempfile.TemporaryFile(dir=above):
            return ""
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}" if error.strerror else str(error)
