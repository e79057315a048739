"""Whether the database is older than the files: folders that no row knows, newer than every row, where those that
rows own are not.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import TERMINAL_STATUSES, Run
from mlflow_compliance.snapshot.files import parent, upwards
from mlflow_compliance.snapshot.litter import is_litter
from mlflow_compliance.snapshot.ownership import Dated, Outdated
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import MADE_BY_US
from mlflow_compliance.store.ownership.rows import own_folder

_OWN = re.compile(r"/(?:m-)?[0-9a-f]{32}(?=/|$)")
_TICK = 10
"""Milliseconds by which the kernel's clock, which dates files, may be behind the one that rows are dated by."""
_MOST = 2000
"""Owned folders of a root that are looked at: enough to tell whether most of them are new."""
_FEWEST = 3
"""Folders that nobody knows, where none that rows own is there to compare with: one or two may be anybody's."""


class Dates:
    """The times of the folders that bear the id of a run or model and that nobody owns, gathered during the walk."""

    def __init__(self) -> None:
        self._found: dict[str, list[int]] = {}  # made, files, oldest, newest

    def folder(self, path: str, root: str, made: int) -> None:
        """A folder that nobody owns; `made` in nanoseconds."""
        if _unit(path, root) == path:
            self._found[path] = [made // 1_000_000, 0, 0, 0]

    def file(self, path: str, root: str, written: int) -> None:
        """A file that nobody owns, after the folders above it; `written` in nanoseconds."""
        facts = self._found.get(_unit(path, root))
        if facts is not None and not is_litter(os.path.basename(path)):
            at = written // 1_000_000
            facts[1:] = facts[1] + 1, min(facts[2] or at, at), max(facts[3], at)

    def dated(self) -> dict[str, Dated]:
        return {path: Dated(*facts) for path, facts in self._found.items()}


def _unit(path: str, root: str) -> str:
    """The topmost folder on a path that bears the id of a run or model, '' where none does."""
    found = _OWN.search(path, len(root.rstrip("/")))
    return path[: found.end()] if found else ""


def compare_with_rows(
    artifacts: Artifacts,
    known: Collection[str],
    elsewhere: Collection[str],
    snapshot: Snapshot,
    newest_row: Callable[[int], int | None],
    repairing: Sequence[tuple[int, int]] = (),
) -> Artifacts:
    """Artifacts with the roots that are newer than the database.

    `known` are the ids of all rows, `elsewhere` entries that another store may own; `newest_row` says when the newest
    row before a
    moment is dated, None where that cannot be told. What was made while a repair was broken off (`repairing`) is that
    repair's.
    """
    dated = {
        path: facts
        for path, facts in artifacts.dated.items()
        if not any(start <= facts.made <= end for start, end in repairing)
    }
    suspects = _suspects(replace(artifacts, dated=dated), set(known), elsewhere, snapshot.taken_at)
    artifacts = replace(artifacts, dated={})
    last = newest_row(snapshot.taken_at) if suspects else None
    if last is None:
        return artifacts
    owned = _owned(artifacts, snapshot)
    everywhere = [item for items in owned.values() for item in items]
    judged = (
        _judged(root, folders, last, owned.get(root, everywhere), artifacts) for root, folders in suspects.items()
    )
    return replace(artifacts, outdated={item.root: item for item in judged if item})


def _root(artifacts: Artifacts, path: str) -> str:
    root = artifacts.root_of(path)
    return root.path if root else ""


def _suspects(
    artifacts: Artifacts, known: Collection[str], elsewhere: Collection[str], read_at: int
) -> dict[str, dict[str, Dated]]:
    """Root -> folders in it that lie where MLflow puts runs and models, hold files, and were not begun after the
    rows were read.
    """
    homes = {path for (kind, _), path in artifacts.locations.items() if kind == "experiment"}
    emptied: dict[str, int] = defaultdict(int)
    for path, facts in artifacts.dated.items():
        if not facts.files and not os.path.basename(path).startswith("m-"):
            emptied[_home(path)] = max(emptied[_home(path)], facts.made)
    owned_elsewhere = set(elsewhere)
    found: dict[str, dict[str, Dated]] = defaultdict(dict)
    for path, facts in artifacts.dated.items():
        name, home = os.path.basename(path), _home(path)
        if (
            not facts.files
            or name in known
            or facts.oldest > read_at
            or not (home in homes or os.path.basename(home).isdecimal())
        ):
            continue
        if not owned_elsewhere.isdisjoint(upwards(path)):
            continue
        # `mlflow gc` empties the folders of runs, and of an experiment that goes with them it leaves the models whole.
        if name.startswith("m-") and emptied[home] + _TICK >= max(facts.newest, facts.made):
            continue
        found[_root(artifacts, path)][path] = facts
    return found


def _home(path: str) -> str:
    """The folder of the experiment that a folder of a run or model lies in."""
    above = parent(path)
    return parent(above) if os.path.basename(path).startswith("m-") and os.path.basename(above) == "models" else above


def _owned(artifacts: Artifacts, snapshot: Snapshot) -> dict[str, list[tuple[str, int]]]:
    """Root -> the folders in it that rows own and that hold files, with the time of the newest.

    Runs that are at work, or that a repair made, say nothing of the time that the rows are from.
    """
    left_out = {key for key, run in snapshot.runs.items() if _says_nothing(run)}
    left_out |= {kept.run.key for kept in snapshot.journals.kept}
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for (kind, key), newest in sorted(artifacts.newest.items()):
        model = snapshot.logged_models.get(key)
        path = artifacts.locations.get((kind, key))
        if path and kind in ("run", "logged_model") and not {key, model.source_run_id if model else ""} & left_out:
            folder = own_folder(path, key)
            found[_root(artifacts, folder)].append((folder, newest))
    return found


def _says_nothing(run: Run) -> bool:
    return any(tag in run.tags for tag in MADE_BY_US) or (run.active and run.status not in TERMINAL_STATUSES)


def _judged(
    root: str, folders: Mapping[str, Dated], last: int, owned: Sequence[tuple[str, int]], artifacts: Artifacts
) -> Outdated | None:
    owned = owned[:: -(-len(owned) // _MOST) or 1]
    if _most(owned, (newest > last and _all_after(artifacts.under(folder), last) for folder, newest in owned)):
        return None  # a clone or a copy: times say nothing
    # A file that is logged may keep the time that it had; the folder that it is put into does not.
    by_folder = not _most(owned, (_written(folder) > last for folder, _ in owned))
    newer = {path: max(facts.newest, facts.made if by_folder else 0) for path, facts in folders.items()}
    newer = {path: at for path, at in newer.items() if at > last - _TICK}
    enough = len(newer) >= (1 if owned else _FEWEST)
    return Outdated(root, tuple(sorted(newer)), last, max(newer.values())) if enough else None


def _most(owned: Sequence[object], new: Iterable[bool]) -> bool:
    return sum(new) * 2 > len(owned)


def _all_after(paths: Iterable[str], moment: int) -> bool:
    """Whether every file was written after a moment."""
    return all(_written(path) > moment for path in paths)


def _written(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns // 1_000_000
    except OSError:
        return 0
