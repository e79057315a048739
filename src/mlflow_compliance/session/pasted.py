"""Ids of checks that can be pasted back: what is printed selects the same check, wherever its file is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_compliance.session.packs import folders_of_policies

_FOLDERS = pytest.StashKey[frozenset[Path]]()
"""Folders of the installed packs: looking for them goes through every distribution, and each check has an id."""


def id_to_paste(item: pytest.Item) -> str:
    """What selects a check on a command line in the folder that this session was started in: below a name alone where
    its file is one of an installed pack, else below a path.
    """
    here, path, test = item.config.invocation_params.dir, item.path, item.nodeid.partition("::")[2]
    if path.parent in _folders(item.config) and not (here / path.name).exists():
        return f"{path.name}::{test}"
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}::{test}"


def _folders(config: pytest.Config) -> frozenset[Path]:
    if _FOLDERS not in config.stash:
        config.stash[_FOLDERS] = frozenset(folders_of_policies())
    return config.stash[_FOLDERS]


def find_pasted(config: pytest.Config) -> None:
    """Take the name of a file that is not there for that of an installed pack, where it is one."""
    for number, arg in enumerate(config.args):
        file, bracket, test = arg.partition("::")
        if not bracket or Path(file).name != file or (config.invocation_params.dir / file).exists():
            continue  # a path says whose file is meant: a wrong one is told by pytest
        found = next((place for folder in folders_of_policies() if (place := folder / file).is_file()), None)
        if found is not None:
            config.args[number] = f"{found}::{test}"
