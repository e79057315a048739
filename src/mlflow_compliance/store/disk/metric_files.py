"""The metric files of a file store: which points they hold more than once, and what they are without the repeats."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator

from mlflow_compliance.entities import EntityRef, RepeatedPoints
from mlflow_compliance.errors import StoreError

Point = tuple[object, ...]


def read_repeated(folder: str) -> dict[str, RepeatedPoints]:
    """Path of a metric file below a file store's folder -> what `mlflow migrate-filestore` will stop at in it."""
    found = {}
    for path, owner, metric in sorted(_metric_files(folder)):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise StoreError(f"the metric file {path} cannot be read: {(error.strerror or str(error)).lower()}") from error
        rest = without_repeats(content)
        repeats, clashes = _points(content) - _points(rest), _clashes(rest) if owner.kind == "logged_model" else 0
        if repeats or clashes:
            found[path] = RepeatedPoints(owner, metric, repeats, clashes, hashlib.sha256(content).hexdigest(), len(rest))
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
    """(time, value, step, ...) as MLflow takes a line; None for a line that holds none, its own words where they are no numbers."""
    words = line.split()
    if not words:
        return None
    try:
        value = float(words[1])
        return int(words[0]), "nan" if math.isnan(value) else value, int(words[2]) if len(words) > 2 else 0, *words[3:]
    except (ValueError, IndexError):
        return tuple(words)


def _clashes(content: bytes) -> int:
    """Points of a logged model that differ in value alone: the tables have room for one value of a run at a moment and step."""
    points = [point for line in content.splitlines() if (point := _point(line)) is not None]
    return len(points) - len({(point[0], *point[2:4]) for point in points})


def _metric_files(folder: str) -> Iterator[tuple[str, EntityRef, str]]:
    """(path, owner, metric) for every run and logged model, those of deleted experiments too."""
    for home in (folder, os.path.join(folder, ".trash")):
        for experiment in _folders(home):
            for run in _folders(experiment):
                yield from _below(run, "run")
            for model in _folders(os.path.join(experiment, "models")):
                yield from _below(model, "logged_model")


def _below(owner: str, kind: str) -> Iterator[tuple[str, EntityRef, str]]:
    metrics = os.path.join(owner, "metrics")
    if os.path.isfile(os.path.join(owner, "meta.yaml")):
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
