"""Reads the quarantines of artifact roots: which of what was put aside has an owner again."""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mlflow_compliance.snapshot.files import (
    MLMODEL,
    QUARANTINE,
    ArtifactFile,
    ModelFolder,
    Quarantined,
    parent,
    upwards,
)
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.store.models.mlmodel import judge, read_description
from mlflow_compliance.store.ownership.rows import OwnedPlace, Ownership, own_folder
from mlflow_compliance.store.storage.manifests import NAME
from mlflow_compliance.store.storage.parsing import parse_json
from mlflow_compliance.store.storage.safe_io import opened, raise_it

RETRACTED = "-retracted"
"""How the folder of a journal ends for what was taken back: its rows are deleted and still name it."""
_LONGEST_LINE = 1 << 26
_FILES = ', "files": '


class _Entry(NamedTuple):
    """One line of a manifest: where what was put aside lies, where it was, and the line itself."""

    source: str
    former: str
    line: str


def read_quarantines(ownership: Ownership) -> tuple[dict[str, Quarantined], dict[str, str]]:
    """What lies in quarantine and has an owner, by its path there; and the manifests that cannot be understood,
    with why.
    """
    found: dict[str, Quarantined] = {}
    illegible: dict[str, str] = {}
    owners = _Owners(ownership)
    for root in sorted(ownership.roots):
        for folder in _journals(root):
            try:
                for entry in _entries(root, folder):
                    found.update({item.path: item for item in owners.owned(root, entry)})
            except FileNotFoundError:
                continue
            except OSError as error:
                illegible[f"{folder}/{NAME}"] = f"cannot be read ({error.strerror})"
            except ValueError as error:
                illegible[f"{folder}/{NAME}"] = str(error)
    return found, illegible


def _journals(root: str) -> list[str]:
    try:
        with os.scandir(f"{root}/{QUARANTINE}") as entries:
            return sorted(
                entry.path
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.endswith(RETRACTED)
            )
    except OSError:
        return []


def _entries(root: str, folder: str) -> Iterator[_Entry]:
    """What a manifest tells of and is still there. Raises ValueError at a line that is none of ours."""
    with (
        opened(f"{folder}/{NAME}") as file,
        open(file, encoding="utf-8", errors="surrogateescape", closefd=False) as reader,
    ):
        for number, line in enumerate(iter(lambda: reader.readline(_LONGEST_LINE), ""), 1):
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"line {number} is longer than {_LONGEST_LINE >> 20} MiB")
            if not line.endswith("\n"):
                return  # a program was killed in the middle of it, before anything moved
            # Thousands of files may be named in it, which are only looked at where somebody owns them.
            head, _, files = line.partition(_FILES)
            try:
                told = parse_json(head + "}" if files else line)
                source, was = told["to"], told["from"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"line {number} is not as it was written") from None
            _, separator, inside = (
                source.partition(f"/{QUARANTINE}/{os.path.basename(folder)}/")
                if isinstance(source, str)
                else ("", "", "")
            )
            # By where it lies, not by the whole path: the store may have been moved since.
            if (
                not separator
                or os.path.normpath(f"/{inside}") != f"/{inside}"
                or not isinstance(was, str)
                or not was.endswith(f"/{inside}")
            ):
                raise ValueError(f"line {number} tells of places that do not belong together")
            if os.path.lexists(f"{folder}/{inside}"):
                yield _Entry(f"{folder}/{inside}", f"{root}/{inside}", line)


class _Owners:
    """The rows' folders, those that are not there too."""

    def __init__(self, ownership: Ownership) -> None:
        self._absent = ownership.absent
        self._claims = {path: claim for path, claim in ownership.claims.items() if claim.artifacts}
        for (kind, key), (path, _) in ownership.absent.items():
            if kind == "logged_model":
                self._claims.setdefault(own_folder(path, key), OwnedPlace(EntityRef(kind, key), path))
        for (kind, key), (path, _) in ownership.absent.items():
            if kind in ("model_version", "skill_version") and not any(above in self._claims for above in upwards(path)):
                self._claims[path] = OwnedPlace(EntityRef(kind, key), path)
        self._experiments = ownership.experiments
        self._sorted: list[str] | None = None

    def owned(self, root: str, entry: _Entry) -> Iterator[Quarantined]:
        """The parts of an entry that rows own: its former place, what was in it, or what it was in."""
        source, former, _ = entry
        homes, last = set(), "\0"
        for place in self._at_or_below(former):
            lies = source + place[len(former) :]
            # Those of traces go back with the folder of all traces.
            if place.startswith(last + "/") or self._claims[place].owner.kind == "trace" or not os.path.lexists(lies):
                continue
            last = place
            homes |= {above for above in upwards(place) if above in self._experiments}
            yield self._item(root, lies, place, self._claims[place].owner, entry)
        if last == "\0":
            above = next((self._claims[path] for path in upwards(parent(former)) if path in self._claims), None)
            if above:
                yield self._item(root, source, former, above.owner, entry)
        for home in sorted(homes):
            # SQLite gives an experiment's number again, so its traces are its own only where its runs are there too.
            traces = f"{home}/traces"
            lies = source + traces[len(former) :]
            if traces.startswith(former + "/") and os.path.lexists(lies):
                yield self._item(root, lies, traces, self._experiments[home], entry)

    def _at_or_below(self, former: str) -> Iterator[str]:
        if self._sorted is None:
            self._sorted = sorted(self._claims)
        if former in self._claims:
            yield former
        prefix = former + "/"
        for number in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[number].startswith(prefix):
                return
            yield self._sorted[number]

    def _item(self, root: str, lies: str, place: str, owner: EntityRef, entry: _Entry) -> Quarantined:
        sizes, problem = _told(entry, lies)
        files: dict[str, ArtifactFile] = {}
        models: dict[str, ModelFolder] = {}
        try:
            found = _files(lies, place)
        except (OSError, ValueError) as error:
            found, problem = {}, problem or str(error)
        for path, facts in found.items():
            claim = next((self._claims[above] for above in upwards(parent(path)) if above in self._claims), None)
            logged = claim is not None and (path == claim.artifacts or path.startswith(claim.artifacts + "/"))
            files[path] = ArtifactFile(
                facts.st_size, f"{facts.st_dev}:{facts.st_ino}", claim.owner if claim else owner, logged
            )
        if not problem and {path: file.size for path, file in files.items()} != {
            place + name: size for name, size in sizes.items()
        }:
            problem = "it holds other files than its manifest says: look at both by hand"
        if not problem and os.path.lexists(place):
            problem = f"something lies at {place} now: look at both by hand"
        for path, file in files.items():
            folder = parent(path)
            if os.path.basename(path) == MLMODEL and (
                os.path.basename(folder) != "metadata" or f"{parent(folder)}/{MLMODEL}" not in files
            ):
                models[folder] = _model(folder, lies + folder[len(place) :], file.owner, files)
        missed = {row: absent for row, absent in self._absent.items() if f"{absent[0]}/".startswith(place + "/")}
        rows = {row: path for row, (path, _) in missed.items()}
        return Quarantined(
            lies, place, root, owner, files, models, rows, frozenset(told for _, (told, _) in missed.values()), problem
        )


def _told(entry: _Entry, lies: str) -> tuple[dict[str, int], str]:
    """What the manifest says lies at or below a path: '' or '/' and the path relative to it -> size; and why it
    says nothing.
    """
    try:
        listed: Any = parse_json(entry.line)["files"]
        below = f"{lies[len(entry.source) + 1 :]}/".lstrip("/")
        names = {("" if item["path"] == "." else item["path"]): int(item["size"]) for item in listed}
    except (ValueError, KeyError, TypeError):
        return {}, "its line in the manifest is not as it was written: look at it by hand"
    return {
        f"/{name[len(below) :]}" if name else "": size for name, size in names.items() if name.startswith(below)
    }, ""


def _files(lies: str, place: str) -> dict[str, os.stat_result]:
    """The files at or below a path, by where they will be. Raises ValueError where something is no ordinary file,
    or lies behind a link.
    """
    if os.path.realpath(lies) != lies:
        raise ValueError("a symbolic link leads to it: look at it by hand")
    if not os.path.isdir(lies):
        return {place: _ordinary(lies)}
    found = {}
    for folder, folders, names in os.walk(lies, onerror=raise_it):
        for name in (*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))):
            path = os.path.join(folder, name)
            found[place + path[len(lies) :]] = _ordinary(path)
    return found


def _ordinary(path: str) -> os.stat_result:
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError(f"{path} is no ordinary file: look at it by hand")
    return facts


def _model(folder: str, lies: str, owner: EntityRef | None, files: Mapping[str, ArtifactFile]) -> ModelFolder:
    def size_of(name: str) -> int | None:
        for spelling in (name, name.replace("\\", "/")):
            path = os.path.normpath(f"{folder}/{spelling}")
            if path in files:
                return files[path].size
            if path.startswith(folder + "/") and any(other.startswith(path + "/") for other in files):
                return 1
        return None

    return judge(folder, owner, read_description(lies), size_of)
