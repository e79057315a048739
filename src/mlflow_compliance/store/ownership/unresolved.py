"""What this store's rows may mean that do not lead to their files: their ids, the endings of their places, and what
a server serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import Experiment
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.store.ownership.entries import ID
from mlflow_compliance.store.storage.locations import NOT_FILES, plain, scheme_of

_SERVED = "mlflow-artifacts"
_ON_A_MACHINE = ("", "file", _SERVED)
"""Schemes of places that may be a folder of this machine under another name. A bucket is none."""


@dataclass
class Meant:
    """The rows by what a file may show of them."""

    known: dict[str, EntityRef] = field(default_factory=dict)
    """Id of a run or logged model -> its row."""
    away: dict[str, EntityRef] = field(default_factory=dict)
    """The same for rows that have no file where they say, and ids in the places of rows that were not looked at."""
    shared: dict[str, EntityRef] = field(default_factory=dict)
    """Ids in the places of rows that were not looked at, and that may be folders of this machine."""
    experiments: dict[str, EntityRef] = field(default_factory=dict)
    """Id of an experiment -> a row of it whose place was not looked at."""
    endings: dict[str, EntityRef] = field(default_factory=dict)
    """Last name of a place without ids that was not looked at -> its row."""
    served: EntityRef | None = None
    """A row whose files a server keeps in a folder that only it knows."""


def meant_by(locations: Sequence[Location], artifacts: Artifacts, experiments: Mapping[str, Experiment]) -> Meant:
    """What rows may mean, by the walk's word for where they lead."""
    found, placed, used = Meant(), artifacts.locations, _used(locations, experiments)
    for owner, experiment_id, uri in locations:
        scheme = scheme_of(uri)
        if scheme in NOT_FILES:
            continue
        place = placed.get(owner.place)
        served = scheme == _SERVED and (place is None or not place.startswith("/"))
        if served and not found.served and (owner.kind != "experiment" or owner.key in used):
            found.served = owner
        if owner.kind in ("run", "logged_model"):
            found.known[owner.key] = owner
            if place is None or owner.place not in artifacts.newest:
                found.away.setdefault(owner.key, owner)
        if place is not None and not served:
            continue
        ids = [part for part in _parts(uri) if ID.fullmatch(part)]
        for key in ids:
            if place is None:
                found.away.setdefault(key, owner)
            if scheme in _ON_A_MACHINE and (served or owner.place in artifacts.unknown):
                found.shared.setdefault(key, owner)
        if place is None:
            found.experiments.setdefault(experiment_id, owner)
        if not ids and place is None and (ending := _parts(uri)[-1]) != experiment_id:
            found.endings.setdefault(ending, owner)
    found.experiments.pop("", None)
    found.endings.pop("", None)
    return found


def _used(locations: Iterable[Location], experiments: Mapping[str, Experiment]) -> set[str]:
    """Experiments in whose folder something may have been written. The one that every store begins with is often
    empty.
    """
    return {location.experiment_id for location in locations if location.owner.kind != "experiment"} | {
        key for key, item in experiments.items() if item.traces
    }


def _parts(uri: str) -> list[str]:
    return unquote(plain(uri)).replace("\\", "/").rstrip("/").split("/")
