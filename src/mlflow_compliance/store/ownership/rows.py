"""Which folder belongs to which row, and which rows' folders cannot be reached, before anything is walked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.files import Unreachable, parent, upwards
from mlflow_compliance.snapshot.presence import Unknown, Why
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.store.ownership.moved import stem
from mlflow_compliance.store.storage.locations import NOT_FILES, Resolved, Resolver, scheme_of, shown

EVIDENT = frozenset({"mlruns", "mlartifacts"})


class OwnedPlace(NamedTuple):
    """A row's own folder: all below it is the owner's, what lies at or below `artifacts` is logged."""

    owner: EntityRef
    artifacts: str


class Missing(NamedTuple):
    """Why what a row names cannot be reached; `why` is None where the place was looked at and holds nothing."""

    reason: str
    why: Why | None = None


@dataclass
class _Gone:
    """Rows that cannot be reached for one reason, counted."""

    example: EntityRef
    why: Why | None
    rows: int = 0
    experiments: set[str] = field(default_factory=set)


@dataclass
class Ownership:
    """The rows' side of the inventory. Paths are real paths; only what lies below an experiment's folder may still
    be a link.
    """

    roots: dict[str, bool] = field(default_factory=dict)
    """Root -> whether it is evidently MLflow's own: by its name, or because the settings name it."""
    claims: dict[str, OwnedPlace] = field(default_factory=dict)
    experiments: dict[str, EntityRef] = field(default_factory=dict)
    containers: set[str] = field(default_factory=set)
    """Folders that hold, or are going to hold, what rows own."""
    links: set[str] = field(default_factory=set)
    """Symbolic links that an experiment's location leads through: what they lead to is walked in its own place."""
    locations: dict[tuple[str, str], str] = field(default_factory=dict)
    unknown: dict[tuple[str, str], Unknown] = field(default_factory=dict)
    """(kind, key) of a row -> why the place that it names was not looked at."""
    relocated: Counter[str] = field(default_factory=Counter)
    unread: dict[str, str] = field(default_factory=dict)
    proofs: list[str] = field(default_factory=list)
    """Paths at which rows, or our own records, prove that files were written."""
    used: set[str] = field(default_factory=set)
    """Ids of the experiments with runs, models or versions: nothing was logged in the others."""
    absent: dict[tuple[str, str], tuple[str, tuple[str, str]]] = field(default_factory=dict)
    """(kind, key) of a row whose folder is not there, though its root is -> that folder, and its key in `gone`."""
    gone: dict[tuple[str, str], _Gone] = field(default_factory=dict)
    """(place, reason) -> the rows that cannot be reached."""

    def lose(self, location: Location, place: str, missing: Missing) -> None:
        """Note that what a row names cannot be reached; `place` is what it is told by."""
        reason, why = missing
        if why is not None:
            self.unknown[location.owner.place] = Unknown(why, place, reason)
        if location.owner.kind == "experiment" and location.experiment_id not in self.used:
            return  # nothing was logged that could be reached
        gone = self.gone.setdefault((place, reason), _Gone(location.owner, why))
        gone.rows += 1
        gone.experiments.add(location.experiment_id)

    def forget(self, root: str, missing: Missing, locations: Iterable[Location]) -> None:
        """Take back where the rows below a root lie: it turned out not to be what they speak of."""
        for location in locations:
            row = location.owner.place
            path, told = self.absent.get(row, (self.locations.get(row), None))
            if path is None or not _is_at_or_below(path, root):
                continue
            if told is None:
                del self.locations[row]
            else:
                del self.absent[row]
                self.gone.pop(told, None)  # an absent folder is told by itself; two versions may name one
            self.lose(location, root, missing)

    def proven(self, root: str) -> str:
        """A path below a root at which files are known to have been written, '' where none is."""
        return next((path for path in self.proofs if _is_at_or_below(path, root)), "")

    def unreachable(self) -> tuple[Unreachable, ...]:
        """The rows that cannot be reached, by place and reason."""
        roots = {told: self._root_of(path) for path, told in self.absent.values()}
        return tuple(
            Unreachable(
                place,
                item.rows,
                item.example,
                tuple(sorted(item.experiments)),
                reason,
                item.why,
                roots.get((place, reason), ""),
            )
            for (place, reason), item in sorted(self.gone.items())
        )

    def _root_of(self, path: str) -> str:
        """The innermost root that a path lies in, '' where it is in none."""
        return next((above for above in upwards(path) if above in self.roots), "")


class Tree:
    """Where the folders of rows are looked for: on this machine."""

    def resolve(self, uri: str) -> Resolved:
        return Resolved(uri)

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def missing(self, path: str) -> Missing | None:
        """Why nothing can be read at a path, None where something can."""
        return _missing(path)

    def unreachable(self, base: str) -> Missing | None:
        """Why nothing at an experiment's folder can be reached, None where it can. The folder itself may be yet to
        come.
        """
        above = os.path.dirname(os.path.dirname(base))
        missing = self.missing(above)
        if missing is None:
            return None
        return Missing(
            f"the folder {shown(above)} {missing.reason}; map it with [store.relocate]", missing.why or Why.ELSEWHERE
        )


def read_ownership(
    locations: Sequence[Location],
    relocate: Mapping[str, str],
    roots: Sequence[str],
    ready_models: Collection[str],
    ground: Tree | None = None,
    *,
    recorded: Collection[str] = (),
    folders: Sequence[Location] = (),
    home: str | None = None,
) -> Ownership:
    """Find every row's folder. Experiments come first: the others are understood by theirs.

    `recorded` are paths that are on record of ours; `home` is the folder that relative locations start from.
    """
    as_written = ground is None and not relocate
    reader = _Reader(
        ground or Tree(),
        (ground.resolve if ground else Resolver(relocate, home)),
        frozenset(ready_models),
        as_written=as_written,
    )
    for given in roots:
        reader.add_root(reader.ground.real(given), given=True)
    # A folder that rows use may be yet to come only while its root is there.
    reader.ownership.used = {
        location.experiment_id
        for location in locations
        if location.owner.kind in ("run", "logged_model", "run_model", "model_version")
    }
    wanted = [location for location in locations if scheme_of(location.uri) not in NOT_FILES]
    reader.ownership.proofs += [*recorded, *reader.proofs(wanted)]
    order = {"experiment": 0, "model_version": 2, "run_model": 2, "skill_version": 2}
    # Whatever the order of the rows: a folder of another name is a root of its own only where no other root holds it.
    for location in sorted(wanted, key=lambda location: (order.get(location.owner.kind, 1), not _is_by_id(location))):
        reader.add(location)
    for location in folders:
        path = reader.ground.real(reader.resolve(location.uri).path or "/")
        if not location.experiment_id:
            reader.add_version_elsewhere(location.owner, path)
        elif path not in reader.ownership.experiments and path not in reader.ownership.roots:
            reader.ownership.claims.setdefault(path, OwnedPlace(location.owner, ""))
    reader.close()
    return reader.ownership


class _Reader:
    def __init__(
        self, ground: Tree, resolve: Callable[[str], Resolved], ready: frozenset[str], *, as_written: bool
    ) -> None:
        self.ground = ground
        self.ownership = Ownership()
        self.resolve = resolve
        self._ready = ready
        self._as_written = as_written  # whether a normal path in a row is that path here
        self._experiments: dict[str, str] = {}  # experiment id -> path of its location, as resolved
        self._versions: dict[str, OwnedPlace] = {}
        self._states: dict[str, Missing | None] = {}
        self._root_states: dict[str, Missing | None] = {}
        self._bases: dict[tuple[str, str], str] = {}
        self._reals: dict[str, str] = {}
        self._in_order: dict[
            str, tuple[str, str]
        ] = {}  # experiment id -> its folder as its runs' rows have it, and its real path

    def proves(self, location: Location) -> bool:
        """Whether a row says that files were written where it points to: a run may have logged numbers alone."""
        kind, key, _ = location.owner
        return kind in ("model_version", "run_model", "skill_version") or (
            kind == "logged_model" and key in self._ready
        )

    def proofs(self, locations: Iterable[Location]) -> Iterator[str]:
        """Where rows say that files were written."""
        for location in locations:
            path = self.resolve(location.uri).path if self.proves(location) else ""
            if path:
                yield self.really(path)

    def really(self, path: str) -> str:
        """A path with the links above an experiment's folder followed."""
        above = parent(parent(parent(path)))
        if above not in self._reals:
            self._reals[above] = self.ground.real(above)
        return self._reals[above] + path[len(above) :]

    def add(self, location: Location) -> None:
        kind, key, _ = location.owner
        home = self._in_order.get(location.experiment_id)
        if home and _is_in_order(location, home[0]):
            # As most rows are: another one of its experiment was looked at closely.
            folder = f"{home[1]}/{key}"
            self.ownership.locations[kind, key] = path = f"{folder}/artifacts"
            self.ownership.claims.setdefault(folder, OwnedPlace(location.owner, path))
            return
        found = self.resolve(location.uri)
        if found.prefix is not None:
            self.ownership.relocated[found.prefix] += 1
        if kind == "experiment":
            self._experiments[location.experiment_id] = found.path
        base, rest = self._split(location, found)
        elsewhere = (
            Missing(found.reason, found.why)
            if found.reason
            else (self._state(base) or self._root_state(base, location.experiment_id))
        )
        if elsewhere:
            self.ownership.lose(location, self._told_by(location, found), elsewhere)
            return
        own = self._own_state(location, base + rest)
        if own:
            place = without_secrets(location.uri)
            self.ownership.lose(location, place, own)
            if own.why is None:
                self.ownership.absent[kind, key] = self.really(base + rest), (place, own.reason)
            return
        real = self._real(base, location.experiment_id)
        path = real + rest
        if self._as_written and _is_in_order(location, base):
            self._in_order[location.experiment_id] = base, real
        self.ownership.locations[kind, key] = path
        if kind == "experiment":
            self.ownership.experiments.setdefault(path, location.owner)
        elif kind in ("model_version", "skill_version"):
            self._versions.setdefault(path, OwnedPlace(location.owner, path))
        elif kind == "run_model":
            pass  # it lies in its run's folder
        else:
            self.ownership.claims.setdefault(own_folder(path, key), OwnedPlace(location.owner, path))

    def _told_by(self, location: Location, found: Resolved) -> str:
        """What a row is told by that cannot be reached: together with those of its root, where they were met before
        it.
        """
        if location.owner.kind in ("model_version", "run_model"):  # which come last
            uri, known = without_secrets(location.uri), {place for place, _ in self.ownership.gone}
            above = next((place for place in known if uri.startswith((place + "/", place + "\\"))), "")
            if above:
                return above
        return _place_of(location, found)

    def add_root(self, path: str, *, given: bool = False) -> None:
        if path in self.ownership.roots:
            return
        if self.ground.is_folder(path):
            self.ownership.roots[path] = given or os.path.basename(path) in EVIDENT
        elif given or os.path.lexists(path):
            missing = self.ground.missing(path)
            self.ownership.unread[path] = missing.reason if missing else "is not a folder"

    def add_version_elsewhere(self, owner: EntityRef, path: str) -> None:
        """What a version of another workspace was registered from, as far as it lies in no folder of ours."""
        if self.ground.is_folder(path):
            self._versions.setdefault(path, OwnedPlace(owner, ""))

    def close(self) -> None:
        """Note every folder on the way to something that a row owns, and what the versions own."""
        ownership = self.ownership
        for folder in ownership.experiments:
            _climb(folder + "/models", ownership.containers)
        for folder in ownership.claims:
            _climb(parent(folder), ownership.containers)
        for path, claim in self._versions.items():
            # Most versions are registered from a run's or a model's folder, which stays theirs.
            if path not in ownership.containers and not any(above in ownership.claims for above in upwards(path)):
                ownership.claims[path] = claim
                _climb(os.path.dirname(path), ownership.containers)
        for root in ownership.roots:
            _climb(root, ownership.containers)

    def _split(self, location: Location, found: Resolved) -> tuple[str, str]:
        """The experiment's folder that a location lies in, and the rest of its path."""
        path, (kind, key, _) = found.path, location.owner
        home = self._experiments.get(location.experiment_id, "")
        if home and (path == home or path.startswith(home + "/")):
            return home, path[len(home) :]
        tails = {
            "run": (f"/{key}/artifacts",),
            "logged_model": (f"/models/{key}/artifacts", f"/{key}/artifacts"),
            "trace": (f"/traces/{key}/artifacts",),
        }
        for tail in tails.get(kind, ()):
            if path.endswith(tail):
                return path[: -len(tail)], tail
        return path, ""

    def _state(self, base: str) -> Missing | None:
        """Why nothing at an experiment's folder can be reached, None where it can. The folder itself may be yet to
        come.
        """
        if base not in self._states:
            self._states[base] = self.ground.unreachable(base)
        return self._states[base]

    def _root_state(self, base: str, experiment_id: str) -> Missing | None:
        """Why what an experiment's runs logged cannot be here, None where it may be: who logs numbers alone needs
        no folder.
        """
        root, name = os.path.split(base)
        if name != experiment_id or experiment_id not in self.ownership.used:
            return None
        if root not in self._root_states:
            missing = self.ground.missing(root)
            if missing and (missing.why or self.ownership.proven(root)):
                reason = f"the artifact root {shown(root)} {missing.reason}, though files were written there"
                missing = Missing(
                    f"{reason}: bring it back, or map it with [store.relocate]", missing.why or Why.NO_ROOT
                )
            else:
                missing = None
            self._root_states[root] = missing
        return self._root_states[root]

    def _own_state(self, location: Location, path: str) -> Missing | None:
        if self.proves(location):
            missing = self.ground.missing(path)
            return missing and Missing(f"the folder {shown(path)} {missing.reason}", missing.why)
        return None

    def _real(self, base: str, experiment_id: str) -> str:
        """The real path of an experiment's folder; its root, and itself where a link leads out of the root, become
        roots.
        """
        known = self._bases.get((base, experiment_id))
        if known is not None:
            return known
        real = self.ground.real(base)
        home, name = os.path.split(base)
        if name == experiment_id and home != "/":
            root = self.ground.real(home)
            self.add_root(root)
            if real != f"{root}/{name}":
                self.ownership.links.add(f"{root}/{name}")
                self.add_root(real)
        elif not any(above in self.ownership.roots for above in upwards(real)):
            self.add_root(real)
        self._bases[base, experiment_id] = real
        return real


def _is_by_id(location: Location) -> bool:
    """Whether an experiment lies in a folder that has its id for a name, as MLflow places it."""
    return location.owner.kind != "experiment" or location.uri.rstrip("/").endswith(f"/{location.experiment_id}")


def own_folder(path: str, key: str) -> str:
    """The folder of a run or model whose row names a place: the one above its `artifacts`, where MLflow puts these."""
    return parent(path) if path.endswith(f"/{key}/artifacts") else path


def _is_in_order(location: Location, base: str) -> bool:
    """Whether a row is that of a run whose artifacts lie where MLflow puts them below an experiment's folder."""
    kind, key, _ = location.owner
    return kind == "run" and location.uri == f"{base}/{key}/artifacts" and key.isalnum()


def _missing(path: str) -> Missing | None:
    try:
        os.stat(path)
    except PermissionError:
        return Missing("cannot be looked into (permission denied)", Why.CLOSED)
    except (FileNotFoundError, NotADirectoryError):
        return Missing("does not exist here")
    except (OSError, ValueError) as error:
        return Missing(f"cannot be looked into ({getattr(error, 'strerror', error)})", Why.CLOSED)
    return None


def _place_of(location: Location, found: Resolved) -> str:
    """What rows are told by that cannot be reached together: the artifact root in their own spelling, or the bucket
    or server.
    """
    uri = without_secrets(location.uri)
    if found.why is Why.SCHEME or found.why is Why.SERVER:
        scheme, separator, rest = uri.partition("://")
        return f"{scheme}{separator}{rest.partition('/')[0]}" if separator else uri.partition(":")[0] + ":"
    place, tail = stem(uri, location.experiment_id, location.owner.key)
    name = f"/{location.experiment_id}"
    # A Windows path may be spelt with its own separators.
    if not tail and location.experiment_id and place[-len(name) :].replace("\\", "/") == name:
        return place[: -len(name)]
    return place


def _is_at_or_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _climb(path: str, into: set[str]) -> None:
    while path not in into:
        into.add(path)
        path = parent(path)
