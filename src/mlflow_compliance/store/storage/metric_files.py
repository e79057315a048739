"""The metric files of a file store: which points they hold more than once, and what they are without the repeats."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterator

from mlflow_compliance.errors import StoreError
from mlflow_compliance.snapshot.entities import RepeatedPoints
from mlflow_compliance.snapshot.files import META, TRASH
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.atomic_write import confirm, create, explained, staged, verified, write_bytes
from mlflow_compliance.store.storage.linking import (
    refuse_if_changed,
    refuse_if_written_to,
    refuse_unless_file,
    take_over,
)
from mlflow_compliance.store.storage.parsing import LARGEST_METRIC, read_at_most
from mlflow_compliance.store.storage.safe_io import digest_of, opened

Point = tuple[object, ...]


def read_repeated(folder: str) -> dict[str, RepeatedPoints]:
    """Path of a metric file below a file store's folder -> what `mlflow migrate-filestore` will stop at in it."""
    found = {}
    for path, owner, metric in sorted(_metric_files(folder)):
        try:
            with open(path, "rb", buffering=0) as file:
                content = read_at_most(file.fileno(), LARGEST_METRIC)
        except ValueError:
            continue  # STO005 tells it: it cannot be read
        except OSError as error:
            raise StoreError(
                f"the metric file {path} cannot be read: {(error.strerror or str(error)).lower()}"
            ) from error
        rest = without_repeats(content)
        repeats, clashes = _points(content) - _points(rest), _clashes(rest) if owner.kind == "logged_model" else 0
        if repeats or clashes:
            found[path] = RepeatedPoints(
                owner, metric, repeats, clashes, hashlib.sha256(content).hexdigest(), len(rest)
            )
    return found


def without_repeats(content: bytes) -> bytes:
    """A metric file with the first line of every point alone, in order."""
    seen: set[Point] = set()
    kept = []
    for line in content.splitlines(keepends=True):
        point = _point(line)
        if point is None or point not in seen:
            kept.append(line)
        if point is not None:
            seen.add(point)
    return b"".join(kept)


def _points(content: bytes) -> int:
    return sum(_point(line) is not None for line in content.splitlines())


def _point(line: bytes) -> Point | None:
    """(time, value, step, ...) as MLflow takes a line; None for a line that holds none, its own words where they
    are no numbers.
    """
    words = line.split()
    if not words:
        return None
    try:
        value = float(words[1])
        return int(words[0]), "nan" if math.isnan(value) else value, int(words[2]) if len(words) > 2 else 0, *words[3:]
    except (ValueError, IndexError):
        return tuple(words)


def _clashes(content: bytes) -> int:
    """Points of a logged model that differ in value alone: the tables have room for one value of a run at a moment
    and step.
    """
    points = [point for line in content.splitlines() if (point := _point(line)) is not None]
    return len(points) - len({(point[0], *point[2:4]) for point in points})


def _metric_files(folder: str) -> Iterator[tuple[str, EntityRef, str]]:
    """(path, owner, metric) for every run and logged model, those of deleted experiments too."""
    for home in (folder, os.path.join(folder, TRASH)):
        for experiment in _folders(home):
            for run in _folders(experiment):
                yield from _below(run, "run")
            for model in _folders(os.path.join(experiment, "models")):
                yield from _below(model, "logged_model")


def _below(owner: str, kind: str) -> Iterator[tuple[str, EntityRef, str]]:
    metrics = os.path.join(owner, "metrics")
    if os.path.isfile(os.path.join(owner, META)):
        for here, _, names in os.walk(metrics):
            for name in names:
                path = os.path.join(here, name)
                yield path, EntityRef(kind, os.path.basename(owner)), os.path.relpath(path, metrics)


def _folders(home: str) -> list[str]:
    try:
        with os.scandir(home) as found:
            return [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


KEPT = "metric-files"


def kept_at(folder: str, journal: str, sha256: str) -> str:
    """Where a metric file is kept as it was."""
    return os.path.join(folder, KEPT, journal, sha256)


def state_of(path: str) -> tuple[int, str]:
    """Size of a metric file, and its hash without the repeats."""
    with explained(path, "could not be read"), opened(path) as file:
        content = _content(file)
        return len(content), hashlib.sha256(without_repeats(content)).hexdigest()


def remove_repeats(path: str, sha256: str, kept: str) -> None:
    """Keep the file as it is, then leave the repeats out of it; its time and mode stay."""
    refuse_unless_file(path)
    # On the disk first: should the program die in between, the file is still whole.
    files.place(path, kept)
    with explained(path), verified(path, sha256) as (file, here):
        refuse_if_written_to(file, path)
        _put(path, without_repeats(_content(file)), here)


def restore_metric_file(path: str, now: str, sha256: str, kept: str) -> None:
    """The inverse: the bytes as they were, where they are not again already."""
    refuse_unless_file(path)
    with explained(path, "could not be read"), opened(path) as file:
        if digest_of(file, path) == sha256:
            return
    with explained(path), verified(kept, sha256) as (source, _), verified(path, now) as (file, here):
        refuse_if_written_to(file, path)
        _put(path, _content(source), here)


def _put(path: str, content: bytes, here: os.stat_result) -> None:
    # Not beside the file: MLflow would take what a killed program leaves there for a metric.
    with staged(os.path.join(_owner(path), os.path.basename(path))) as temporary:
        with create(temporary) as target:
            write_bytes(target, content)
            confirm(target, temporary, hashlib.sha256(content).hexdigest())
        take_over(temporary, path, here, stat.S_IMODE(here.st_mode))
        os.utime(temporary, ns=(here.st_atime_ns, here.st_mtime_ns))
        refuse_if_changed(path, here)
        os.replace(temporary, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _owner(path: str) -> str:
    """The folder of the run or model: the nearest one above with a meta.yaml."""
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder) and not os.path.isfile(os.path.join(folder, META)):
        folder = os.path.dirname(folder)
    return folder


def _content(file: int) -> bytes:
    parts, offset = [], 0
    while part := os.pread(file, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
