"""Signs the files of a report when they are complete: a detached signature beside each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.collection import new_audit
from mlflow_compliance.session.history import KEPT
from mlflow_compliance.session.reports import files_of, tell_error
from mlflow_compliance.session.state import REPORT, audit_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def sign_reports(session: pytest.Session) -> None:
    """Sign what pytest-html, JUnit and this plugin wrote, where the settings name a key. Where that fails the run is
    no success.
    """
    config = session.config
    if hasattr(config, "workerinput") or REPORT not in config.stash:
        return
    try:
        # The controller of pytest-xdist has no audit: it reads the settings for itself.
        audit = audit_of(config) or new_audit(config)
        paths = [*_reports(config), *files_of(session)]
        if paths:
            from mlflow_compliance.audit.signing import sign_files

            sign_files(paths, audit.settings)
    except ComplianceError as error:
        tell_error(session, str(error))


def _reports(config: pytest.Config) -> Iterator[str]:
    """The files that were written for people, for CI and for later audits."""
    from _pytest.junitxml import xml_key

    html = getattr(config.option, "htmlpath", None)
    if html:  # as pytest-html reads it
        yield os.path.join(config.invocation_params.dir, os.path.expanduser(os.path.expandvars(html)))
    xml = config.stash.get(xml_key, None)
    if xml is not None:
        yield xml.logfile
    if KEPT in config.stash:
        yield config.stash[KEPT]
