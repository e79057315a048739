"""--compliance-explain: what is to be said of rules, without a store, without settings, without collecting."""

from __future__ import annotations

import ast
import datetime as dt
import importlib
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.pathlib import import_path

from mlflow_compliance.errors import ComplianceError, first_line
from mlflow_compliance.session.options import flags_of
from mlflow_compliance.session.packs import built_in
from mlflow_compliance.session.state import ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from mlflow_compliance.rules.policy import Policy

ALL = "all"
WAIVED_FOR = 90
"""Days from today to the last day of the waiver that is offered."""
NEAR = 3
"""Ids that are named in place of one that no rule has."""
WIDEST = 100
"""Columns; longer lines are hard to read."""


def explain(config: pytest.Config, tell: Callable[..., None]) -> int:
    """Tell of the rules that the command line names, and return the exit code. Raises ComplianceError where one of them
    is not at hand.
    """
    from mlflow_compliance.report.explain import in_one_line, lines_of
    from mlflow_compliance.rules.explained import explained
    from mlflow_compliance.rules.packs import load_fixers
    from mlflow_compliance.rules.selecting import refuse_unknown, selects

    words = flags_of(config).explain
    rules, broken = rules_at_hand(config)
    every = ALL in words
    if not every:
        try:
            refuse_unknown(words, rules, "--compliance-explain", NEAR)
        except ComplianceError as error:
            raise ComplianceError("; ".join([str(error), *broken])) from None
    remedies = load_fixers(tuple(config.getini("compliance_fixers")), config.rootpath)
    asked = [explained(rule, remedies.get(key)) for key, rule in sorted(rules.items()) if every or selects(words, key)]
    expires = (dt.datetime.now(dt.timezone.utc).date() + dt.timedelta(days=WAIVED_FOR)).isoformat()
    width = min(shutil.get_terminal_size((80, 24)).columns, WIDEST)
    for number, rule in enumerate(asked):
        if every:
            tell(in_one_line(rule))
            continue
        if number:
            tell("")
        for line in lines_of(rule, width, expires):
            tell(line)
    for line in broken if every else ():
        tell(line, well=False)
    return pytest.ExitCode.TESTS_FAILED if every and broken else pytest.ExitCode.OK


def rules_at_hand(config: pytest.Config) -> tuple[dict[str, Policy], list[str]]:
    """Rules by id: built in, of installed packs, and of the files that pytest would collect from; and what of those
    cannot be imported.
    """
    from mlflow_compliance.rules.installed import POLICIES, installed

    found: dict[str, Policy] = {rule.id: rule for rule in _rules_of_package(POLICIES, built_in())}
    broken = []
    for pack in installed(POLICIES):
        try:
            found = {rule.id: rule for rule in _rules_of_package(pack.package, pack.folder())} | found
        except ComplianceError as error:
            broken.append(str(error))
        except Exception as error:  # noqa: BLE001  importing another's module may raise anything
            broken.append(str(pack.broken(f"cannot be imported ({type(error).__name__}: {first_line(error)})")))
    for path in _own_files(config):
        try:
            module = import_path(
                path, mode=config.getoption("importmode"), root=config.rootpath, consider_namespace_packages=False
            )
        except Exception as error:  # noqa: BLE001  importing a user's module may raise anything
            broken.append(f"{path} cannot be imported ({type(error).__name__}: {first_line(error)}): mend it")
            continue
        for rule in _rules_in(module):
            found.setdefault(rule.id, rule)
    return found, broken


def _rules_of_package(package: str, folder: Path) -> Iterator[Policy]:
    for path in sorted(folder.glob("test_*.py")):
        yield from _rules_in(importlib.import_module(f"{package}.{path.stem}"))


def _rules_in(module: ModuleType) -> Iterator[Policy]:
    holders = [module, *(item for item in vars(module).values() if isinstance(item, type))]
    for holder in holders:
        for value in vars(holder).values():
            rule = getattr(value, ATTRIBUTE, None)
            if rule is not None and getattr(value, "__module__", "") == module.__name__:
                yield rule


def _own_files(config: pytest.Config) -> Iterator[Path]:
    """Files below what pytest would collect that declare a policy; those of the built-in pack are known."""
    known = os.path.realpath(built_in())
    for arg in config.args:
        place = config.invocation_params.dir / arg.partition("::")[0]
        for path in _files(place, config):
            if os.path.realpath(path.parent) != known and _declares(path):
                yield path


def _files(place: Path, config: pytest.Config) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    passed_over, names = config.getini("norecursedirs"), config.getini("python_files")
    for folder, folders, files in os.walk(place):
        folders[:] = sorted(
            name
            for name in folders
            if not any(fnmatch(name, pattern) for pattern in passed_over)
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        )
        yield from (Path(folder, name) for name in sorted(files) if any(fnmatch(name, pattern) for pattern in names))


def _declares(path: Path) -> bool:
    """Whether a file says `@policy(...)`: no other one is imported."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False  # pytest tells of it when it is collected
    return any(
        isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "policy"
        for node in ast.walk(tree)
    )
