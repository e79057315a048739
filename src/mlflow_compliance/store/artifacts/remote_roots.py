"""What lies below the remote roots, listed in bulk, and which rows that answers for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mlflow_compliance.progress import Progress
from mlflow_compliance.snapshot.presence import Why
from mlflow_compliance.snapshot.refs import Location
from mlflow_compliance.store.ownership.orphans import IDENTIFIER
from mlflow_compliance.store.ownership.rows import EVIDENT, Missing, Tree
from mlflow_compliance.store.storage.base import LockedOutError, ObjectInfo, RemoteError
from mlflow_compliance.store.storage.locations import NOT_FILES, Resolved, scheme_of
from mlflow_compliance.store.storage.storages import Storages, is_remote, place_name, remote_path


@dataclass
class RemoteTree(Tree):
    """Objects by their paths, and the folders that their names make."""

    places: Storages
    objects: dict[str, ObjectInfo] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    """Objects that no file can stand for, and why."""
    folders: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Root -> why it cannot be listed."""

    def resolve(self, uri: str) -> Resolved:
        return (
            Resolved(remote_path(uri))
            if is_remote(uri)
            else Resolved("", f"{scheme_of(uri)} locations are not read by this version", None, Why.SCHEME)
        )

    def real(self, path: str) -> str:
        return path

    def is_folder(self, path: str) -> bool:
        return not self.unreachable(path)

    def missing(self, path: str) -> Missing | None:
        there = path in self.folders or path in self.objects or path == place_name(path)
        return self.unreachable(path) or (None if there else Missing("holds no object"))

    def unreachable(self, base: str) -> Missing | None:
        failed = (
            Missing(reason, Why.CLOSED)
            for root, reason in self.failed.items()
            if base == root or base.startswith(root + "/")
        )
        return next(failed, None)

    def list_roots(self, locations: Sequence[Location], roots: Iterable[str], progress: Progress) -> None:
        """List every root once. Of a bucket that other things lie in too, only what can be MLflow's."""
        wanted, evident = _roots(locations, roots)
        progress.start("Listing remote artifacts", None)
        try:
            for root in wanted:
                try:
                    for folder in self._parts(root, wanted[root], evident=root in evident):
                        for item in self.places.of(root).listed(folder):
                            self._take(item)
                            progress.advance(1)
                except LockedOutError:
                    raise
                except RemoteError as error:
                    self.failed[root] = str(error)
        finally:
            progress.stop()

    def _parts(self, root: str, below: set[str], *, evident: bool) -> list[str]:
        if evident or root in below:
            return [root]
        names = self.places.of(root).children(root)
        taken = [name for name in names if name in below or IDENTIFIER.fullmatch(name)]
        return [root] if len(taken) == len(names) else [f"{root}/{name}" for name in taken]

    def _take(self, item: ObjectInfo) -> None:
        path = item.path
        if path.endswith("/"):
            # What consoles write for an empty folder; MLflow passes over it too.
            self._climb(path.rstrip("/"))
            if item.size:
                self.odd[path] = "its name ends in a slash, as that of no file can"
            return
        self.objects[path] = item
        self._climb(os.path.dirname(path))

    def _climb(self, folder: str) -> None:
        while folder and folder not in self.folders:
            self.folders.add(folder)
            folder = os.path.dirname(folder)


def _roots(locations: Sequence[Location], given: Iterable[str]) -> tuple[Mapping[str, set[str]], set[str]]:
    """Outermost root -> the names in it that rows lie below; and those roots that are evidently MLflow's own."""
    found: dict[str, set[str]] = {}
    homes = {
        location.experiment_id: remote_path(location.uri)
        for location in locations
        if location.owner.kind == "experiment"
    }
    for location in locations:
        if scheme_of(location.uri) in NOT_FILES or not is_remote(location.uri):
            continue
        path = remote_path(location.uri)
        home = homes.get(location.experiment_id, "")
        base = home if home and (path + "/").startswith(home + "/") else path
        key = location.owner.key
        for tail in (f"/models/{key}/artifacts", f"/traces/{key}/artifacts", f"/{key}/artifacts"):
            base = base.removesuffix(tail)
        root = os.path.dirname(base) if os.path.basename(base) == location.experiment_id else base
        found.setdefault(root, set()).add(path[len(root) + 1 :].partition("/")[0] or "")
    named = {remote_path(root) for root in given}
    for root in named:
        found.setdefault(root, set())
    evident = named | {root for root in found if os.path.basename(root) in EVIDENT}
    outer: dict[str, set[str]] = {}
    for root in sorted(found, key=len):
        above = next((other for other in outer if root == other or root.startswith(other + "/")), None)
        if above is None:
            outer[root] = {name for name in found[root] if name} | ({root} if "" in found[root] else set())
        else:
            outer[above] |= {root[len(above) + 1 :].partition("/")[0]}
    return outer, evident
