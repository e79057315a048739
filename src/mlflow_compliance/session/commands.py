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


def _init(audit: Audit, tell: Tell) -> int:
    from mlflow_compliance.audit.init import init

    for line in init(audit):
        tell(line)
    return pytest.ExitCode.OK


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


def _purge(audit: Audit, tell: Tell) -> int:
    from mlflow_compliance.audit.purge import carry_out_purge, plan_purge

    def confirm(lines: list[str], things: int) -> bool:
        for line in lines:
            tell(line)
        return typed(str(things))

    if audit.options.fix_dry_run:
        done = plan_purge(audit)
    elif audit.options.plan is None and not on_a_terminal():
        raise ComplianceError(
            "--fix-purge destroys for good: write a plan (--fix-purge --fix-dry-run --fix-plan=FILE), read it, and "
            "carry it out (--fix-purge --fix-plan=FILE); or run it on a terminal, where it asks"
        )
    else:
        done = carry_out_purge(audit, confirm)
    for line, well in done.lines:
        tell(line, well=well)
    return pytest.ExitCode.OK if done.well else pytest.ExitCode.TESTS_FAILED


def on_a_terminal() -> bool:
    """Whether a person can be asked."""
    streams = (sys.__stdin__, sys.__stdout__)
    return all(stream is not None and stream.isatty() for stream in streams)


def typed(wanted: str) -> bool:
    """Whether somebody types the number of things that are to be destroyed."""
    assert sys.__stdin__ is not None
    assert sys.__stdout__ is not None
    sys.__stdout__.write(
        f"this cannot be taken back: type {wanted} to destroy them, anything else to leave all as it is: "
    )
    sys.__stdout__.flush()
    return sys.__stdin__.readline().strip() == wanted


COMMANDS: Mapping[str, Callable[[Audit, Tell], int]] = {
    "init": _init,
    "journals": _journals,
    "undo": _undo,
    "verify": _verify,
    "gc_preflight": _preflight,
    "purge": _purge,
}
"""Field of Flags -> what it does with an audit; its exit code is that of the session."""


def run_command(config: pytest.Config) -> int | None:
    """Do what the command line asks for by one of these flags, and return the exit code; None where it has none."""
    asked = commands_in(lambda dest: getattr(config.option, dest))
    if not asked:
        return None
    config._do_configure()
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)  # a person may be asked
    try:
        if asked[0][0] == "explain":
            from mlflow_compliance.session.explain import explain

            return int(explain(config, _teller(config)))
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
