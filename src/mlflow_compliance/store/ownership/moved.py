"""Where the files of rows are that name a place which is not here: found by the ids that the rows and folders here
have in common.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from mlflow_compliance.snapshot.moved import Moved
from mlflow_compliance.snapshot.presence import Unknown, Why
from mlflow_compliance.snapshot.refs import Location
from mlflow_compliance.store.storage.locations import is_file_place, plain

DEPTH = 2
"""How far below the folder of the store folders are looked at."""
MOST = 1000
"""Folders that are looked at: a database in a home folder must not mean a walk of all of it."""
_PART = re.compile(r"[^/\\]+")
_ID = re.compile(r"(m-)?[0-9a-f]{32}")
_WITHOUT_STORES = frozenset({"node_modules", "__pycache__", "site-packages"})
_LOOKED_FOR = frozenset({Why.ELSEWHERE, Why.NO_ROOT, Why.EMPTY_ROOT, Why.SERVER})

Tail = tuple[str, ...]
"""The end of a location up to the id of its run or model, folder by folder."""


def stem(uri: str, experiment_id: str, key: str) -> tuple[str, Tail]:
    """A location as what lies before its ids, and the folders from its experiment to the run or model; the latter
    empty where it names none.
    """
    parts = list(_PART.finditer(uri))
    own = [number for number, part in enumerate(parts) if part[0] == key]
    ids = [number for number, part in enumerate(parts) if _ID.fullmatch(part[0])]
    # Of a model that lies in a run's folder the run is meant, whatever the folders below it are called.
    logged = [number for number in ids if [part[0] for part in parts[number + 1 : number + 2]] == ["artifacts"]]
    found = (own or logged or ids)[-1:]
    if not found or key == experiment_id:
        return uri, ()
    first = last = found[0]
    if first and parts[first - 1][0] in ("models", "traces"):
        first -= 1
    if first and (parts[first - 1][0] == experiment_id or (not experiment_id and parts[first - 1][0].isdigit())):
        first -= 1
    prefix = uri[: parts[first].start()].rstrip("/\\")
    return prefix, tuple(part[0] for part in parts[first : last + 1])


def find_moved(
    locations: Iterable[Location], unknown: Mapping[tuple[str, str], Unknown], near: Sequence[str], roots: Iterable[str]
) -> tuple[Moved, ...]:
    """The prefixes of rows whose place is not known, each with the folder that bears the most of their ids.

    Looked for in the folders `near` the store and below them, and in `roots`.
    """
    tails: dict[str, Counter[Tail]] = defaultdict(Counter)
    places: dict[str, set[str]] = defaultdict(set)
    for owner, experiment_id, uri in locations:
        known = unknown.get(owner.place)
        if known is not None and known.why in _LOOKED_FOR:
            prefix, tail = stem(uri, experiment_id, owner.key)
            if tail and _may_be_mapped(prefix):
                tails[prefix][tail] += 1
                places[prefix].add(known.place)
    if not tails:
        return ()
    folders, names = list(dict.fromkeys((*_below(near), *roots))), _Names()
    found = []
    for prefix, wanted in sorted(tails.items()):
        counts = _counted(wanted, folders, names)
        most = max(counts.values(), default=0)
        if most:
            best = tuple(sorted(folder for folder, count in counts.items() if count == most))
            shown = prefix if is_file_place(prefix) or "/" in prefix else f"{prefix}/"
            found.append(Moved(shown, best, most, wanted.total(), tuple(sorted(places[prefix]))))
    return tuple(found)


def _may_be_mapped(prefix: str) -> bool:
    """Whether a prefix can be written into the settings: it leaves something out, and holds no password."""
    if not prefix or (is_file_place(prefix) and plain(prefix).strip("/") == ""):
        return False
    try:
        return "@" not in urlsplit(prefix).netloc
    except ValueError:
        return False


def _counted(wanted: Counter[Tail], folders: Sequence[str], names: _Names) -> dict[str, int]:
    """Folder -> how many rows have their id in it; one folder under two names counts once."""
    together: dict[Tail, list[tuple[str, int]]] = defaultdict(list)
    for tail, rows in wanted.items():
        together[tail[:-1]].append((tail[-1], rows))
    counts: dict[str, int] = {}
    for folder in folders:
        count = sum(rows for above, ids in together.items() for name, rows in ids if name in names.of(folder, above))
        if count:
            counts[folder] = count
    return counts


class _Names:
    """What folders hold, each listed once."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {}

    def of(self, folder: str, below: Tail) -> frozenset[str]:
        for number, name in enumerate(below):
            if name not in self._listed(os.path.join(folder, *below[:number])):
                return frozenset()
        return self._listed(os.path.join(folder, *below))

    def _listed(self, path: str) -> frozenset[str]:
        if path not in self._known:
            try:
                self._known[path] = frozenset(os.listdir(path))
            except OSError:
                self._known[path] = frozenset()
        return self._known[path]


def _below(near: Sequence[str]) -> Iterator[str]:
    """Folders in which a store's artifacts may lie, the nearest first; each real folder once."""
    seen: set[str] = set()
    level = list(near)
    for depth in range(DEPTH + 1):
        deeper: list[str] = []
        for folder in level:
            real = os.path.realpath(folder)
            if real in seen or len(seen) >= MOST or not os.path.isdir(folder) or not _is_text(folder):
                continue
            seen.add(real)
            yield folder
            if depth < DEPTH:
                with suppress(OSError):
                    deeper += sorted(
                        entry.path for entry in os.scandir(folder) if _may_hold_a_store(entry.name) and entry.is_dir()
                    )
        level = deeper


def _may_hold_a_store(name: str) -> bool:
    return not (name.startswith(".") or name.isdigit() or name in _WITHOUT_STORES or _ID.fullmatch(name))


def _is_text(path: str) -> bool:
    """Settings are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
