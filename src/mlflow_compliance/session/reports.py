"""Writes the report in the formats that --compliance-report asks for."""

from __future__ import annotations

import errno
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import ComplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.audit.results import Report

STDOUT = "-"
BEGUN = "the audit did not come to its end: this file was written when it began"
_IN_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
"""Why nothing can be put beside a file, or in its place, that can itself be written all the same."""


def asked_in(given: tuple[str, ...], folder: Path) -> list[tuple[str, Path | None]]:
    """Format and file of each --compliance-report, None for the standard output. Raises ComplianceError where one
    says nothing that can be done.
    """
    from mlflow_compliance.report.formats import writer_of

    found: list[tuple[str, Path | None]] = []
    for text in given:
        name, _, file = text.partition(":")
        if not file.strip():
            raise ComplianceError(f"--compliance-report takes FORMAT:FILE, such as json:audit.json, not {text!r}")
        writer_of(name)
        path = None if file == STDOUT else folder / Path(file).expanduser()
        if path is not None and not path.parent.is_dir():
            raise ComplianceError(f"--compliance-report={text}: there is no folder {path.parent}; make it first")
        if path is not None and path.is_dir():
            raise ComplianceError(f"--compliance-report={text}: {path} is a folder; name a file in it")
        if path is not None and path in [other for _, other in found]:
            raise ComplianceError(f"--compliance-report={text}: another report goes to that file; name another one")
        found.append((name, path))
    return found


def _asked(session: pytest.Session) -> list[tuple[str, Path | None]]:
    """What is to be written by this process: nothing by a worker of pytest-xdist, whose controller has all results,
    and nothing where no check is going to run.
    """
    option = session.config.option
    idle = option.collectonly or getattr(option, "showfixtures", False) or getattr(option, "show_fixtures_per_test", 0)
    if idle or not option.compliance_report or hasattr(session.config, "workerinput"):
        return []
    return asked_in(tuple(option.compliance_report), session.config.invocation_params.dir)


def files_of(session: pytest.Session) -> Iterator[str]:
    """The regular files that were asked for."""
    for _, path in _asked(session):
        if path is not None and path.is_file():
            yield str(path)


def begin_reports(session: pytest.Session) -> None:
    """Write that there is no verdict yet, before anything is read: a file that cannot be written stops the session
    here, and an audit that is killed leaves no older report that reads like its own.
    """
    asked = _asked(session)
    if not asked:
        return
    from mlflow_compliance.report.formats import text_of

    for name, path in asked:
        if path is None or (path.exists() and not path.is_file()):
            continue  # a pipe is written once
        try:
            put(path, text_of(name, stopped_report(BEGUN)))
        except ComplianceError as error:
            raise pytest.UsageError(f"--compliance-report={name}: {error}") from error


def stopped_report(reason: str, uri: str = "") -> Report:
    """The report of an audit that checked nothing."""
    from mlflow_compliance.audit.results import Report, Summary

    return Report(Summary((f"STOPPED: {reason}",), "", uri=uri, stopped=reason), ())


def write_reports(report: Report, session: pytest.Session) -> None:
    """Write each file that was asked for. What cannot be written is told, and makes the run no success."""
    from mlflow_compliance.report.formats import text_of

    for name, path in _asked(session):
        try:
            text = text_of(name, report)
            if path is None:
                session.config.add_cleanup(partial(_print, text))  # behind all that pytest says
            else:
                put(path, text)
        except ComplianceError as error:
            tell_error(session, f"--compliance-report={name}: {error}")


def tell_error(session: pytest.Session, sentence: str) -> None:
    """Tell what went wrong with the files of a report; the session is no success then."""
    reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        sys.stderr.write(f"ERROR: {sentence}\n")
    else:
        reporter.ensure_newline()
        reporter.write_line(f"ERROR: {sentence}", red=True)
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def put(path: Path, text: str) -> None:
    """Write a file as a whole: whoever reads it finds the old one or the new one. Raises ComplianceError."""
    from mlflow_compliance.store.storage.atomic_write import create, explained, staged, write_bytes

    data = text.encode("utf-8", errors="backslashreplace")
    with explained(str(path), "could not be written"):
        place = os.path.realpath(path)
        try:
            mode = os.stat(place).st_mode & 0o777 if os.path.isfile(place) else None
            if mode is None and os.path.exists(place):
                _write_in_place(place, data)
                return
            with staged(place) as temporary:
                with create(temporary) as file:
                    if mode is not None:
                        os.fchmod(file, mode)
                    write_bytes(file, data)
                os.replace(temporary, place)
        except OSError as error:
            if error.errno not in _IN_PLACE or not os.path.exists(place):
                raise
            _write_in_place(place, data)


def _write_in_place(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _print(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", errors="backslashreplace").decode())
    sys.stdout.flush()
