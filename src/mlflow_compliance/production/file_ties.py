"""Files of one run or model that are in truth another one's: by a link, a pointer, or a row that names its folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlflow_compliance.production.context import Context
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import upwards
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


class FileTie(NamedTuple):
    """`source` relies on what lies in a folder of `target`, through a file or folder of its own (`by`)."""

    source: EntityRef
    by: EntityRef
    target: EntityRef
    homes: tuple[str, ...]
    """Ids of the experiments that the target may lie in."""


def file_ties(context: Context) -> list[FileTie]:
    """Every such tie between two owners, found once."""
    return context.once(lambda context: list(_file_ties(context.snapshot)), "file ties")


def _file_ties(snapshot: Snapshot) -> Iterator[FileTie]:
    artifacts = snapshot.artifacts
    if artifacts is None:
        return
    owners = _Owners(snapshot, artifacts)
    leads = [*artifacts.links.items(), *((path, pointer.kept) for path, pointer in artifacts.pointers.items())]
    for path, target in leads:
        yield from owners.tie(path, path, target)
    for paths in _hard_links(artifacts):
        # What a repair linked, or copied with a run, is on record: it stays whole whatever becomes of the other name.
        for target in paths:
            if target not in artifacts.recorded:
                for path in paths:
                    yield from owners.tie(path, paths[0], target)
    yield from _by_row(snapshot, artifacts, owners)


def _hard_links(artifacts: Artifacts) -> Iterator[list[str]]:
    """The paths of each physical copy that has several names, where two owners have them."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, file in artifacts.files.items() if artifacts.hard_links else ():
        if file.copy in artifacts.hard_links and file.owner is not None:
            found[file.copy].append(path)
    for paths in found.values():
        if len({artifacts.files[path].owner for path in paths}) > 1:
            yield sorted(paths)


def _by_row(snapshot: Snapshot, artifacts: Artifacts, owners: _Owners) -> Iterator[FileTie]:
    """Runs and models whose row names a folder that is not below that of their experiment."""
    rows = [(run.ref, run.experiment_id) for run in snapshot.runs.values() if run.active]
    rows += [(model.ref, model.experiment_id) for model in snapshot.logged_models.values() if model.active]
    for ref, experiment_id in rows:
        folder = artifacts.locations.get(ref.place, "")
        home = artifacts.locations.get(("experiment", experiment_id), "")
        if folder and not (home and folder.startswith(f"{home}/")):
            yield from owners.tie_of_row(ref, folder)


class _Owners:
    """Whose a path is, by the rows' own folders."""

    def __init__(self, snapshot: Snapshot, artifacts: Artifacts) -> None:
        self._snapshot, self._artifacts = snapshot, artifacts
        self._homes: dict[str, list[str]] = defaultdict(list)
        self._folders: dict[str, list[EntityRef]] | None = None
        for (kind, key), folder in artifacts.locations.items():
            if kind == "experiment":
                self._homes[folder].append(key)

    def tie(self, path: str, by: str, target: str) -> Iterator[FileTie]:
        """The tie that a path of one owner has to a place of another, where these are two."""
        source, other = self._of(path), self._of(target)
        if source is not None and other != source and (other or self._in(target)):
            yield FileTie(source, self._named(by), other or self._named(target), self._home(other, target))

    def tie_of_row(self, ref: EntityRef, folder: str) -> Iterator[FileTie]:
        """The tie of a row that names a folder at or below another row's."""
        for above in upwards(folder):
            for other in self._by_folder.get(above, ()):
                if other.place != ref.place and not self._belong_together(ref, other):
                    yield FileTie(ref, self._named(folder), other, self._home(other, folder))
                    return
        if self._in(folder):
            yield FileTie(ref, self._named(folder), self._named(folder), self._in(folder))

    def _belong_together(self, one: EntityRef, other: EntityRef) -> bool:
        models = self._snapshot.logged_models
        runs = {models[ref.key].source_run_id if ref.key in models else ref.key for ref in (one, other)}
        return len(runs) == 1

    @property
    def _by_folder(self) -> Mapping[str, list[EntityRef]]:
        if self._folders is None:
            self._folders = defaultdict(list)
            for (kind, key), folder in self._artifacts.locations.items():
                if kind in ("run", "logged_model"):
                    self._folders[folder].append(EntityRef(kind, key))
        return self._folders

    def _of(self, path: str) -> EntityRef | None:
        file = self._artifacts.files.get(path)
        if file is not None and file.owner is not None:
            return EntityRef(file.owner.kind, file.owner.key)
        return next((refs[0] for above in upwards(path) if (refs := self._by_folder.get(above))), None)

    def _home(self, ref: EntityRef | None, path: str) -> tuple[str, ...]:
        """What a row that is held in full says, else where the path lies."""
        key = ref.key if ref else ""
        row = self._snapshot.runs.get(key) or self._snapshot.logged_models.get(key)
        return (row.experiment_id,) if row else self._in(path)

    def _in(self, path: str) -> tuple[str, ...]:
        return next((tuple(self._homes[above]) for above in upwards(path) if above in self._homes), ())

    def _named(self, path: str) -> EntityRef:
        return EntityRef("artifact", path, self._artifacts.relative(path))
