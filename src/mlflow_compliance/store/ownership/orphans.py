"""What no row owns: gathered during the walk, then told as the topmost folders and files, with why one must stay."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from mlflow_compliance.snapshot.files import Ownerless
from mlflow_compliance.snapshot.litter import is_litter

IDENTIFIER = re.compile(r"\d+|(m-)?[0-9a-f]{32}")
"""The names that MLflow itself gives to folders: of experiments, runs and logged models."""
_RUN_OR_MODEL = re.compile(r"/(m-)?[0-9a-f]{32}/artifacts/")

FILE_STORE = "a file store's experiment lives here: migrate it first"
UNLISTED = "it holds a file store's meta.yaml that MLflow does not list: mend or remove that first"
UPLOADING = "an upload may be under way in it"
LINK = "it is, or holds, a symbolic link"
LOOSE = "a file directly in an artifact root is nothing that MLflow puts there: see whose it is"
DATABASE = "it holds a database: see whose it is"
_UNREAD = "part of it cannot be read"
_FOREIGN = "it is not evidently MLflow's: name the folder in artifact_roots if it is"


class Orphans:
    """Topmost folders and files that nobody owns, each with what lies in it."""

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}
        self._files: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._protected: dict[str, list[str]] = defaultdict(list)
        self._marks: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.emptied = Counter[str]()
        """Root -> how many folders named as MLflow names them hold no file; known once the entries were gone
        through.
        """

    def open(self, top: str, root: str) -> None:
        """A topmost folder or file."""
        self._roots[top] = root

    def add(self, top: str, path: str, size: int) -> None:
        """A file at or below it."""
        self._files[top].append((path, size))

    def protect(self, top: str, path: str) -> None:
        """Something below it that the settings protect: what holds it cannot be moved as one."""
        self._protected[top].append(path)

    def mark(self, top: str, path: str, why: str = _UNREAD) -> None:
        """Something at or below it for whose sake the entry that holds it must stay."""
        self._marks[top].append((path, why))

    def entries(self, evident: Mapping[str, bool], keys: Mapping[str, str]) -> Iterator[Ownerless]:
        """One entry a topmost path; `evident` and `keys` are by root."""
        for top, root in sorted(self._roots.items()):
            holding = self._holding(top)
            found: dict[str, list[tuple[str, int]]] = {} if holding else {top: []}
            for path, size in self._files[top]:
                found.setdefault(_topmost(path, top, holding), []).append((path, size))
            for entry, files in sorted(found.items()):
                keep = self._keep(top, entry)
                if not keep and all(is_litter(os.path.basename(path)) for path, _ in files):
                    # Only worth a word where it looks like what is left of a run, as `mlflow gc` leaves it.
                    self.emptied[root] += bool(IDENTIFIER.fullmatch(os.path.basename(entry)))
                    continue
                if not keep and not evident[root] and _foreign(top, files):
                    keep = _FOREIGN
                yield Ownerless(keys[root], entry, len(files), sum(size for _, size in files), keep)

    def _holding(self, top: str) -> set[str]:
        """The folders from `top` down that hold something protected."""
        holding = set()
        for path in self._protected[top]:
            above = os.path.dirname(path)
            while above not in holding and len(above) >= len(top):
                holding.add(above)
                above = os.path.dirname(above)
        return holding

    def _keep(self, top: str, entry: str) -> str:
        for path, why in self._marks[top]:
            if path == entry or path.startswith(entry + "/") or entry.startswith(path + "/"):
                return why
        return ""


def _topmost(path: str, top: str, holding: set[str]) -> str:
    entry = top
    while entry in holding:
        end = path.find("/", len(entry) + 1)
        entry = path if end < 0 else path[:end]
    return entry


def _foreign(top: str, files: list[tuple[str, int]]) -> bool:
    """A folder called 2024 or d41d8cd9... may be anybody's; one with nothing but artifacts of runs and models in it
    is MLflow's.
    """
    start = len(os.path.dirname(top))
    return not files or not all(_RUN_OR_MODEL.search(path, start) for path, _ in files)
