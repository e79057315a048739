"""Files of traces that have no row: deleting a trace in MLflow leaves them in the folder of its experiment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.unfinished import LostTraces
from mlflow_compliance.store.backends.base import Backend
from mlflow_compliance.store.ownership.other_stores import neighbours_of

_FOLDER = "/traces/"


@dataclass
class _Folders:
    """What lies in the folder of an experiment's traces: trace -> number and size of its files."""

    path: str
    traces: dict[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, ids: Collection[str], experiment_id: str, unknown: str = "") -> LostTraces:
        files, size = (sum(self.traces[key][part] for key in ids) for part in (0, 1))
        return LostTraces(experiment_id, self.path, tuple(sorted(ids)), files, size, unknown)


def lost_traces(found: Artifacts, backend: Backend) -> tuple[LostTraces, ...]:
    """By experiment. Asked after the walk: a trace that was logged meanwhile has its row by now."""
    folders = _folders(found)
    ids = {key for item in folders.values() for key in item.traces}
    if not ids:
        return ()
    known = backend.known_traces(ids)
    if known is None:
        reason = "a store of this kind is not asked for single traces"
        return tuple(item.of(item.traces, key, reason) for key, item in sorted(folders.items()))
    missing, doubts = ids.difference(known), dict[str, str]()
    if missing:
        doubts = _of_others(found, backend, missing)
    lost = []
    for key, item in sorted(folders.items()):
        by_reason: dict[str, list[str]] = {}
        for trace in missing & item.traces.keys():
            by_reason.setdefault(doubts.get(trace, doubts.get("", "")), []).append(trace)
        lost += [item.of(traces, key, reason) for reason, traces in sorted(by_reason.items())]
    return tuple(lost)


def _folders(found: Artifacts) -> Mapping[str, _Folders]:
    """Experiment -> the folders of traces in its own."""
    folders: dict[str, _Folders] = {}
    for path, file in found.files.items():
        if _FOLDER not in path or file.owner is None or file.owner.kind != "experiment":
            continue
        key, home = file.owner.key, found.locations.get(file.owner.place, "") + _FOLDER
        trace, inside, _ = path[len(home) :].partition("/") if path.startswith(home) else ("", "", "")
        if inside:
            item = folders.setdefault(key, _Folders(home.rstrip("/")))
            files, size = item.traces.get(trace, (0, 0))
            item.traces[trace] = files + 1, size + file.size
    return folders


def _of_others(found: Artifacts, backend: Backend, ids: Collection[str]) -> dict[str, str]:
    """Trace -> which other store has it; under '' why any of them may be another store's."""
    doubts: dict[str, str] = {}
    for other in neighbours_of(found, backend.home, backend.own(), ids, ()):
        if other.failed:
            doubts[""] = f"{other.path}, which may know them, cannot be read"
        doubts |= dict.fromkeys(other.bearers, f"the store in {other.path} has them")
    return doubts
