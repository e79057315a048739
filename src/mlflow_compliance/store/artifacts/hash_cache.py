"""What earlier audits found and read where nothing changed since: one file in a folder of the user's choice, and never
needed.

A file is unchanged where its path, device, inode, size, time of writing and time of change are; a row's folder where
this is so of every
file and of every folder in it, which cannot lose or gain an entry without a change of its own time. An entry is kept
only where all these times
are safely older than the audit: what was written to within the clock's tick after it was read would look unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.metadata import version
from itertools import chain, repeat
from time import time_ns as now
from typing import NamedTuple, TypeVar

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import ArtifactFile, DuplicateRules, ModelFolder
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.store.artifacts.cache_file import FILES, FOLDERS, MODELS, PLACES, CacheFile
from mlflow_compliance.store.storage.file_states import COARSE
from mlflow_compliance.store.storage.filesystem import tells_of_entries
from mlflow_compliance.store.storage.folder_scan import Found
from mlflow_compliance.store.storage.worker_pool import MOST_PARTS, WorkerPool

USER = "user"
OFF = "off"
_SUFFIX = ".hashes"
_SAFE = COARSE
_Value = TypeVar("_Value")
FileState = tuple[str, int, int, int]
"""Of a file: physical copy, size, time of writing, time of change."""


Members = tuple[tuple[str, int, int], ...]
"""Name, checksum and size of each member of an archive."""


class Learned(NamedTuple):
    """What an audit knows of its files. Where it is not `whole` (one could not be read) the next audit has to look for
    itself.
    """

    artifacts: Artifacts
    tokens: Mapping[str, str]
    """Path -> sample."""
    digests: Mapping[str, str]
    """Path -> SHA-256."""
    equal_archives: tuple[tuple[str, ...], ...]
    whole: bool


class Entry(NamedTuple):
    """The sample of a file, and its SHA-256 where all of it was read."""

    token: str
    digest: str


class Recalled(NamedTuple):
    """Files; model folders with their owner, judged where they count as models; physical copy -> hard links, where
    several;
    row's folder -> its owner, and when the newest file in it was written (ns).
    """

    files: dict[str, ArtifactFile]
    models: dict[str, tuple[EntityRef, ModelFolder | None]]
    links: dict[str, int]
    newest: dict[str, tuple[EntityRef, int]]


def cache_folder(named: str) -> str | None:
    """The folder behind a name: a path, `user` for the user's own cache, `off` for none."""
    if named == USER:
        from platformdirs import user_cache_dir

        return user_cache_dir("mlflow-compliance", appauthor=False)
    return None if named == OFF else os.path.abspath(os.path.expanduser(named))


class HashCache:
    """The memory of one store. `started` (ns) is when the audit began, before it looked at any file."""

    spares_recorded = False
    """Whether what is on record need not be read where it did not change: what others wrote to a disk may be a lie."""

    def __init__(
        self, folder: str, store: str, rules: DuplicateRules, started: int, old: CacheFile | None = None
    ) -> None:
        self.path = os.path.join(
            folder, f"{hashlib.sha256(store.encode(errors='surrogateescape')).hexdigest()[:32]}{_SUFFIX}"
        )
        self._about = [version("pytest-mlflow-compliance"), rules.min_size, list(rules.boilerplate)]
        self._before = min(started, now()) - _SAFE
        found = CacheFile.read(self.path) if old is None else old
        # Another version may see other things in the same bytes.
        self._old = old = (
            found if found is not None and found.about[:1] == self._about[:1] else CacheFile(self._about, [])
        )
        self._numbers = {folder: number for number, folder in enumerate(old.texts(FOLDERS, "path"))}
        self._spans = {table: old.spans(table) for table in (PLACES, FILES, MODELS)}
        self._recalled: list[int] = []
        self._noted: list[tuple[str, str, Found]] = []
        self._part = max(16, -(-len(self._numbers) // MOST_PARTS))

    def __len__(self) -> int:
        """The folders that an earlier audit left."""
        return len(self._numbers)

    def begin(self, share: WorkerPool) -> None:
        """Let every folder be verified."""
        places, files = self._old.texts(PLACES, "path"), self._old.texts(FILES, "path")
        asked = [
            ("\0".join([*places[self._in(PLACES, number)], *files[self._in(FILES, number)]]), mark)
            for number, mark in enumerate(self._old.texts(FOLDERS, "mark"))
        ]
        share.begin((), [asked[start : start + self._part] for start in range(0, len(asked), self._part)])

    def _in(self, table: str, number: int) -> slice:
        """Where a table tells of a folder."""
        spans = self._spans[table]
        return slice(spans[number], spans[number + 1])

    def recall(self, folders: Mapping[str, tuple[str, EntityRef]], share: WorkerPool) -> Recalled:
        """What is in those folders that did not change, by where in them artifacts are and by owner."""
        places = self._old.texts(FOLDERS, "artifacts")
        numbered = ((self._numbers.get(folder, -1), place, owner) for folder, (place, owner) in folders.items())
        known = sorted((number, owner) for number, place, owner in numbered if number >= 0 and places[number] == place)
        # Helpers verify meanwhile: what turns out to have changed is taken out again.
        found = self._recalled_from([number for number, _ in known], [owner for _, owner in known])
        same = bytearray(len(places))
        for part, verified in share.told():
            same[part * self._part : part * self._part + len(verified)] = bytes(verified)
        paths, models = self._old.texts(FILES, "path"), self._old.texts(MODELS, "path")
        names, newest = self._old.texts(FOLDERS, "path"), self._old.numbers(FOLDERS, "newest")
        copies = self._old.texts(FILES, "copy")
        links = {
            copy: count for copy, count in zip(copies, self._old.numbers(FILES, "links"), strict=True) if count > 1
        }
        for number, owner in known:
            if same[number]:
                self._recalled.append(number)
                found.newest[names[number]] = (owner, newest[number])
                if links:
                    found.links.update((copy, links[copy]) for copy in copies[self._in(FILES, number)] if copy in links)
                continue
            for path in paths[self._in(FILES, number)]:
                del found.files[path]
            for path in models[self._in(MODELS, number)]:
                del found.models[path]
        return found

    def _recalled_from(self, numbers: Sequence[int], owners: Sequence[EntityRef]) -> Recalled:
        old, counts, models = self._old, self._old.numbers(FOLDERS, FILES), self._old.numbers(FOLDERS, MODELS)

        def some(table: str, column: list[_Value]) -> Iterable[_Value]:
            return (
                column
                if len(numbers) == len(counts)
                else chain.from_iterable(column[self._in(table, number)] for number in numbers)
            )

        logged = list(map(bool, old.numbers(FILES, "logged")))
        owned = chain.from_iterable(
            repeat(owner, counts[number]) for number, owner in zip(numbers, owners, strict=True)
        )
        facts = zip(
            some(FILES, old.numbers(FILES, "size")),
            some(FILES, old.texts(FILES, "copy")),
            owned,
            some(FILES, logged),
            strict=True,
        )
        # What ArtifactFile(...) does, without a call of Python's a file.
        files = dict(
            zip(some(FILES, old.texts(FILES, "path")), map(tuple.__new__, repeat(ArtifactFile), facts), strict=True)
        )
        of = chain.from_iterable(repeat(owner, models[number]) for number, owner in zip(numbers, owners, strict=True))
        told = zip(some(MODELS, old.texts(MODELS, "path")), of, some(MODELS, old.texts(MODELS, "told")), strict=True)
        judged = {
            path: (owner, ModelFolder(path, owner, *_judged(text)) if text else None) for path, owner, text in told
        }
        return Recalled(files, judged, {}, {})

    def note(self, folder: str, artifacts: str, found: Found) -> None:
        """A folder that had to be looked into."""
        self._noted.append((folder, artifacts, found))

    def settled(self, artifacts: Artifacts) -> tuple[dict[str, str], tuple[tuple[str, ...], ...]] | None:
        """Path -> SHA-256, and twins, as an earlier audit found them; None where there is anything that it did not
        see, or saw by other rules.
        """
        old = self._old
        paths = old.texts(FILES, "path")
        if (
            not paths
            or len(paths) != len(artifacts.files)
            or len(self._recalled) != len(self._numbers)
            or old.about != [*self._about, True]
        ):
            return None
        digests = {path: digest for path, digest in zip(paths, old.texts(FILES, "digest"), strict=True) if digest}
        return digests, tuple(map(tuple, old.equal_archives))

    def look_up(self, paths: Iterable[str]) -> dict[str, Entry]:
        """Path -> what is known of it."""
        known: dict[str, Entry] = {}
        if self._numbers:
            tokens, digests = self._old.texts(FILES, "token"), self._old.texts(FILES, "digest")
            before = {
                path: (index, state)
                for index, (path, state) in enumerate(zip(self._old.texts(FILES, "path"), self._states(), strict=True))
            }
            for path in paths:
                index, state = before.get(path, (-1, None))
                if index >= 0 and (tokens[index] or digests[index]) and self._now.get(path) == state:
                    known[path] = Entry(tokens[index], digests[index])
        return known

    def states(self, artifacts: Artifacts) -> str:
        """See `Artifacts.states`; only what is kept in memory can tell."""
        return ""

    def members(self, path: str, read: Callable[[str], Members]) -> Members:
        """What `read` gives for an archive."""
        return read(path)

    def _states(self) -> Iterable[FileState]:
        old = self._old
        numbers = (old.numbers(FILES, name) for name in ("size", "written", "changed"))
        return zip(old.texts(FILES, "copy"), *numbers, strict=True)

    @cached_property
    def _now(self) -> dict[str, FileState]:
        """Of every file that was looked at."""
        states, paths = list(self._states()), self._old.texts(FILES, "path")
        found: dict[str, FileState] = {}
        for number in self._recalled:
            files = self._in(FILES, number)
            found.update(zip(paths[files], states[files], strict=True))
        for _, _, (seen, sizes, copies, _, _, _, _, _, stamps) in self._noted:
            assert stamps is not None
            found.update(zip(seen, zip(copies, sizes, stamps[1], stamps[2], strict=True), strict=True))
        return found

    def keep(self, learned: Learned) -> None:
        """Leave what this audit knows to the next."""
        new = self._gathered(learned)
        if not new.equals(self._old):
            new.write(self.path)

    def _gathered(self, learned: Learned) -> CacheFile:
        new = CacheFile([*self._about, learned.whole], [list(group) for group in learned.equal_archives])
        for number in self._recalled:
            self._carry(number, new)
        for folder, place, found in self._noted:
            self._add(folder, place, found, learned.artifacts.models, new)
        paths = new.texts(FILES, "path")
        safe = self._old_enough(new.texts(FILES, "copy"), new.numbers(FILES, "written"), new.numbers(FILES, "changed"))
        for name, values in (("token", learned.tokens), ("digest", learned.digests)):
            column = new.texts(FILES, name)
            column += [values.get(path, "") if old else "" for path, old in zip(paths, safe, strict=True)]
        return new

    def _old_enough(self, copies: Sequence[str], written: Sequence[int], changed: Sequence[int]) -> list[bool]:
        """Of each of some files, whether it was written to so long ago that a change would show in its times."""
        return [max(times) < self._before for times in zip(written, changed, strict=True)]

    def _is_old(self, youngest: int, device: int, changed: Sequence[int]) -> bool:
        """Whether this is so of all that is in a folder."""
        return youngest < self._before

    def _carry(self, number: int, new: CacheFile) -> None:
        """A folder that did not change; its tokens and digests are kept with all others."""
        where = {FOLDERS: slice(number, number + 1), **{table: self._in(table, number) for table in self._spans}}
        new.take_over(self._old, where, besides=("token", "digest"))

    def _add(self, folder: str, place: str, found: Found, models: Mapping[str, ModelFolder], new: CacheFile) -> None:
        paths, sizes, copies, logged, newest, names, documents, _, stamps = found
        assert stamps is not None
        places, written, changed, mark, youngest, device = stamps
        # Why an MLmodel could not be read may pass without a trace on the file: too many open files, say.
        doubtful = any(path in models and models[path].error for path in documents)
        safe = self._is_old(youngest, device, changed) and tells_of_entries(device) and not doubtful
        new.add(FOLDERS, path=[folder], artifacts=[place], mark=[mark if safe else ""], newest=[newest])
        new.add(FOLDERS, places=[len(places)], files=[len(paths)], models=[len(documents)])
        new.add(PLACES, path=places)
        links = [names.get(copy, 1) for copy in copies] if names else [1] * len(copies)
        new.add(
            FILES,
            path=paths,
            copy=copies,
            size=sizes,
            links=links,
            logged=map(int, logged),
            written=written,
            changed=changed,
        )
        # Not all that has an MLmodel counts as a model.
        new.add(MODELS, path=documents, told=[_told(models[path][2:]) if path in models else "" for path in documents])


@lru_cache(maxsize=256)
def _told(judged: tuple[tuple[str, ...], tuple[str, ...], str, str]) -> str:
    return json.dumps(judged)


@lru_cache(maxsize=256)
def _judged(told: str) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    missing, empty, artifact_path, error = json.loads(told)
    return tuple(missing), tuple(empty), artifact_path, error
