"""What a run that a repair makes will hold, as a digest for each part: told before it is made, compared before it is
taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from mlflow_compliance.snapshot.entities import LoggedModel, Run
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import (
    BUILT_IN,
    COPIED_AT,
    COPIED_BY,
    COPY_STATE,
    METADATA_HASH,
    PARENT,
    SOURCE_MODEL,
)
from mlflow_compliance.snapshot.ties import named_in

Digests = tuple[tuple[str, str], ...]
"""(part, digest) of what a run holds."""
_LATER = frozenset({COPIED_BY, COPIED_AT, COPY_STATE, BUILT_IN, METADATA_HASH, SOURCE_MODEL})
"""Tags whose values are known only once a run is there."""


def rows_of(run: Run, models: Sequence[LoggedModel], ids: Mapping[str, str]) -> dict[str, str]:
    """A digest of each part of a run's rows; `ids` leads from the ids of its models to those that stand for them."""
    own = sorted(models, key=lambda model: ids.get(model.model_id, model.model_id))
    parts: dict[str, object] = {
        "status or times": (run.status, run.start_time, run.end_time),
        "name or user": (run.name, run.user),
        "params": sorted(run.params.items()),
        "metrics": sorted((key, tuple(map(tuple, points))) for key, points in run.metrics.items()),
        # The copy of a child names that of its parent, which is known later.
        "tags": sorted((key, value) for key, value in run.tags.items() if key not in _LATER | {PARENT}),
        "datasets": sorted(repr(tuple(item)) for item in run.datasets),
        "models read or written": sorted(
            (link.direction, ids.get(link.model_id, link.model_id), link.step) for link in run.models
        ),
        "logged models": [
            (
                ids.get(model.model_id, model.model_id),
                model.name,
                model.model_type,
                sorted(model.params.items()),
                sorted((key, value) for key, value in model.tags.items() if key not in _LATER),
                sorted(repr(tuple(metric)) for metric in model.metrics),
            )
            for model in own
        ],
    }
    return {name: hash_of(value) for name, value in parts.items()}


def hash_of(value: object) -> str:
    return hashlib.sha256(repr(value).encode(errors="surrogateescape")).hexdigest()[:32]


def changed_rows(made: Digests, run: Run, models: Sequence[LoggedModel], ids: Mapping[str, str]) -> list[str]:
    """The parts of a run's rows that are other than they were made, in a word each."""
    now = rows_of(run, models, ids)
    return [name for name, then in made if name in now and now[name] != then]


def got_other(what: str, run_id: str, changed: Sequence[str]) -> str:
    """The sentence about a run that somebody went on with."""
    return f"{what}, run {run_id}, got other {', '.join(sorted(changed))} since: it stays"


def version_made_of(snapshot: Snapshot, run_id: str, models: Sequence[LoggedModel]) -> str:
    """What is told of a version that was made of a run or one of its models, '' where none was."""
    own = {run_id, *(model.model_id for model in models)}
    for registered in snapshot.registered_models.values():
        for version in registered.versions:
            if own & set(named_in(version)):
                return f"version {version.version} of registered model {registered.name!r} was made of it"
    return ""
