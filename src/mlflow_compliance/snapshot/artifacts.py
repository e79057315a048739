"""The artifact side of a Snapshot: roots, files, owners, model folders, duplicates, as an immutable value.

Paths are absolute paths on this machine (after `[store.relocate]`) or locations in object stores, as text with
undecodable bytes kept by surrogate
escapes; they may be hostile and are cleaned where they are shown.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar, cast

from mlflow_compliance.snapshot.files import (
    ArtifactFile,
    ArtifactRoot,
    DuplicateGroup,
    DuplicateRules,
    ModelFolder,
    Ownerless,
    Pointer,
    Quarantined,
    Unreachable,
)
from mlflow_compliance.snapshot.moved import Moved, PlaceInRow, begins_with
from mlflow_compliance.snapshot.ownership import Dated, Doubt, Outdated
from mlflow_compliance.snapshot.presence import Presence, Unknown
from mlflow_compliance.snapshot.unfinished import LostTraces

_Value = TypeVar("_Value")


class _ByContent:
    """The paths of every content that several have, found once while the hashes are the same: each of ten thousand
    links asks.
    """

    def __init__(self) -> None:
        self._hashes: Mapping[str, str] | None = None
        self._paths: dict[str, list[str]] = {}

    def __reduce__(self) -> tuple[type[_ByContent], tuple[()]]:
        return _ByContent, ()  # another process finds them for itself

    def paths(self, hashes: Mapping[str, str]) -> Mapping[str, list[str]]:
        """Content -> its paths, where they are more than one."""
        if self._hashes is not hashes:
            found: dict[str, list[str]] = defaultdict(list)
            often = Counter(hashes.values())
            for path, digest in hashes.items():
                if often[digest] > 1:
                    found[digest].append(path)
            self._hashes, self._paths = hashes, found
        return self._paths


@dataclass(frozen=True)
class Artifacts:
    """Everything below the artifact roots, as one walk found it."""

    roots: tuple[ArtifactRoot, ...]
    files: Mapping[str, ArtifactFile]
    locations: Mapping[tuple[str, str], str]
    """(kind, key) of a run, logged model, model version or experiment -> the local folder of its artifacts."""
    ownerless: Mapping[str, Ownerless] = field(default_factory=dict)
    emptied: Mapping[str, int] = field(default_factory=dict)
    """Path of a root -> how many folders it has, with the name of a run, model or experiment, that no row owns and
    that hold no file.
    """
    outdated: Mapping[str, Outdated] = field(default_factory=dict)
    """Path of a root -> what lies there that is newer than every row. Nothing in such a root is touched."""
    quarantined: Mapping[str, Quarantined] = field(default_factory=dict)
    """Path in a quarantine -> what lies there although a row owns its former place."""
    illegible: Mapping[str, str] = field(default_factory=dict)
    """Path of a quarantine's manifest -> what is wrong with it."""
    unknown: Mapping[tuple[str, str], Unknown] = field(default_factory=dict)
    """(kind, key) of a row -> why the place that it names was not looked at. Such a row has no entry in `locations`."""
    doubts: Mapping[str, Doubt] = field(default_factory=dict)
    """Path of a root, or of a file -> why it, and what lies in it, is perhaps not this store's alone. Asked through
    `doubt`.
    """
    claimed: frozenset[str] = frozenset()
    """Paths of the roots in which a note of an earlier repair says that they are this store's."""
    insisted: frozenset[str] = frozenset()
    """Paths of the roots that the user says are this store's."""
    unreachable: tuple[Unreachable, ...] = ()
    moved: tuple[Moved, ...] = ()
    """Prefixes of rows whose place was not looked at, though folders here bear the ids that they name."""
    relocated: Mapping[str, int] = field(default_factory=dict)
    """Prefix in the rows -> number of rows read through [store.relocate]."""
    elsewhere: tuple[PlaceInRow, ...] = ()
    """What could be rewritten of the places that are read through [store.relocate]."""
    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Path -> SHA-256 (hex), for the files that had to be read: candidates for duplicates, and those on record. In
    object stores 'md5:' and hex.
    """
    recorded: Mapping[str, str] = field(default_factory=dict)
    """Path -> the SHA-256 on record since this program made it share a copy, or logged it with a production run."""
    equal_archives: tuple[tuple[str, ...], ...] = ()
    """Groups of zip containers that hold the same members but differ in bytes (time stamps)."""
    newest: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(kind, key) of an owner -> when the newest of its files was last written, in milliseconds."""
    newest_row: int = 0
    """The latest time that a run or model of the store is dated by its rows, in milliseconds; 0 where none is."""
    coming: Mapping[str, int] = field(default_factory=dict)
    """Folder of an experiment that is not there yet, nor a root that it will lie in -> the device that it will be
    on.
    """
    linked_outside: frozenset[str] = frozenset()
    """Physical copies that have hard links which are not below any root: somebody else's files."""
    hard_links: frozenset[str] = frozenset()
    """Physical copies that have several names."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Path of a symbolic link, to a file or a folder -> where it leads in the end."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Path -> why it could not be read. Never silently left out."""
    pointers: Mapping[str, Pointer] = field(default_factory=dict)
    """Path of an object -> where a pointer beside it leads, for those that hold: such an object is a duplicate no
    more.
    """
    deleted_runs: Mapping[str, int] = field(default_factory=dict)
    """Id of a run that is soft-deleted -> when it was, in milliseconds; 0 where the store does not say."""
    lost_traces: tuple[LostTraces, ...] = ()
    rules: DuplicateRules = field(default_factory=DuplicateRules)
    samples: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Path -> what the walk read of it, between the walk and the hashing."""
    dated: Mapping[str, Dated] = field(default_factory=dict, repr=False, compare=False)
    """Folder of a run or model that no row owns -> its times, between the walk and the comparison with the rows'
    times.
    """
    states: str = field(default="", repr=False, compare=False)
    """One word for the states of all files here and of those that the settings name: while it is the same, they hold
    what they held. '' where that cannot be said.
    """
    _by_content: _ByContent = field(default_factory=_ByContent, repr=False, compare=False)

    def presence(self, row: tuple[str, str]) -> Presence:
        """What is known of the folder of a row, by (kind, key)."""
        if row in self.unknown:
            return Presence.UNKNOWN
        return Presence.HERE if row in self.locations else Presence.ABSENT

    def aside(self, row: tuple[str, str]) -> Quarantined | None:
        """What lies in quarantine of the files of a row, by (kind, key)."""
        return self._aside.get(row)

    @cached_property
    def _aside(self) -> dict[tuple[str, str], Quarantined]:
        return {row: item for item in self.quarantined.values() for row in (item.owner.place, *item.rows)}

    def moved_from(self, place: str) -> list[Moved]:
        """What is known of where the files of rows that are told by a place are now."""
        return [item for item in self.moved if place in item.places]

    def mapped(self, uri: str) -> str:
        """The prefix of [store.relocate] that a row's location is read by, '' for a row that is read as it stands."""
        return max((prefix for prefix in self.relocated if begins_with(uri, prefix)), key=len, default="")

    def doubt(self, path: str) -> Doubt | None:
        """Why what lies at a path must stay as it is, because it is perhaps not this store's alone; None where
        nothing speaks against changing it.
        """
        root = self.root_of(path)
        if root and root.path in self.outdated:
            return self.outdated[root.path].doubt
        if path in self.doubts:
            return self.doubts[path]
        item = self.ownerless.get(path)
        if item and item.keep:
            return Doubt(item.keep, item.way)
        return self.doubts.get(root.path) if root else None

    def root_of(self, path: str) -> ArtifactRoot | None:
        """The innermost root that holds a path."""
        holding = [root for root in self.roots if path == root.path or path.startswith(root.path + os.sep)]
        return max(holding, key=lambda root: len(root.path), default=None)

    def relative(self, path: str) -> str:
        """A path as people read it: from its root's own name on."""
        root = self.root_of(path)
        return os.path.basename(root.path) + path[len(root.path) :] if root else path

    def under(self, folder: str) -> dict[str, ArtifactFile]:
        """The files at or below a folder."""
        return {path: self.files[path] for path in _at_or_below(self._sorted_files, folder)}

    def models_in(self, folder: str) -> list[ModelFolder]:
        """The model folders at or below a folder."""
        return [self.models[path] for path in _at_or_below(self._sorted_models, folder)]

    @cached_property
    def _sorted_files(self) -> list[str]:
        return sorted(self.files)

    @cached_property
    def _sorted_models(self) -> list[str]:
        return sorted(self.models)

    def device(self, path: str) -> int | None:
        """The device that a path lies on: its own where the walk saw it (another one may be mounted below a root),
        else its root's.
        """
        own = self.files[path].copy.partition(":")[0] if path in self.files else ""
        if own.isdecimal():
            return int(own)
        root = self.root_of(path)
        return root.device if root else None

    def device_of(self, folder: str) -> int | None:
        """The device of an experiment's folder: that of the files in it, which may be mounted below its root, else
        its root's.
        """
        copies = (self.files[path].copy.partition(":")[0] for path in _at_or_below(self._sorted_files, folder))
        own = next(filter(str.isdecimal, copies), "")
        return int(own) if own else self.coming.get(folder, self.device(folder))

    def duplicates(self, root: str | None = None) -> list[DuplicateGroup]:
        """Groups of owned artifacts with one content in several physical copies; with `root`, those whose first
        extra copy lies there.
        """
        return [group for group in self._groups if root is None or self._home(group) == root]

    def duplicate(self, sha256: str) -> DuplicateGroup | None:
        """The group with this content, None where it is in one physical copy at most."""
        return self._group(sha256, self._paths_of.get(sha256, ()), self.rules.applied())

    @cached_property
    def _groups(self) -> list[DuplicateGroup]:
        """In the order of the paths. Found once: every finding asks again."""
        apply_to = self.rules.applied()
        found = (self._group(digest, paths, apply_to) for digest, paths in self._paths_of.items())
        return sorted((group for group in found if group is not None), key=lambda group: group.paths)

    @property
    def _paths_of(self) -> Mapping[str, list[str]]:
        return self._by_content.paths(self.hashes)

    def _group(self, digest: str, same: Sequence[str], apply_to: Callable[[str, int], bool]) -> DuplicateGroup | None:
        paths, copies, files = [], set(), self.files
        for path in same:
            if path in files and path not in self.pointers:
                size, copy, owner, logged = files[path]
                if logged and owner and apply_to(path, size):
                    paths.append(path)
                    copies.add(copy)
        return DuplicateGroup(digest, files[paths[0]].size, tuple(sorted(paths))) if len(copies) > 1 else None

    def extras(self, group: DuplicateGroup) -> list[str]:
        """The paths of a group that are not yet the same physical copy as its first path."""
        kept = self.files[group.paths[0]].copy
        return [path for path in group.paths if self.files[path].copy != kept]

    def _home(self, group: DuplicateGroup) -> str:
        root = self.root_of(self.extras(group)[0])
        return root.key if root else ""

    def linked(self, path: str, kept: str) -> Artifacts:
        """As this, with `path` the same physical copy as `kept`; its hash goes on record."""
        file = self.files[path]._replace(copy=self.files[kept].copy)
        digest = self.hashes[kept]
        known = self.hashes.get(path) == digest
        return replace(
            self,
            files=_with(self.files, {path: file}),
            hashes=self.hashes if known else {**self.hashes, path: digest},
            recorded=_with(self.recorded, {path: digest, kept: digest}),
        )

    def without(self, folder: str) -> Artifacts:
        """As this, with everything at and below a folder gone."""
        below = folder + os.sep

        def left(entries: Mapping[str, _Value]) -> dict[str, _Value]:
            return {path: value for path, value in entries.items() if path != folder and not path.startswith(below)}

        return replace(
            self,
            files=left(self.files),
            ownerless={path: item for path, item in self.ownerless.items() if path != folder},
            models=left(self.models),
            hashes=left(self.hashes),
            recorded=left(self.recorded),
            pointers=left(self.pointers),
        )

    def given_back(self, item: Quarantined) -> Artifacts:
        """As this, with something from a quarantine at its former place again."""
        return replace(
            self,
            files={**self.files, **item.files},
            models={**self.models, **item.models},
            locations={**self.locations, **item.rows},
            unreachable=tuple(
                gone for gone in self.unreachable if gone.why is not None or gone.place not in item.places
            ),
            quarantined={path: other for path, other in self.quarantined.items() if path != item.path},
        )

    def with_files(self, files: Mapping[str, ArtifactFile], hashes: Mapping[str, str]) -> Artifacts:
        """As this, with more files; `hashes` for those of them whose content is known."""
        return replace(self, files={**self.files, **files}, hashes={**self.hashes, **hashes})


def _with(entries: Mapping[str, _Value], others: Mapping[str, _Value]) -> Mapping[str, _Value]:
    """Entries with some of them replaced, at the cost of those that were replaced so far and not of all."""
    if isinstance(entries, ChainMap):
        return ChainMap({**entries.maps[0], **others}, *entries.maps[1:])
    return ChainMap(dict(others), cast("MutableMapping[str, _Value]", entries))


def _at_or_below(ordered: Sequence[str], folder: str) -> Iterator[str]:
    """Of sorted paths, the folder itself and those that begin with it: they stand together, so none of the others
    is looked at.
    """
    start = bisect_left(ordered, folder)
    if start < len(ordered) and ordered[start] == folder:
        yield folder
    prefix = folder + os.sep
    for number in range(bisect_left(ordered, prefix, start), len(ordered)):
        if not ordered[number].startswith(prefix):
            return
        yield ordered[number]
