"""Which folders hold policies: the built-in pack, and those of installed distributions, which are collected along
with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mlflow_compliance
from mlflow_compliance.errors import ComplianceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ADDED: pytest.StashKey[list[str]] = pytest.StashKey()
"""Packs of other distributions that were added to what is collected, in words."""
_WHOLE: pytest.StashKey[bool] = pytest.StashKey()
"""Set where the built-in pack is collected as a whole: a session that audits."""


def built_in() -> Path:
    """The folder of the built-in policies."""
    folders = [Path(place) / "policies" for place in mlflow_compliance.__path__]
    return next((folder for folder in folders if (folder / "__init__.py").is_file()), folders[0])


def add_installed(config: pytest.Config) -> None:
    """Where the built-in pack is collected as a whole, collect the packs of installed distributions too.

    Raises ComplianceError where one of them is broken: rules that are silently not asked would read as kept.
    """
    if not any(_is_built_in(arg, config) for arg in config.args):
        return
    config.stash[_WHOLE] = True
    from mlflow_compliance.rules.installed import POLICIES, installed

    given = set(config.args) | {str((config.invocation_params.dir / arg).resolve()) for arg in config.args}
    for pack in installed(POLICIES):
        folder = str(pack.folder())
        if not {pack.package, folder, os.path.realpath(folder)} & given:
            config.args.append(folder)
            config.stash.setdefault(_ADDED, []).append(f"{pack.package} ({pack.distribution})")


def header(config: pytest.Config, left: Mapping[str, str]) -> list[str]:
    """The lines in pytest's own head: what was added, that an audit goes by no settings, and which flags are `left`
    to other plugins; of those that were given is told later, in every session that audits.
    """
    added = config.stash.get(_ADDED, [])
    lines = [f"compliance: also {', '.join(added)}"] if added else []
    if not config.stash.get(_WHOLE, False):
        return lines
    lines += [f"compliance: {said}" for name, said in left.items() if name not in config.invocation_params.args]
    if not config.option.compliance_config:
        from mlflow_compliance.settings.files import WITHOUT_SETTINGS, find_settings

        lines += [] if find_settings(config.invocation_params.dir) else [f"compliance: {WITHOUT_SETTINGS}"]
    return lines


def folders_of_policies() -> Iterator[Path]:
    """Every folder that the settings may speak of the policies of, also where only a user's own are run."""
    from mlflow_compliance.rules.installed import POLICIES, installed

    yield built_in()
    for pack in installed(POLICIES):
        try:
            yield pack.folder()
        except ComplianceError:
            continue  # told when the built-in pack is collected, and this one with it


def _is_built_in(arg: str, config: pytest.Config) -> bool:
    """Whether an argument stands for the whole built-in pack: by its name, or by a folder that holds it, as a
    checkout does.
    """
    if arg == "mlflow_compliance.policies":
        return bool(config.option.pyargs)
    folder, known = config.invocation_params.dir / arg, built_in()
    try:
        same = folder.samefile(known)
        return same or (
            (folder / "test_store.py").is_file()
            and (folder / "__init__.py").read_bytes() == (known / "__init__.py").read_bytes()
        )
    except (OSError, ValueError):
        return False
