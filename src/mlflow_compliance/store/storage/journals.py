"""Looks for the journals of a store: in their folder, and in the runs that keep them, each held against what its run
says of it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow_compliance.errors import StoreError
from mlflow_compliance.repair.reading import read_journal
from mlflow_compliance.snapshot.entities import Run
from mlflow_compliance.snapshot.journals import Journals, KeptJournal, holds_nothing_else, keeps_journals
from mlflow_compliance.snapshot.litter import is_litter
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import KEPT_AS, KEPT_JOURNAL, KEPT_SHA256
from mlflow_compliance.store.storage import recorded_hashes
from mlflow_compliance.store.storage.base import RemoteError
from mlflow_compliance.store.storage.locations import Resolver
from mlflow_compliance.store.storage.parsing import parse_json
from mlflow_compliance.store.storage.safe_io import opened, why_unread
from mlflow_compliance.store.storage.storages import Storages, is_remote, place_name, remote_path

JOURNAL_NAME = re.compile(r"(\d{8}T\d{6}Z-[0-9a-f]{6})\.jsonl")
"""The name of a journal's file."""
BROKEN_OFF = "the repair was broken off"
"""How the problem of a run begins that the next repair writes anew."""
_LARGEST = 1 << 28
"""Bytes of a journal that are read: a repair of a hundred thousand changes writes fewer."""
_FIRST_LINE = 1 << 16
_AT_ONCE = 8


@dataclass(frozen=True)
class Finder:
    """Looks for the journals of one store. `uri` is what they call it, `folder` where they are written to."""

    uri: str
    folder: str
    places: Storages
    resolve: Resolver
    _closed: dict[str, str] = field(default_factory=dict, init=False)
    """Place that could not be listed -> why: of one that does not answer it is not asked again and again."""

    def journals(self, snapshot: Snapshot) -> Journals:
        """What there is of journals. A store that keeps none costs a look into the folder and at its experiments."""
        found = in_folder(self.folder, self.uri)
        marks = {key: item.tags[KEPT_AS] for key, item in snapshot.experiments.items() if keeps_journals(item)}
        if not marks:
            return found
        models = {model.source_run_id for model in snapshot.logged_models.values()}
        runs = [run for run in snapshot.runs.values() if run.active and run.experiment_id in marks]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            kept = list(pool.map(lambda run: self._kept(run, marks[run.experiment_id], run.run_id in models), runs))
        home = min(marks, key=lambda key: (len(key), key))
        read = Counter(item.experiment_id for item in kept)
        others = {
            item.ref: count
            for item in map(snapshot.experiments.get, marks)
            if item and (count := item.count() - read[item.experiment_id])
        }
        apart = frozenset(key for key in marks if holds_nothing_else(snapshot.experiments[key], kept))
        return replace(found, kept=tuple(kept), home=home, mark=marks[home], others=others, apart=apart)

    def _kept(self, run: Run, mark: str, has_models: bool) -> KeptJournal:  # noqa: FBT001
        found = KeptJournal(run.ref, run.experiment_id, run.tags.get(KEPT_JOURNAL, ""))
        if problem := _odd_rows(run, has_models=has_models):
            return replace(found, problem=problem)
        name = f"{found.journal}.jsonl"
        try:
            files = self._files(run)
            if isinstance(files, str):
                return replace(found, unknown=files)
            path = files.pop(name, "")
            if files or not path:
                return replace(
                    found, problem=f"holds {', '.join(sorted(files))}" if files else f"its file {name} is gone"
                )
            content = self.content(path)
        except (StoreError, OSError) as error:
            why = str(error) if isinstance(error, StoreError) else why_unread(error)
            return replace(found, unknown=f"its file {name} could not be read: {why}")
        problem, hashes = _verified(content, found.journal, run.tags[KEPT_SHA256], mark)
        return replace(found, path=path, problem=problem, hashes=hashes)

    def _files(self, run: Run) -> dict[str, str] | str:
        """What lies in the folder of a run, by its path from there, or why nobody can tell."""
        resolved = self.resolve(run.artifact_uri)
        if is_remote(run.artifact_uri) and resolved.prefix is None:
            folder = remote_path(run.artifact_uri)
            place = place_name(folder)
            if place in self._closed:
                return self._closed[place]
            try:
                found = [item.path for item in self.places.of(folder).listed(folder) if not item.path.endswith("/")]
            except RemoteError as error:
                self._closed[place] = str(error)
                raise
        elif not resolved.path:
            return resolved.reason
        else:
            folder = os.path.realpath(resolved.path)
            root = os.path.dirname(os.path.dirname(os.path.dirname(folder)))
            if not os.path.isdir(root) or not os.listdir(root):
                return f"{root} holds nothing here"
            found = [os.path.join(above, name) for above, _, names in os.walk(folder) for name in names]
        return {path[len(folder) + 1 :]: path for path in found if not is_litter(os.path.basename(path))}

    def content(self, path: str) -> bytes:
        """The bytes of a journal, wherever it lies. Raises StoreError and OSError."""
        if is_remote(path):
            return self.places.of(path).read(path, _LARGEST)
        with opened(path) as file, open(file, "rb", closefd=False) as reader:
            return reader.read(_LARGEST + 1)


def _odd_rows(run: Run, *, has_models: bool) -> str:
    """What the rows of a run hold that those of a kept journal do not, empty where there is nothing."""
    if not JOURNAL_NAME.fullmatch(f"{run.tags.get(KEPT_JOURNAL, '')}.jsonl") or not run.tags.get(KEPT_SHA256):
        return f"does not say in {KEPT_JOURNAL} and {KEPT_SHA256} which journal it keeps"
    if run.status != "FINISHED":
        return f"{BROKEN_OFF} while it wrote it (it is {run.status})"
    more = sorted(key for key in run.tags if key not in (KEPT_JOURNAL, KEPT_SHA256) and not key.startswith("mlflow."))
    held = [f"tag {key}" for key in more]
    held += [f"param {key}" for key in sorted(run.params)] + [f"metric {key}" for key in sorted(run.metrics)]
    held += ["a dataset"] * bool(run.datasets) + ["a model"] * bool(run.models or has_models)
    return f"holds {', '.join(held)}" if held else ""


def _verified(content: bytes, journal: str, sha256: str, mark: str) -> tuple[str, dict[str, str]]:
    """Why bytes are not a journal that a repair of the store with this mark wrote, empty where they are; the hashes
    that it put on record.
    """
    if len(content) > _LARGEST:
        return f"its file has more than {_LARGEST} bytes", {}
    if hashlib.sha256(content).hexdigest() != sha256:
        return f"its bytes are not those whose hash stands in {KEPT_SHA256}", {}
    found = read_journal(content)
    if found.id not in ("", journal):
        return f"its file is the journal {found.id}", {}
    if found.problem:
        return f"its file cannot be read as a journal: {found.problem}", {}
    return ("", dict(found.hashes)) if found.text("kept_as") == mark else ("its file is a journal of another store", {})


def in_folder(folder: str, uri: str) -> Journals:
    """The journals in a folder that can be read as such; `uri` is the store whose own are wanted."""
    here, own = set[str](), dict[str, str]()
    try:
        names = sorted(name for name in os.listdir(folder) if JOURNAL_NAME.fullmatch(name))
        for name in names:
            header = _header(os.path.join(folder, name))
            if header.get("journal") == name.removesuffix(".jsonl"):
                here.add(header["journal"])
                if header.get("store") == uri:
                    own[header["journal"]] = str(header.get("kept_as", ""))
    except FileNotFoundError:
        return Journals(folder)
    except OSError as error:
        return Journals(folder, unreadable=_unreadable(folder, error))
    return Journals(folder, frozenset(here), own)


def with_lost(found: Journals) -> Journals:
    """Journals that also say whether hashes which they put on record are gone. Asked where files are looked at alone:
    all of them may have to be read for it.
    """
    records = os.path.join(found.folder, recorded_hashes.NAME)
    try:
        if os.path.lexists(records):
            with opened(records) as file:
                if os.fstat(file).st_size:
                    return found
        paths = {key: os.path.join(found.folder, f"{key}.jsonl") for key in found.own}
        return replace(found, lost=next((key for key, path in paths.items() if _put_on_record(path)), ""))
    except OSError as error:
        return replace(found, unreadable=_unreadable(found.folder, error))


def _unreadable(folder: str, error: OSError) -> str:
    return f"{error.filename or folder} cannot be read ({why_unread(error)})"


def _header(path: str) -> dict[str, Any]:
    with opened(path) as file, open(file, "rb", closefd=False) as reader:
        line = reader.readline(_FIRST_LINE)
    try:
        found = parse_json(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _put_on_record(path: str) -> bool:
    """Whether a journal says that hashes went on record."""
    states: dict[Any, set[str]] = defaultdict(set)
    with opened(path) as file, open(file, "rb", closefd=False) as reader:
        for line in reader:
            if b'"state": "recorded"' in line:
                return True
            if b'"kind": "LinkDuplicate"' in line or b'"state": "done"' in line:
                try:
                    found = parse_json(line)
                    states[found["change"]].add("link" if found["state"] == "begin" else "done")
                except (ValueError, KeyError, TypeError):
                    continue
    return any(len(found) == 2 for found in states.values())
