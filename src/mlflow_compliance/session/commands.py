"""Flags that do one thing with the store and are done: no check is collected, none is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.collection import new_audit
from mlflow_compliance.settings.flags import commands_in

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.repair.undo import UndoPlan

Tell = Callable[..., None]
"""Shows one line; `well=False` where something is wrong with it."""


def _journals(audit: Audit, tell: Tell) -> int:
    from mlflow_compliance.audit.journals import listed

    for line in listed(audit):
        tell(line)
    return pytest.ExitCode.OK


def _verify(audit: Audit, tell: Tell) -> int:
    from mlflow_compliance.audit.journals import verified

    lines, well = verified(audit, audit.options.verify or "")
    for line in lines:
        tell(line, well=well)
    return pytest.ExitCode.OK if well else pytest.ExitCode.TESTS_FAILED


def _preflight(audit: Audit, tell: Tell) -> int:
    from mlflow_compliance.audit.preflight import lines_of, preflight

    found = preflight(audit)
    for line, well in lines_of(found):
        tell(line, well=well)
    return pytest.ExitCode.TESTS_FAILED if any(item.needed for item in found) else pytest.ExitCode.OK


def _undo(audit: Audit, tell: Tell) -> int:
    from mlflow_compliance.audit.undo import take_back

    def planned(plan: UndoPlan) -> None:
        for line in plan.lines():
            tell(line)

    undo = take_back(audit, audit.options.undo or "", planned, dry_run=audit.options.fix_dry_run)
    for line, well in undo.lines():
        tell(line, well=well)
    return pytest.ExitCode.OK if undo.well else pytest.ExitCode.TESTS_FAILED


COMMANDS: Mapping[str, Callable[[Audit, Tell], int]] = {
    "journals": _journals,
    "undo": _undo,
    "verify": _verify,
    "gc_preflight": _preflight,
}
"""Field of Flags -> what it does; its exit code is that of the session."""


def run_command(config: pytest.Config) -> int | None:
    """Do what the command line asks for by one of these flags, and return the exit code; None where it has none."""
    asked = commands_in(lambda dest: getattr(config.option, dest))
    if not asked:
        return None
    config._do_configure()
    try:
        return int(COMMANDS[asked[0][0]](new_audit(config), _teller(config)))
    except ComplianceError as error:
        raise pytest.UsageError(str(error)) from error
    except KeyboardInterrupt:
        raise pytest.UsageError("interrupted: what was done by then stands in its journal (--fix-journals)") from None


def _teller(config: pytest.Config) -> Tell:
    from mlflow_compliance.safe_text import WHOLE, printable

    reporter: Any = config.pluginmanager.getplugin("terminalreporter")

    def tell(line: str, *, well: bool = True) -> None:
        text = printable(line, WHOLE)
        if reporter is None:
            sys.stdout.write(f"{text}\n")
        else:
            reporter.write_line(text, **({} if well else {"red": True}))

    return tell
