"""Which folder belongs to which row, and which rows' folders cannot be reached, before anything is walked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mlflow_compliance.artifacts import Unreachable, parent, upwards
from mlflow_compliance.entities import EntityRef, Location
from mlflow_compliance.store.reading.locations import NOT_FILES, Resolved, Resolver, scheme_of, shown
from mlflow_compliance.uris import without_secrets

EVIDENT = frozenset({"mlruns", "mlartifacts"})


class Claim(NamedTuple):
    """A row's own folder: all below it is the owner's, what lies at or below `artifacts` is logged."""

    owner: EntityRef
    artifacts: str


@dataclass
class Holdings:
    """The rows' side of the inventory. Paths are real paths; only what lies below an experiment's folder may still be a link."""

    roots: dict[str, bool] = field(default_factory=dict)
    """Root -> whether it is evidently MLflow's own: by its name, or because the settings name it."""
    claims: dict[str, Claim] = field(default_factory=dict)
    experiments: dict[str, EntityRef] = field(default_factory=dict)
    containers: set[str] = field(default_factory=set)
    """Folders that hold, or are going to hold, what rows own."""
    links: set[str] = field(default_factory=set)
    """Symbolic links that an experiment's location leads through: what they lead to is walked in its own place."""
    locations: dict[tuple[str, str], str] = field(default_factory=dict)
    relocated: Counter[str] = field(default_factory=Counter)
    unread: dict[str, str] = field(default_factory=dict)
    gone: dict[tuple[str, str], tuple[int, Location]] = field(default_factory=dict)
    """(experiment id, reason) -> how many rows, and one of them."""

    def unreachable(self) -> tuple[Unreachable, ...]:
        """The rows that cannot be reached, by experiment and reason."""
        return tuple(
            Unreachable(experiment_id, without_secrets(example.uri), rows, example.owner, reason)
            for (experiment_id, reason), (rows, example) in sorted(self.gone.items())
        )


class Ground:
    """Where the folders of rows are looked for: on this machine."""

    def resolve(self, uri: str) -> Resolved:
        return Resolved(uri)

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def missing(self, path: str) -> str:
        """Why nothing can be read at a path, '' where something can."""
        return _missing(path)

    def unreachable(self, base: str) -> str:
        """Why nothing at an experiment's folder can be reached, '' where it can. The folder itself may be yet to come."""
        above = os.path.dirname(os.path.dirname(base))
        missing = self.missing(above)
        return f"the folder {shown(above)} {missing}; map it with [store.relocate]" if missing else ""


def read_holdings(
    locations: Sequence[Location], relocate: Mapping[str, str], roots: Sequence[str], ready_models: Collection[str], ground: Ground | None = None
) -> Holdings:
    """Find every row's folder. Experiments come first: the others are understood by theirs."""
    as_written = ground is None and not relocate
    reader = _Reader(ground or Ground(), (ground.resolve if ground else Resolver(relocate)), frozenset(ready_models), as_written=as_written)
    for given in roots:
        reader.add_root(reader.ground.real(given), given=True)
    # A folder that rows use may be yet to come only while its root is there.
    reader.used = {location.experiment_id for location in locations if location.owner.kind in ("run", "logged_model")}
    order = {"experiment": 0, "model_version": 2, "run_model": 2}
    for location in sorted(locations, key=lambda location: order.get(location.owner.kind, 1)):
        if scheme_of(location.uri) not in NOT_FILES:
            reader.add(location)
    reader.close()
    return reader.holdings


class _Reader:
    def __init__(self, ground: Ground, resolve: Callable[[str], Resolved], ready: frozenset[str], *, as_written: bool) -> None:
        self.ground = ground
        self.holdings = Holdings()
        self._resolve = resolve
        self._ready = ready
        self._as_written = as_written  # whether a normal path in a row is that path here
        self._experiments: dict[str, str] = {}  # experiment id -> path of its location, as resolved
        self._versions: dict[str, EntityRef] = {}
        self._states: dict[str, str] = {}
        self._root_states: dict[tuple[str, str], str] = {}
        self._bases: dict[tuple[str, str], str] = {}
        self._in_order: dict[str, tuple[str, str]] = {}  # experiment id -> its folder as its runs' rows have it, and its real path
        self.used: set[str] = set()

    def add(self, location: Location) -> None:
        kind, key, _ = location.owner
        home = self._in_order.get(location.experiment_id)
        if home and _is_in_order(location, home[0]):
            # As most rows are: another one of its experiment was looked at closely.
            folder = f"{home[1]}/{key}"
            self.holdings.locations[kind, key] = path = f"{folder}/artifacts"
            self.holdings.claims.setdefault(folder, Claim(location.owner, path))
            return
        found = self._resolve(location.uri)
        if found.prefix is not None:
            self.holdings.relocated[found.prefix] += 1
        if kind == "experiment":
            self._experiments[location.experiment_id] = found.path
        base, rest = self._split(location, found)
        reason = found.reason or self._state(base) or self._root_state(base, location.experiment_id) or self._own_state(location, base + rest)
        if reason:
            rows, example = self.holdings.gone.get((location.experiment_id, reason), (0, location))
            self.holdings.gone[location.experiment_id, reason] = (rows + 1, example)
            return
        real = self._real(base, location.experiment_id)
        path = real + rest
        if self._as_written and _is_in_order(location, base):
            self._in_order[location.experiment_id] = base, real
        self.holdings.locations[kind, key] = path
        if kind == "experiment":
            self.holdings.experiments.setdefault(path, location.owner)
        elif kind == "model_version":
            self._versions.setdefault(path, location.owner)
        elif kind == "run_model":
            pass  # it lies in its run's folder
        else:
            folder = parent(path) if path.endswith(f"/{key}/artifacts") else path
            self.holdings.claims.setdefault(folder, Claim(location.owner, path))

    def add_root(self, path: str, *, given: bool = False) -> None:
        if path in self.holdings.roots:
            return
        if self.ground.is_folder(path):
            self.holdings.roots[path] = given or os.path.basename(path) in EVIDENT
        elif given or os.path.lexists(path):
            self.holdings.unread[path] = self.ground.missing(path) or "is not a folder"

    def close(self) -> None:
        """Note every folder on the way to something that a row owns, and what the versions own."""
        holdings = self.holdings
        for folder in holdings.experiments:
            _climb(folder + "/models", holdings.containers)
        for folder in holdings.claims:
            _climb(parent(folder), holdings.containers)
        for path, owner in self._versions.items():
            # Most versions are registered from a run's or a model's folder, which stays theirs.
            if path not in holdings.containers and not any(above in holdings.claims for above in upwards(path)):
                holdings.claims[path] = Claim(owner, path)
                _climb(os.path.dirname(path), holdings.containers)
        for root in holdings.roots:
            _climb(root, holdings.containers)

    def _split(self, location: Location, found: Resolved) -> tuple[str, str]:
        """The experiment's folder that a location lies in, and the rest of its path."""
        path, (kind, key, _) = found.path, location.owner
        home = self._experiments.get(location.experiment_id, "")
        if home and (path == home or path.startswith(home + "/")):
            return home, path[len(home) :]
        tails = {"run": (f"/{key}/artifacts",), "logged_model": (f"/models/{key}/artifacts", f"/{key}/artifacts")}
        for tail in tails.get(kind, ()):
            if path.endswith(tail):
                return path[: -len(tail)], tail
        return path, ""

    def _state(self, base: str) -> str:
        """Why nothing at an experiment's folder can be reached, '' where it can. The folder itself may be yet to come."""
        if base not in self._states:
            self._states[base] = self.ground.unreachable(base)
        return self._states[base]

    def _root_state(self, base: str, experiment_id: str) -> str:
        """Why what an experiment's runs logged cannot be here, '' where it may be."""
        key = base, experiment_id
        if key not in self._root_states:
            self._root_states[key] = self._find_root_state(base, experiment_id)
        return self._root_states[key]

    def _find_root_state(self, base: str, experiment_id: str) -> str:
        root, name = os.path.split(base)
        if name != experiment_id or experiment_id not in self.used:
            return ""
        missing = self.ground.missing(root)
        return f"the artifact root {shown(root)} {missing}; if nothing was ever logged there, make the empty folder" if missing else ""

    def _own_state(self, location: Location, path: str) -> str:
        kind, key, _ = location.owner
        if kind in ("model_version", "run_model") or (kind == "logged_model" and key in self._ready):
            missing = self.ground.missing(path)
            return f"the folder {shown(path)} {missing}" if missing else ""
        return ""

    def _real(self, base: str, experiment_id: str) -> str:
        """The real path of an experiment's folder; its root, and itself where a link leads out of the root, become roots."""
        known = self._bases.get((base, experiment_id))
        if known is not None:
            return known
        real = self.ground.real(base)
        parent, name = os.path.split(base)
        if name == experiment_id and parent != "/":
            root = self.ground.real(parent)
            self.add_root(root)
            if real != f"{root}/{name}":
                self.holdings.links.add(f"{root}/{name}")
                self.add_root(real)
        elif not any(above in self.holdings.roots for above in upwards(real)):
            self.add_root(real)
        self._bases[base, experiment_id] = real
        return real


def _is_in_order(location: Location, base: str) -> bool:
    """Whether a row is that of a run whose artifacts lie where MLflow puts them below an experiment's folder."""
    kind, key, _ = location.owner
    return kind == "run" and location.uri == f"{base}/{key}/artifacts" and key.isalnum()


def _missing(path: str) -> str:
    try:
        os.stat(path)
    except PermissionError:
        return "cannot be looked into (permission denied)"
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist here"
    except (OSError, ValueError) as error:
        return f"cannot be looked into ({getattr(error, 'strerror', error)})"
    return ""


def _climb(path: str, into: set[str]) -> None:
    while path not in into:
        into.add(path)
        path = parent(path)
