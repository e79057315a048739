"""Tries a model: a copy of the files that were scanned, loaded and scored in a process with limits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_compliance.snapshot.evidence import Probe
from mlflow_compliance.store.models.sandbox import MOST_SAID, Limits, run_limited, temporary_folder, unconfined
from mlflow_compliance.store.storage.atomic_write import create, write_bytes
from mlflow_compliance.store.storage.safe_io import digest_of, opened, why_unread

_CHILD = "mlflow_compliance.store.models.probe_child"
_LARGEST_RESULT = 1 << 22
_BLOCK = 1 << 20
_UNUSABLE = Probe("its process did not write a result that can be used")


class Sample(NamedTuple):
    """Rows to score again. Both files are Parquet or CSV."""

    path: str
    """Holds feature columns, and one column with positions in the file of predictions."""
    row: str
    """That column; the first of the predictions has position 0."""
    predictions: str
    probability: str
    """The column of the predictions with what the model gave."""


def probe(folder: str, hashes: Mapping[str, str], limits: Limits, sample: Sample | None = None) -> Probe:
    """Load the model in a folder, score its input example and the sample. `hashes` are those of its files (relative
    path -> SHA-256) as scanned.

    What is loaded is a copy of exactly these files: the folder itself is never opened for it, and a file that is not as
    it was scanned is a
    problem. What the model's process answers is checked for its form; that it is true cannot be checked.
    """
    with temporary_folder() as place:
        model, result = os.path.join(place, "model"), os.path.join(place, "result.json")
        wanted = (
            [os.path.abspath(sample.path), sample.row, os.path.abspath(sample.predictions), sample.probability]
            if sample
            else []
        )
        if problem := _copied(folder, hashes, model):
            return Probe(problem)
        problem = run_limited(_CHILD, [model, result, *wanted], place, limits)
        return replace(Probe(problem) if problem else _read(result), unconfined=unconfined())


class _Result(BaseModel):
    """What the process of a model may answer."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    problem: str = Field(default="", max_length=MOST_SAID)
    params: dict[str, str] = {}
    features: tuple[str, ...] = ()
    example: tuple[float, ...] = ()
    sampled: int = Field(default=0, ge=0)
    worst: float = Field(default=0.0, ge=0)
    sample_problem: str = Field(default="", max_length=MOST_SAID)


def _read(path: str) -> Probe:
    try:
        with opened(path) as file:
            raw = os.read(file, _LARGEST_RESULT)  # what is longer is cut off, and no JSON
    except FileNotFoundError:
        return Probe("called exit")
    except OSError:
        return _UNUSABLE
    try:
        found = Probe(**_Result.model_validate_json(raw).model_dump())
    except ValidationError:
        return _UNUSABLE
    return found if found.problem or found.example else _UNUSABLE


def _copied(folder: str, hashes: Mapping[str, str], target: str) -> str:
    """Copy the files that were scanned; the first one that is not as it was, or that nobody scanned, is the problem."""
    strange = sorted(set(_names(folder)).symmetric_difference(hashes))
    if strange:
        return f"{strange[0]} was {'removed' if strange[0] in hashes else 'added'} after the folder was scanned"
    for name, sha256 in sorted(hashes.items()):
        try:
            if _copy(os.path.join(folder, name), os.path.join(target, name)) != sha256:
                return f"{name} was changed after it was scanned"
        except OSError as error:
            return f"{name} could not be copied ({why_unread(error)})"
    return ""


def _copy(path: str, target: str) -> str:
    """The hash of the copy, whatever becomes of the file."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with opened(path) as file, create(target) as copy:
        while data := os.read(file, _BLOCK):
            write_bytes(copy, data)
        return digest_of(copy, target)


def _names(folder: str) -> Iterator[str]:
    """Everything below a folder that is no folder, relative to it."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in (*files, *links))
