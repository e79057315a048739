"""What earlier audits found and read where nothing changed since: one file in a folder of the user's choice, and never needed.

A file is unchanged where its path, device, inode, size, time of writing and time of change are; a row's folder where this is so of every
file and of every folder in it, which cannot lose or gain an entry without a change of its own time. An entry is kept only where all these times
are safely older than the audit: what was written to within the clock's tick after it was read would look unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from importlib.metadata import version
from time import time_ns as now
from typing import NamedTuple

from mlflow_compliance.artifacts import Artifacts, DuplicateRules, ModelFolder
from mlflow_compliance.entities import EntityRef
from mlflow_compliance.store.helpers import MOST_PARTS, Share
from mlflow_compliance.store.memory import FILES, FOLDERS, MODELS, PLACES, Memory
from mlflow_compliance.store.mounts import tells_of_entries
from mlflow_compliance.store.visitor import Found

USER = "user"
OFF = "off"
_SUFFIX = ".hashes"
_SAFE = 2_000_000_000
"""The coarsest clock of a file system that is in use (FAT) ticks every two seconds."""
_State = tuple[str, int, int, int]
"""Of a file: physical copy, size, time of writing, time of change."""


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
        found = Memory.read(self.path)
        # Another version may see other things in the same bytes.
        self._old = old = found if found is not None and found.about[:1] == self._about[:1] else Memory(self._about, [])
        self._numbers = {folder: number for number, folder in enumerate(old.texts(FOLDERS, "path"))}
        self._spans = {table: old.spans(table) for table in (PLACES, FILES, MODELS)}
        self._same = bytearray(len(self._numbers))
        self._recalled: list[int] = []
        self._noted: list[tuple[str, str, Found]] = []
        self._part = max(16, -(-len(self._numbers) // MOST_PARTS))

    def __len__(self) -> int:
        """The folders that an earlier audit left."""
        return len(self._numbers)

    def begin(self, share: Share) -> None:
        """Let every folder be verified."""
        places, files = self._old.texts(PLACES, "path"), self._old.texts(FILES, "path")
        asked = [
            ("\0".join([*places[self._in(PLACES, number)], *files[self._in(FILES, number)]]), mark)
            for number, mark in enumerate(self._old.texts(FOLDERS, "mark"))
        ]
        share.begin((), [asked[start : start + self._part] for start in range(0, len(asked), self._part)])

    def verified(self, share: Share) -> Iterator[str]:
        """The folders that are as they were, as soon as they are known."""
        folders = self._old.texts(FOLDERS, "path")
        for part, same in share.told():
            for number, is_same in enumerate(same, part * self._part):
                self._same[number] = is_same
                if is_same:
                    yield folders[number]

    def _in(self, table: str, number: int) -> slice:
        """Where a table tells of a folder."""
        spans = self._spans[table]
        return slice(spans[number], spans[number + 1])

    def recall(self, folder: str, artifacts: str, owner: EntityRef) -> tuple[Found, dict[str, ModelFolder]] | None:
        """What is in a folder, and its models; None where it may have changed."""
        number = self._numbers.get(folder)
        places, newest, paths, sizes, copied, logged, links, documents, told = self._columns
        if number is None or not self._same[number] or places[number] != artifacts:
            return None
        self._recalled.append(number)
        files, models = self._in(FILES, number), self._in(MODELS, number)
        copies, found_in = copied[files], documents[models]
        names = {copy: links[copy] for copy in copies if copy in links} if links else {}
        found: Found = (paths[files], sizes[files], copies, logged[files], newest[number], names, dict.fromkeys(found_in), {}, None)
        return found, {path: ModelFolder(path, owner, *_judged(text)) for path, text in zip(found_in, told[models], strict=True) if text}

    @cached_property
    def _columns(self) -> tuple[list[str], list[int], list[str], list[int], list[str], list[bool], dict[str, int], list[str], list[str]]:
        """What `recall` looks into, folder by folder."""
        old = self._old
        copies, links = old.texts(FILES, "copy"), old.numbers(FILES, "links")
        return (
            old.texts(FOLDERS, "artifacts"),
            old.numbers(FOLDERS, "newest"),
            old.texts(FILES, "path"),
            old.numbers(FILES, "size"),
            copies,
            list(map(bool, old.numbers(FILES, "logged"))),
            {copy: count for copy, count in zip(copies, links, strict=True) if count > 1},
            old.texts(MODELS, "path"),
            old.texts(MODELS, "told"),
        )

    def note(self, folder: str, artifacts: str, found: Found) -> None:
        """A folder that had to be looked into."""
        self._noted.append((folder, artifacts, found))

    def settled(self, artifacts: Artifacts) -> tuple[dict[str, str], tuple[tuple[str, ...], ...]] | None:
        """Path -> SHA-256, and twins, as an earlier audit found them; None where there is anything that it did not see, or saw by other rules."""
        old = self._old
        paths = old.texts(FILES, "path")
        if not paths or len(paths) != len(artifacts.files) or len(self._recalled) != len(self._numbers) or old.about != [*self._about, True]:
            return None
        digests = {path: digest for path, digest in zip(paths, old.texts(FILES, "digest"), strict=True) if digest}
        return digests, tuple(map(tuple, old.twins))

    def look_up(self, paths: Iterable[str]) -> dict[str, Entry]:
        """Path -> what is known of it."""
        known: dict[str, Entry] = {}
        if self._numbers:
            tokens, digests = self._old.texts(FILES, "token"), self._old.texts(FILES, "digest")
            before = {path: (index, state) for index, (path, state) in enumerate(zip(self._old.texts(FILES, "path"), self._states(), strict=True))}
            for path in paths:
                index, state = before.get(path, (-1, None))
                if index >= 0 and tokens[index] and self._now.get(path) == state:
                    known[path] = Entry(tokens[index], digests[index])
        return known

    def _states(self) -> Iterable[_State]:
        old = self._old
        numbers = (old.numbers(FILES, name) for name in ("size", "written", "changed"))
        return zip(old.texts(FILES, "copy"), *numbers, strict=True)

    @cached_property
    def _now(self) -> dict[str, _State]:
        """Of every file that was looked at."""
        states, paths = list(self._states()), self._old.texts(FILES, "path")
        found: dict[str, _State] = {}
        for number in self._recalled:
            files = self._in(FILES, number)
            found.update(zip(paths[files], states[files], strict=True))
        for _, _, (seen, sizes, copies, _, _, _, _, _, stamps) in self._noted:
            assert stamps is not None
            found.update(zip(seen, zip(copies, sizes, stamps[1], stamps[2], strict=True), strict=True))
        return found

    def keep(
        self, artifacts: Artifacts, tokens: Mapping[str, str], digests: Mapping[str, str], twins: Iterable[tuple[str, ...]], *, whole: bool
    ) -> None:
        """Leave what this audit knows to the next. Where it is not `whole` (a file could not be read) the next one has to look for itself."""
        new = Memory([*self._about, whole], [list(group) for group in twins])
        for number in self._recalled:
            self._carry(number, new)
        for folder, place, found in self._noted:
            self._add(folder, place, found, artifacts.models, new)
        paths = new.texts(FILES, "path")
        times = zip(new.numbers(FILES, "written"), new.numbers(FILES, "changed"), strict=True)
        safe = [written < self._before and changed < self._before for written, changed in times]
        for name, values in (("token", tokens), ("digest", digests)):
            column = new.texts(FILES, name)
            column += [values.get(path, "") if old else "" for path, old in zip(paths, safe, strict=True)]
        new.write(self.path)

    def _carry(self, number: int, new: Memory) -> None:
        """A folder that did not change; its tokens and digests are kept with all others."""
        where = {FOLDERS: slice(number, number + 1), **{table: self._in(table, number) for table in self._spans}}
        new.take_over(self._old, where, besides=("token", "digest"))

    def _add(self, folder: str, place: str, found: Found, models: Mapping[str, ModelFolder], new: Memory) -> None:
        paths, sizes, copies, logged, newest, names, documents, _, stamps = found
        assert stamps is not None
        places, written, changed, mark, youngest, device = stamps
        safe = youngest < self._before and tells_of_entries(device)
        new.add(FOLDERS, path=[folder], artifacts=[place], mark=[mark if safe else ""], newest=[newest])
        new.add(FOLDERS, places=[len(places)], files=[len(paths)], models=[len(documents)])
        new.add(PLACES, path=places)
        links = [names.get(copy, 1) for copy in copies] if names else [1] * len(copies)
        new.add(FILES, path=paths, copy=copies, size=sizes, links=links, logged=map(int, logged), written=written, changed=changed)
        # Not all that has an MLmodel counts as a model.
        new.add(MODELS, path=documents, told=[_told(models[path][2:]) if path in models else "" for path in documents])


@lru_cache(maxsize=256)
def _told(judged: tuple[tuple[str, ...], tuple[str, ...], str, str]) -> str:
    return json.dumps(judged)


@lru_cache(maxsize=256)
def _judged(told: str) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    missing, empty, artifact_path, error = json.loads(told)
    return tuple(missing), tuple(empty), artifact_path, error
