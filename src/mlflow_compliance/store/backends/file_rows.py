"""Which files of a file store MLflow cannot read, before it is asked to: it stops at the first, and the rest of the
store would go unaudited.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlflow_compliance.snapshot.damage import DamagedFile
from mlflow_compliance.snapshot.entities import DELETED
from mlflow_compliance.snapshot.files import JOURNALS, META, QUARANTINE, TRASH
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.row_facts import RowFacts
from mlflow_compliance.store.storage.parsing import LARGEST_METRIC, parse_yaml, read_at_most

REGISTRY = "models"
_PASSED = frozenset({TRASH, QUARANTINE, JOURNALS, REGISTRY})
_RESERVED = frozenset({"tags", "datasets", "traces", "models"})
"""Folders of an experiment that are no runs."""
_OF_RUN = ("metrics", "params", "tags")
_LARGEST_FACTS = 1 << 24
"""Bytes of a file of facts, or of one value."""
_EXPERIMENT = ("experiment_id", "name", "artifact_location", "lifecycle_stage")
_RUN = ("experiment_id", "user_id", "start_time", "end_time")
_MODEL = ("experiment_id", "model_id", "name", "artifact_location", "creation_timestamp", "last_updated_timestamp")
_REGISTERED = ("name",)
_VERSION = ("name", "version")
_FIELDS = {"run": (2, 3, 5), "logged_model": (4, 6)}
"""Words in a line of a metric file."""


@dataclass
class FileRows:
    """What is wrong with a file store, and how a copy of its rows is made that MLflow can read."""

    damaged: list[DamagedFile] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    """Files and folders that the copy must not have."""
    instead: dict[str, bytes] = field(default_factory=dict)
    """Path -> what the copy has there."""
    deleted_runs: dict[str, int] = field(default_factory=dict)
    """Soft-deleted run -> when it was deleted, in milliseconds, where its meta.yaml says so."""
    deleted_models: list[RowFacts] = field(default_factory=list)
    """The logged models that are soft-deleted, which MLflow shows nobody."""
    owners: dict[str, EntityRef] = field(default_factory=dict)
    """Folder -> the row that it is, though that cannot be read."""

    def lose(
        self, code: str, path: str, problem: str, lost: str, *, folder: str = "", experiment_id: str = "", runs: int = 0
    ) -> None:
        """Note a file that cannot be read; `folder` goes with it."""
        self.damaged.append(DamagedFile(code, path, problem, lost, experiment_id, runs))
        self.left_out.add(folder or path)


def read_file_rows(folder: str) -> FileRows:
    """Look at every file that holds rows, those of deleted experiments too."""
    found = FileRows()
    for home in (folder, os.path.join(folder, TRASH)):
        for path in _folders(home):
            if os.path.basename(path) not in _PASSED:
                _experiment(path, found, deleted=home != folder)
    for model in _folders(os.path.join(folder, REGISTRY)):
        _registered(model, found)
    found.damaged.sort(key=lambda item: item.path)
    return found


def _experiment(folder: str, found: FileRows, *, deleted: bool) -> None:
    key, meta = os.path.basename(folder), os.path.join(folder, META)
    runs = [path for path in _folders(folder) if os.path.basename(path) not in _RESERVED and _is_run(path)]
    if not os.path.lexists(meta):
        if runs:
            _lose_experiment("meta-missing", folder, "is not there", found, len(runs))
        return
    document, code, problem = _document(meta)
    if not problem and "artifact_uri" in document and not {"run_id", "run_uuid"}.isdisjoint(document):
        where = "in .trash, where MLflow keeps deleted experiments" if deleted else "where MLflow keeps experiments"
        found.lose("run-among-experiments", meta, f"is that of a run, and lies {where}", f"run {key}", folder=folder)
        found.owners[folder] = EntityRef("run", key)
        return
    code, problem = (code, problem) if problem else _lacks(document, _EXPERIMENT, "experiment_id", key)
    if problem:
        _lose_experiment(code, folder, problem, found, len(runs))
        return
    if deleted and document["lifecycle_stage"] != "deleted":
        found.instead[meta] = yaml.safe_dump({**document, "lifecycle_stage": "deleted"}).encode()
    _values(os.path.join(folder, "tags"), found, f"a tag of experiment {key}")
    for run in runs:
        _owner(run, found, "run", key, _RUN, "run_id")
    for model in _folders(os.path.join(folder, "models")):
        if os.path.lexists(os.path.join(model, META)):
            _owner(model, found, "logged_model", key, _MODEL, "model_id")
    for dataset in _folders(os.path.join(folder, "datasets")):
        _yaml(
            os.path.join(dataset, META),
            found,
            f"dataset {os.path.basename(dataset)} of experiment {key}",
            folder=dataset,
        )
    for trace in _folders(os.path.join(folder, "traces")):
        info = os.path.join(trace, "trace_info.yaml")
        if os.path.lexists(info):
            _yaml(info, found, f"trace {os.path.basename(trace)}", folder=trace)
            for name in ("tags", "request_metadata"):
                _values(os.path.join(trace, name), found, f"a value of trace {os.path.basename(trace)}")


def _lose_experiment(code: str, folder: str, problem: str, found: FileRows, runs: int) -> None:
    key = os.path.basename(folder)
    lost = f"experiment {key} with {runs} run{'s' * (runs != 1)}"
    found.lose(code, os.path.join(folder, META), problem, lost, folder=folder, experiment_id=key, runs=runs)
    found.owners[folder] = EntityRef("experiment", key)


def _is_run(folder: str) -> bool:
    """Whether a folder in an experiment is a run's: artifacts alone may be anything's."""
    return any(os.path.lexists(os.path.join(folder, name)) for name in (META, *_OF_RUN))


def _owner(folder: str, found: FileRows, kind: str, experiment_id: str, needed: Collection[str], own_key: str) -> None:
    """A run or logged model."""
    key, meta = os.path.basename(folder), os.path.join(folder, META)
    what = f"{kind.replace('_', ' ')} {key}"
    document, code, problem = _document(meta) if os.path.lexists(meta) else ({}, "meta-missing", "is not there")
    if kind == "run" and "run_id" not in document:
        own_key = "run_uuid"
    if not problem:
        code, problem = _lacks(document, needed, own_key, key)
    if not problem and str(document["experiment_id"]) != experiment_id:
        code, problem = (
            "meta-of-another",
            f"names experiment {str(document['experiment_id'])[:40]!r}, and lies in that of {experiment_id}",
        )
    if problem:
        found.lose(code, meta, problem, what, folder=folder)
        found.owners[folder] = EntityRef(kind, key)
        return
    if kind == "run" and isinstance(document.get("deleted_time"), int):
        found.deleted_runs[key] = document["deleted_time"]
    if kind == "logged_model" and document.get("lifecycle_stage") == DELETED:
        begun, updated = (document[name] if isinstance(document[name], int) else 0 for name in _MODEL[-2:])
        writer = str(document.get("source_run_id") or "")
        found.deleted_models.append(
            RowFacts(kind, key, str(document["name"]), experiment_id, DELETED, begun, updated, writer)
        )
    for name in ("params", "tags"):
        _values(os.path.join(folder, name), found, f"a {name.removesuffix('s')} of {what}")
    for path in _files(os.path.join(folder, "metrics")):
        _metric(path, found, f"a metric of {what}", _FIELDS[kind])
    for name in ("inputs", "outputs"):
        for link in _folders(os.path.join(folder, name)):
            _yaml(os.path.join(link, META), found, f"one of the {name} of {what}", folder=link)


def _registered(folder: str, found: FileRows) -> None:
    name = os.path.basename(folder)
    versions = [path for path in _folders(folder) if os.path.basename(path).startswith("version-")]
    lost = f"registered model {name} with {len(versions)} version{'s' * (len(versions) != 1)}"
    if not _yaml(os.path.join(folder, META), found, lost, folder=folder, needed=_REGISTERED):
        return
    for below in ("tags", "aliases"):
        _values(os.path.join(folder, below), found, f"one of the {below} of registered model {name}")
    for version in versions:
        number = os.path.basename(version).removeprefix("version-")
        if _yaml(
            os.path.join(version, META),
            found,
            f"version {number} of registered model {name}",
            folder=version,
            needed=_VERSION,
        ):
            _values(os.path.join(version, "tags"), found, f"a tag of version {number} of registered model {name}")


def _yaml(path: str, found: FileRows, lost: str, *, folder: str, needed: Collection[str] = ()) -> bool:
    """Whether a file of facts can be read."""
    document, code, problem = _document(path) if os.path.lexists(path) else ({}, "meta-missing", "is not there")
    if not problem and (missing := [name for name in needed if name not in document]):
        code, problem = "meta-broken", f"lacks {', '.join(missing)}"
    if problem:
        found.lose(code, path, problem, lost, folder=folder)
    return not problem


def _lacks(document: Mapping[str, Any], needed: Collection[str], own_key: str, key: str) -> tuple[str, str]:
    missing = [name for name in (*needed, own_key) if name not in document]
    if missing:
        return "meta-broken", f"lacks {', '.join(missing)}"
    if str(document[own_key]) != key:
        return "meta-of-another", f"names {str(document[own_key])[:40]!r}, and lies in the folder of {key}"
    return "", ""


def _document(path: str) -> tuple[dict[str, Any], str, str]:
    """What a file of facts holds, or the code and the words for why it cannot be read."""
    content, code, problem = _content(path)
    if problem:
        return {}, code, problem
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return {}, "not-utf-8", "is not UTF-8 text"
    if not text.strip("\0 \t\r\n"):
        return {}, "meta-empty", "is empty" if not content else "holds nothing but blanks"
    try:
        document = parse_yaml(text)
    except ValueError as error:
        return {}, "meta-broken", str(error)
    return (document, "", "") if isinstance(document, dict) else ({}, "meta-broken", "is not a mapping")


def _values(folder: str, found: FileRows, lost: str) -> None:
    """Params and tags: one file each."""
    for path in _files(folder):
        content, code, problem = _content(path)
        if problem:
            found.lose(code, path, problem, lost)
        elif not content:
            # MLflow writes an empty value so; a full disk leaves the same.
            found.damaged.append(DamagedFile("empty-value", path, "is empty", lost))
        elif not _is_text(content):
            found.lose("not-utf-8", path, "is not UTF-8 text", lost)


def _metric(path: str, found: FileRows, lost: str, fields: Collection[int]) -> None:
    content, code, problem = _content(path, LARGEST_METRIC)
    if problem:
        found.lose(code, path, problem, lost)
    elif not content.strip():
        found.lose("metric-empty", path, "is empty", lost)
    elif not _is_text(content):
        found.lose("not-utf-8", path, "is not UTF-8 text", lost)
    else:
        lines = content.splitlines(keepends=True)
        good = [line for line in lines if _is_point(line, fields)]
        if len(good) < len(lines):
            bad = next(number for number, line in enumerate(lines, 1) if not _is_point(line, fields))
            told = f"has {len(lines) - len(good)} of {len(lines)} lines that hold no point (line {bad} is the first)"
            if good:
                found.instead[path] = b"".join(good)
                found.damaged.append(
                    DamagedFile("metric-broken", path, told, f"{len(lines) - len(good)} points of {lost}")
                )
            else:
                found.lose("metric-broken", path, told, lost)


def _is_point(line: bytes, fields: Collection[int]) -> bool:
    words = line.strip().split(b" ")
    try:
        return len(words) in fields and all(
            convert(word) is not None for convert, word in zip(_NUMBERS, words, strict=False)
        )
    except ValueError:
        return False


_NUMBERS: tuple[Callable[[bytes], object], ...] = (int, float, int)
"""Time, value, step."""


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _content(path: str, largest: int = _LARGEST_FACTS) -> tuple[bytes, str, str]:
    """What a file holds, or the code and the words for why it is not read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return read_at_most(file, largest), "", ""
        finally:
            os.close(file)
    except ValueError as error:
        return b"", "too-large", str(error)
    except OSError as error:
        return b"", "unreadable", f"cannot be read ({(error.strerror or str(error)).lower()})"


def _files(folder: str) -> Iterator[str]:
    for here, _, names in os.walk(folder):
        yield from (os.path.join(here, name) for name in sorted(names))


def _folders(home: str) -> list[str]:
    try:
        with os.scandir(home) as found:
            return sorted(entry.path for entry in found if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
