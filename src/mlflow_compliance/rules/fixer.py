"""How a remedy is declared and loaded: functions from a finding to changes, tied to policies by id alone."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from mlflow_compliance.changes import Change, RemoveRepeatedPoints, holds_secrets
from mlflow_compliance.entities import Snapshot
from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.rules.finding import Finding
from mlflow_compliance.settings import Settings

Remedy = Callable[[Finding, Snapshot, Settings], Iterator[Change]]
R = TypeVar("R", bound=Remedy)

ATTRIBUTE = "__compliance_fixer__"


class CannotFix(Exception):  # noqa: N818  it is an answer, not an error
    """Raised by a fixer: the finding stays, with this reason or advice beside it."""


def fixer(policy_id: str) -> Callable[[R], R]:
    """Declare the function below as the remedy for the findings of a policy."""

    def declare(remedy: R) -> R:
        setattr(remedy, ATTRIBUTE, policy_id)
        return remedy

    return declare


def load_fixers(places: Sequence[str], base: Path) -> dict[str, Remedy]:
    """The remedies in folders (relative to `base`) or importable packages, by policy id.

    Raises ComplianceError for a place that is not there and for two remedies of one policy.
    """
    found: dict[str, Remedy] = {}
    for place in places:
        for module in _imported(place, base):
            for name, value in vars(module).items():
                policy_id = getattr(value, ATTRIBUTE, None)
                if policy_id is None or getattr(value, "__module__", "") != module.__name__:
                    continue
                if policy_id in found:
                    raise ComplianceError(
                        f"two fixers for policy {policy_id}: {found[policy_id].__module__} and {module.__name__}.{name}; remove one"
                    )
                found[policy_id] = value
    return found


def _imported(place: str, base: Path) -> list[ModuleType]:
    try:
        return list(_modules(place, base))
    except ComplianceError:
        raise
    except Exception as error:  # importing a user's module may raise anything
        raise ComplianceError(f"the fixers in '{place}' cannot be imported ({type(error).__name__}: {error}): mend them") from error


def _modules(place: str, base: Path) -> Iterator[ModuleType]:
    folder = base / place
    if folder.is_dir():
        package = _package_from(folder)
    else:
        try:
            package = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if not f"{place}.".startswith(f"{error.name}."):
                raise
            raise ComplianceError(
                f"fixers '{place}' are neither a folder in {base} nor a package: mend compliance_fixers in the pytest settings"
            ) from error
    if not hasattr(package, "__path__"):
        raise ComplianceError(f"fixers '{place}' are a module: give the folder or package that it is in")
    for info in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"{package.__name__}.{info.name}")


def _package_from(folder: Path) -> ModuleType:
    """Import a folder as a package under a name that no installed package has, so that relative imports within work."""
    name = f"_compliance_{folder.name}_{abs(hash(str(folder.resolve())))}"
    if name in sys.modules:
        return sys.modules[name]
    start = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not start.is_file():
        raise ComplianceError(f"the fixers' folder {folder} needs an __init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def propose(remedies: Mapping[str, Remedy], finding: Finding, snapshot: Snapshot, settings: Settings) -> tuple[tuple[Change, ...], str]:
    """The changes that would mend a finding, or none and the reason why not."""
    remedy = remedies.get(finding.policy)
    if remedy is None:
        return (), "no fixer: to be mended by hand"
    try:
        changes = tuple(remedy(finding, snapshot, settings))
    except CannotFix as reason:
        return (), str(reason)
    except ComplianceError:
        raise
    except Exception as crash:  # noqa: BLE001  a user's fixer may raise anything; the finding stays
        return (), f"its fixer {remedy.__name__} crashed ({type(crash).__name__}: {crash}): mend it"
    if snapshot.info.backend == "file" and not all(isinstance(change, RemoveRepeatedPoints) for change in changes):
        return (), "a file store is only audited, but for repeated metric points: take it over with `mlflow migrate-filestore` first"
    if any(map(holds_secrets, changes)):
        return (), "a text that it would change holds a password or token, and the journal would keep it: take that out of the store first"
    return changes, ""


def summary_of(remedy: Remedy) -> str:
    """What a remedy does, in the first line of its docstring."""
    return next(iter((remedy.__doc__ or "").strip().splitlines()), "")
