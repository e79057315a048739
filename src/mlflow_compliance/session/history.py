"""Keeps the report of each audit in the folder that `[history] folder` names, a file an audit."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.collection import new_audit
from mlflow_compliance.session.reports import tell_error
from mlflow_compliance.session.state import audit_of

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import Report

KEPT: pytest.StashKey[str] = pytest.StashKey()
"""The file of this audit."""


def keep(report: Report, session: pytest.Session) -> None:
    """Put the report of an audit that came to its end among those of earlier ones. Where that fails it is told."""
    config = session.config
    if hasattr(config, "workerinput") or report.summary.stopped or not report.results:
        return
    try:
        # The controller of pytest-xdist has no audit: it reads the settings for itself.
        settings = (audit_of(config) or new_audit(config)).settings
        folder = settings.history.resolved_folder(settings.base)
        if folder is not None:
            config.stash[KEPT] = _kept(report, folder)
    except ComplianceError as error:
        tell_error(session, f"[history] folder: {error}")


def _kept(report: Report, folder: str) -> str:
    """Write under a name that is free, whole or not at all; what is there stays."""
    from mlflow_compliance.audit.history import name_of
    from mlflow_compliance.report.json_report import as_json
    from mlflow_compliance.report.verdict import verdict_of
    from mlflow_compliance.store.storage.atomic_write import create, explained, staged, write_bytes

    # Each file tells of its own audit; with all that came before in each they would grow without end.
    data = as_json(replace(report, summary=replace(report.summary, history=()))).encode()
    with explained(folder, "could not be written to"):
        os.makedirs(folder, exist_ok=True)
        with staged(os.path.join(folder, "audit.json")) as temporary:
            with create(temporary) as file:
                write_bytes(file, data)
            number = 0
            while True:
                number += 1
                path = os.path.join(folder, name_of(report, verdict_of(report), number))
                with suppress(FileExistsError):
                    os.link(temporary, path)
                    return path
