"""What earlier audits found and read where nothing changed since: one file in a folder of the user's choice, and never needed.

A file is unchanged where its path, device, inode, size, time of writing and time of change are; a row's folder where this is so of every
file and of every folder in it, which cannot lose or gain an entry without a change of its own time. An entry is kept only where all these times
are safely older than the audit: what was written to within the clock's tick after it was read would look unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from importlib.metadata import version
from time import time_ns as now
from typing import NamedTuple

from mlflow_compliance.artifacts import Artifacts, DuplicateRules, ModelFolder
from mlflow_compliance.entities import EntityRef
from mlflow_compliance.store.comparing import Copy
from mlflow_compliance.store.helpers import MOST_PARTS, Share
from mlflow_compliance.store.memory import Memory, read_memory, write_memory
from mlflow_compliance.store.mounts import tells_of_entries
from mlflow_compliance.store.visitor import Found

USER = "user"
OFF = "off"
_SUFFIX = ".hashes"
_SAFE = 2_000_000_000
"""The coarsest clock of a file system that is in use (FAT) ticks every two seconds."""


class Entry(NamedTuple):
    """The sample of a file, and its SHA-256 where all of it was read."""

    token: str
    digest: str


def cache_folder(named: str) -> str | None:
    """The folder behind a name: a path, `user` for the user's own cache, `off` for none."""
    if named == USER:
        from platformdirs import user_cache_dir

        return user_cache_dir("mlflow-compliance", appauthor=False)
    return None if named == OFF else os.path.abspath(os.path.expanduser(named))


class HashCache:
    """The memory of one store. `started` (ns) is when the audit began, before it looked at any file."""

    def __init__(self, folder: str, store: str, rules: DuplicateRules, started: int) -> None:
        self.path = os.path.join(folder, f"{hashlib.sha256(store.encode(errors='surrogateescape')).hexdigest()[:32]}{_SUFFIX}")
        self._about = [version("pytest-mlflow-compliance"), rules.min_size, list(rules.boilerplate)]
        self._before = min(started, now()) - _SAFE
        found = read_memory(self.path)
        # Another version may see other things in the same bytes.
        self._old = found if found is not None and found.about[:1] == self._about[:1] else Memory(self._about)
        old = self._old
        self._numbers = {folder: number for number, folder in enumerate(old.folders.path)}
        self._spans = [old.spans(counts) for counts in (old.folders.places, old.folders.files, old.folders.models)]
        self._same = bytearray(len(old.folders.path))
        self._recalled: list[int] = []
        self._noted: list[tuple[str, str, Found]] = []

    def __len__(self) -> int:
        """The folders that an earlier audit left."""
        return len(self._numbers)

    def begin(self, share: Share) -> None:
        """Let every folder be verified."""
        old, (places, files, _) = self._old, self._spans
        asked = [
            (old.places[places[number] : places[number + 1]] + old.files.path[files[number] : files[number + 1]], mark)
            for number, mark in enumerate(old.folders.mark)
        ]
        size = max(16, -(-len(asked) // MOST_PARTS))
        share.begin((), [asked[start : start + size] for start in range(0, len(asked), size)])
        self._size = size

    def end(self, share: Share) -> None:
        """Learn which folders are as they were."""
        for number, same in share.told():
            self._same[number * self._size : number * self._size + len(same)] = bytes(same)

    def recall(self, folder: str, artifacts: str, owner: EntityRef) -> tuple[Found, dict[str, ModelFolder]] | None:
        """What is in a folder, and its models; None where it may have changed."""
        number = self._numbers.get(folder)
        old = self._old
        if number is None or not self._same[number] or old.folders.artifacts[number] != artifacts:
            return None
        self._recalled.append(number)
        _, files, models = self._spans
        a, b, c, d = files[number], files[number + 1], models[number], models[number + 1]
        copies, links = old.files.copy[a:b], old.files.links[a:b]
        names = {copy: count for copy, count in zip(copies, links, strict=True) if count > 1}
        told = {path: _judged(path, owner, text) for path, text in zip(old.model[c:d], old.told[c:d], strict=True) if text}
        logged = list(map(bool, old.files.logged[a:b]))
        found: Found = (
            old.files.path[a:b],
            old.files.size[a:b],
            copies,
            logged,
            old.folders.newest[number],
            names,
            dict.fromkeys(old.model[c:d]),
            {},
            None,
        )
        return found, told

    def note(self, folder: str, artifacts: str, found: Found) -> None:
        """A folder that had to be looked into."""
        self._noted.append((folder, artifacts, found))

    def settled(self, artifacts: Artifacts) -> tuple[dict[str, str], tuple[tuple[str, ...], ...]] | None:
        """Path -> SHA-256, and twins, as an earlier audit found them; None where there is anything that it did not see, or saw by other rules."""
        old = self._old
        known = sum(map(old.folders.files.__getitem__, self._recalled))
        if not known or known != len(artifacts.files) or old.about != self._about or len(self._recalled) != len(self._numbers):
            return None
        digests = {path: digest for path, digest in zip(old.files.path, old.files.digest, strict=True) if digest}
        return digests, tuple(map(tuple, old.twins))

    def look_up(self, copies: Iterable[Copy]) -> dict[str, Entry]:
        """Path -> what is known of it."""
        old, known = self._old.files, {}
        if self._numbers:
            stamps = self._stamps
            for copy in copies:
                index = self._indexes.get(copy.path)
                if index is not None and old.token[index] and stamps.get(copy.path) == self._stamp(index):
                    known[copy.path] = Entry(old.token[index], old.digest[index])
        return known

    @cached_property
    def _indexes(self) -> dict[str, int]:
        return {path: index for index, path in enumerate(self._old.files.path)}

    def _stamp(self, index: int) -> tuple[int, str, int, int]:
        old = self._old.files
        return old.size[index], old.copy[index], old.written[index], old.changed[index]

    @cached_property
    def _stamps(self) -> dict[str, tuple[int, str, int, int]]:
        """Of every file that was looked at: size, physical copy, time of writing and time of change."""
        found = {}
        for number in self._recalled:
            for index in range(*self._spans[1][number : number + 2]):
                found[self._old.files.path[index]] = self._stamp(index)
        for _, _, (paths, sizes, copies, _, _, _, _, _, stamps) in self._noted:
            assert stamps is not None
            found.update(zip(paths, zip(sizes, copies, stamps[1], stamps[2], strict=True), strict=True))
        return found

    def keep(self, artifacts: Artifacts, tokens: Mapping[str, str], digests: Mapping[str, str], twins: Iterable[tuple[str, ...]]) -> None:
        """Leave what this audit knows to the next."""
        new = Memory(self._about, [list(group) for group in twins])
        for number in self._recalled:
            self._copy(number, new)
        for folder, place, found in self._noted:
            self._add(folder, place, found, artifacts.models, new)
        old = [max(times) < self._before for times in zip(new.files.written, new.files.changed, strict=True)]
        new.files.token = [tokens.get(path, "") if safe else "" for path, safe in zip(new.files.path, old, strict=True)]
        new.files.digest = [digests.get(path, "") if safe else "" for path, safe in zip(new.files.path, old, strict=True)]
        if new != self._old:
            write_memory(self.path, new)

    def _copy(self, number: int, new: Memory) -> None:
        old = self._old
        for name in ("path", "artifacts", "mark", "newest", "places", "files", "models"):
            getattr(new.folders, name).append(getattr(old.folders, name)[number])
        (a, b), (c, d), (e, f) = (spans[number : number + 2] for spans in self._spans)
        new.places += old.places[a:b]
        for name in ("path", "copy", "size", "links", "logged", "written", "changed"):
            getattr(new.files, name).extend(getattr(old.files, name)[c:d])
        new.model += old.model[e:f]
        new.told += old.told[e:f]

    def _add(self, folder: str, place: str, found: Found, models: Mapping[str, ModelFolder], new: Memory) -> None:
        paths, sizes, copies, logged, newest, names, documents, _, stamps = found
        assert stamps is not None
        places, written, changed, mark, youngest, device = stamps
        safe = youngest < self._before and tells_of_entries(device)
        row = (folder, place, mark if safe else "", newest, len(places), len(paths), len(documents))
        for name, value in zip(("path", "artifacts", "mark", "newest", "places", "files", "models"), row, strict=True):
            getattr(new.folders, name).append(value)
        new.places += places
        new.files.path += paths
        new.files.copy += copies
        new.files.size += sizes
        new.files.links += [names.get(copy, 1) for copy in copies]
        new.files.logged += map(int, logged)
        new.files.written += written
        new.files.changed += changed
        new.model += documents
        # Not all that has an MLmodel counts as a model.
        new.told += [json.dumps(models[path][2:]) if path in models else "" for path in documents]


def _judged(path: str, owner: EntityRef, text: str) -> ModelFolder:
    return ModelFolder(path, owner, *_told(text))


@lru_cache(maxsize=256)
def _told(text: str) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    missing, empty, artifact_path, error = json.loads(text)
    return tuple(missing), tuple(empty), artifact_path, error
