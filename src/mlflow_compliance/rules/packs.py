"""Finds fixers and policies: in folders, importable packages, and what installed distributions name by entry points."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from mlflow_compliance.errors import ComplianceError, first_line
from mlflow_compliance.rules.fixer import ATTRIBUTE, Fixer
from mlflow_compliance.rules.installed import FIXERS, POLICIES, Pack, installed
from mlflow_compliance.rules.policy import ATTRIBUTE as OF_POLICY
from mlflow_compliance.rules.policy import Policy


def load_fixers(places: Sequence[str], base: Path) -> dict[str, Fixer]:
    """The remedies in folders (relative to `base`), importable packages and installed packs, by policy id.

    Raises ComplianceError for a place that is not there and for two remedies of one policy.
    """
    found: dict[str, Fixer] = {}
    packs = [pack for pack in installed(FIXERS) if pack.package not in places]
    for modules in (*(_imported(place, base) for place in places), *map(_installed, packs)):
        for module in modules:
            for name, value in vars(module).items():
                if getattr(value, "__module__", "") != module.__name__:
                    continue
                for policy_id in getattr(value, ATTRIBUTE, ()):
                    if policy_id in found:
                        raise ComplianceError(
                            f"two fixers for policy {policy_id}: {found[policy_id].__module__} and "
                            f"{module.__name__}.{name}; remove one"
                        )
                    found[policy_id] = value
    return found


def load_policies(places: Sequence[str]) -> list[Policy]:
    """The rules in importable packages and installed packs, for who asks them without pytest."""
    packs = [pack for pack in installed(POLICIES) if pack.package not in places]
    modules = [module for place in places for module in _modules_in(importlib.import_module(place))]
    modules += [module for pack in packs for module in _installed(pack)]
    found: dict[str, Policy] = {}
    for module in modules:
        for value in vars(module).values():
            rule = getattr(value, OF_POLICY, None)
            if isinstance(rule, Policy):
                found.setdefault(rule.id, rule)
    return list(found.values())


def _installed(pack: Pack) -> list[ModuleType]:
    try:
        package = importlib.import_module(pack.package)
        modules = list(_modules_in(package)) if hasattr(package, "__path__") else []
    except Exception as error:  # importing another's module may raise anything
        raise pack.broken(f"cannot be imported ({type(error).__name__}: {first_line(error)})") from error
    if not modules:
        raise pack.broken("names no package with modules in it")
    return modules


def _imported(place: str, base: Path) -> list[ModuleType]:
    try:
        return list(_modules(place, base))
    except ComplianceError:
        raise
    except Exception as error:  # importing a user's module may raise anything
        raise ComplianceError(
            f"the fixers in '{place}' cannot be imported ({type(error).__name__}: {error}): mend them"
        ) from error


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
                f"fixers '{place}' are neither a folder in {base} nor a package: mend compliance_fixers in the "
                "pytest settings"
            ) from error
    if not hasattr(package, "__path__"):
        raise ComplianceError(f"fixers '{place}' are a module: give the folder or package that it is in")
    yield from _modules_in(package)


def _modules_in(package: ModuleType) -> Iterator[ModuleType]:
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
