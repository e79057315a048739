"""Repairs and undoes of one store in processes of their own, each a fork of this one that dies where it is told to;
and the store put back to what it was between them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from killing import arm
from repairs import CHECKOUT, chosen, remedies

from mlflow_compliance.audit.audit import Audit, Options
from mlflow_compliance.audit.undo import take_back
from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.progress import Silent
from mlflow_compliance.rules.evaluation import cases

WELL, NOT_WELL, STOPPED, CRASHED = 0, 1, 4, 70


def forget_connections() -> None:
    """MLflow keeps connections to each database that it was ever given; a fork must not share them."""
    for name in ("tracking", "model_registry"):
        module = sys.modules.get(f"mlflow.store.{name}.sqlalchemy_store")
        engines = getattr(getattr(module, "SqlAlchemyStore", None), "_engine_map", {})
        while engines:
            engines.popitem()[1].dispose()


def forked(call: Callable[[], int], log: Path) -> int:
    """Run a function in a process of its own; its value is the exit code, minus the signal where it was killed."""
    child = os.fork()
    if not child:
        code = CRASHED
        try:
            code = call()
        except BaseException:  # noqa: BLE001  it ends here, whatever it is
            with log.open("a") as file:
                traceback.print_exc(file=file)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def audit_of(folder: Path, **flags: Any) -> Audit:
    """What a command in that folder would make."""
    return Audit(Options(rootdir=folder, workdir=folder, fixers=(str(CHECKOUT / "fixers"),), **flags), Silent)


@dataclass(frozen=True)
class Bench:
    """One store at one place: its states are kept beside it, and brought back with their hard links."""

    folder: Path

    @property
    def log(self) -> Path:
        """What the last command said."""
        return self.folder.parent / "said.txt"

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def keep(self, name: str) -> None:
        shutil.rmtree(self.folder.parent / name, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.folder), str(self.folder.parent / name)], check=True)

    def bring(self, name: str) -> None:
        shutil.rmtree(self.folder)
        subprocess.run(["cp", "-a", str(self.folder.parent / name), str(self.folder)], check=True)

    def fix(self, kill: str = "", rules: tuple[str, ...] = ()) -> int:
        """--fix by some rules, all of the checkout where none is named."""
        return self._run(lambda: _fix(self.folder, rules, self._tell), kill)

    def undo(self, name: str = "last", kill: str = "") -> int:
        """--fix-undo of a journal."""
        return self._run(lambda: _undo(self.folder, name, self._tell), kill)

    def _run(self, command: Callable[[], int], kill: str) -> int:
        self.log.unlink(missing_ok=True)

        def whole() -> int:
            if kill:
                arm(kill)
            try:
                return command()
            except ComplianceError as error:
                self._tell(str(error))
                return STOPPED

        return forked(whole, self.log)

    def _tell(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{text}\n")


def _fix(folder: Path, rules: tuple[str, ...], tell: Callable[[str], None]) -> int:
    audit = audit_of(folder, fix=True)
    audit._remedies = remedies()
    for rule in chosen(rules):
        audit.add(rule)
    context = audit.context(artifacts=True)
    only = {rule.id: frozenset(case.key for case in cases(rule, context)) for rule in chosen(rules)}
    audit.carry_out(only, lambda plan: tell("\n".join(plan.lines())))
    assert audit.repair is not None
    lines = list(audit.repair.lines())
    tell("\n".join(line for line, _ in lines))
    return WELL if all(well for _, well in lines) else NOT_WELL


def _undo(folder: Path, name: str, tell: Callable[[str], None]) -> int:
    audit = audit_of(folder, undo=name)
    undo = take_back(audit, name, lambda plan: tell("\n".join(plan.lines())), dry_run=False)
    tell("\n".join(line for line, _ in undo.lines()))
    return WELL if undo.well else NOT_WELL
