"""What a session that repairs saw of its store's files when it last looked: its next look stats them all and reads what
changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import LINK, DuplicateRules, in_folder
from mlflow_compliance.store.artifacts.cache_file import FILES, CacheFile
from mlflow_compliance.store.artifacts.hash_cache import Entry, FileState, HashCache, Learned, Members
from mlflow_compliance.store.storage.file_states import is_settled, mark_of_file
from mlflow_compliance.store.storage.folder_scan import mark_of

_NONE = "none"


class SessionCache(HashCache):
    """A hash cache in memory. It knows files of every folder, those on record too, and trusts what this very process
    read. `folder` is that of the cache on disk, where one is asked for; `named` are the files that the settings name.
    """

    spares_recorded = True

    def __init__(
        self,
        folder: str | None,
        store: str,
        rules: DuplicateRules,
        started: int,
        before: SessionCache | None = None,
        named: Iterable[str] = (),
    ) -> None:
        nothing = None if folder else CacheFile([], [])
        super().__init__(folder or "", store, rules, started, nothing if before is None else before.left)
        self._on_disk = bool(folder)
        self._for_disk = False
        """Whether times are judged for other sessions, by the coarsest clock."""
        self._started = started
        self.spares_recorded = before is not None
        self.left: CacheFile = self._old
        """What this look leaves to the next."""
        self._loose: dict[str, tuple[FileState, Entry]] = dict(before._loose) if before is not None else {}
        """Files outside of the folders that are recalled as wholes."""
        self._members: dict[str, tuple[FileState, Members]] = dict(before._members) if before is not None else {}
        self._looked: dict[str, FileState | None] = {}
        self._named = [mark_of_file(path) if os.path.lexists(path) else _NONE for path in named]

    def _state(self, path: str) -> FileState | None:
        """Of one file, as it was before anything was read of it; None where it is not there."""
        known = self._now.get(path)
        if known is not None:
            return known
        if path not in self._looked:
            try:
                facts = os.lstat(path)
                self._looked[path] = (
                    f"{facts.st_dev}:{facts.st_ino}",
                    facts.st_size,
                    facts.st_mtime_ns,
                    facts.st_ctime_ns,
                )
            except OSError:
                self._looked[path] = None
        return self._looked[path]

    def _is_settled(self, state: FileState | None) -> bool:
        if state is None:
            return False
        copy, _, written, changed = state
        return is_settled(int(copy.partition(":")[0]), written, changed, self._started)

    def look_up(self, paths: Iterable[str]) -> dict[str, Entry]:
        asked = list(paths)
        known = super().look_up(asked)
        for path in asked:
            state, before = self._state(path), self._loose.get(path)
            if path not in known and before is not None and before[0] == state:
                known[path] = before[1]
        return known

    def members(self, path: str, read: Callable[[str], Members]) -> Members:
        """What `read` gives for an archive, read when it changed."""
        state, known = self._state(path), self._members.get(path)
        if known is not None and known[0] == state:
            return known[1]
        found = read(path)
        if state is not None and self._is_settled(state):
            self._members[path] = (state, found)
        return found

    def keep(self, learned: Learned) -> None:
        self.left = self._gathered(learned)
        within = set(self.left.texts(FILES, "path"))
        self._loose = {}
        for path in {**learned.tokens, **learned.digests}:
            state = self._looked.get(path)
            if path not in within and state is not None and self._is_settled(state):
                self._loose[path] = (state, Entry(learned.tokens.get(path, ""), learned.digests.get(path, "")))
        if self._on_disk:
            self._for_disk = True
            super().keep(learned)

    def _old_enough(self, copies: Sequence[str], written: Sequence[int], changed: Sequence[int]) -> list[bool]:
        if self._for_disk:
            return super()._old_enough(copies, written, changed)
        states = zip(copies, written, changed, strict=True)
        return [self._is_settled((copy, 0, wrote, moved)) for copy, wrote, moved in states]

    def _is_old(self, youngest: int, device: int, changed: Sequence[int]) -> bool:
        if self._for_disk:
            return super()._is_old(youngest, device, changed)
        # The digits of a file's time tell of the clock, and so do those of its folder's.
        return is_settled(device, youngest, max(changed, default=youngest), self._started)

    def states(self, artifacts: Artifacts) -> str:
        """One word for the states of all files here, and of those that the settings name; '' where one may have
        changed since it was looked at and look the same.
        """
        if not all(self._named):
            return ""
        found: list[tuple[int | str, ...]] = [tuple(self._named)]
        for path in sorted(filter(in_folder, artifacts.files)):
            state = self._state(path)
            if state is None or not self._is_settled(state):
                return ""
            found.append((path, *state))
            if artifacts.files[path].copy.startswith(LINK):
                behind = mark_of_file(path)
                if not behind:
                    return ""
                found.append((path, behind))
        return mark_of(found)
