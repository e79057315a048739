"""What the names of ownerless entries tell: the ids of runs, logged models and traces in them, and the names
outside of such folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import Ownerless

ID = re.compile(r"(m-|tr-)?[0-9a-f]{32}")
"""The ids that MLflow makes up: no two stores give one to two things."""


class Entry(NamedTuple):
    """An ownerless entry; `ids` and `names` are of its own path below the root and of all that it holds."""

    item: Ownerless
    root: str
    ids: frozenset[str]
    names: frozenset[str]


def entries_of(artifacts: Artifacts) -> list[Entry]:
    """Every ownerless entry."""
    roots = {root.key: root.path for root in artifacts.roots}
    found = []
    for item in artifacts.ownerless.values():
        root = roots[item.root]
        ids, names = set[str](), set[str]()
        for path in (item.path, *artifacts.under(item.path)):
            _take(path[len(root) :].split(os.sep), ids, names)
        found.append(Entry(item, root, frozenset(ids), frozenset(names - {""})))
    return found


def _take(parts: Iterable[str], ids: set[str], names: set[str]) -> None:
    inside = False
    for part in parts:
        if ID.fullmatch(part):
            ids.add(part)
            inside = True
        elif not inside:
            names.add(part)  # what a run's folder holds is called `model` in every other run too
