"""Legal holds of the settings: which are in force on the day of a snapshot, and what their patterns match."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timezone
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from mlflow_compliance.settings.schema import Hold, Settings
from mlflow_compliance.snapshot.entities import Experiment
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.ties import is_model


class Matched(NamedTuple):
    """What the patterns of a hold match by themselves, before what belongs to it."""

    experiments: tuple[str, ...]
    runs: tuple[str, ...]
    models: tuple[str, ...]
    """Names of registered models, and ids of logged ones."""


def spelled(text: str) -> str:
    """A name as holds compare it: in any case, and whichever way its accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(spelled(pattern)) for pattern in patterns) or r"(?!)")


def matches(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    """Whether a pattern means one of some names. A hold that misses a name for its capitals would hold nothing."""
    return any(_compiled(patterns).match(spelled(name)) for name in names) if patterns else False


def names_runs(settings: Settings) -> bool:
    """Whether a hold names runs by themselves."""
    return any(hold.runs for hold in settings.retention.hold)


def holds_run(settings: Settings, *names: str) -> bool:
    """Whether a hold names a run, by its name or id."""
    return any(matches(names, hold.runs) for hold in settings.retention.hold)


def holds_model(settings: Settings, model_id: str) -> bool:
    """Whether a hold names a logged model, by its id."""
    return any(matches([model_id], hold.models) for hold in settings.retention.hold)


def held_homes(settings: Settings, experiments: Mapping[str, Experiment]) -> set[str]:
    """Ids of the experiments that a hold names, whether or not it is over."""
    return {
        key
        for key, item in experiments.items()
        if any(holds_experiment(hold, item) for hold in settings.retention.hold)
    }


def holds_experiment(hold: Hold, experiment: Experiment) -> bool:
    """By its name, the one that it had before it was retired, or its id."""
    return matches({experiment.name, experiment.own_name, experiment.experiment_id}, hold.experiments)


def today(snapshot: Snapshot) -> date:
    """The day on which a store was read, in UTC."""
    return datetime.fromtimestamp(snapshot.taken_at / 1000, timezone.utc).date()


def in_force(settings: Settings, day: date) -> Iterator[tuple[int, Hold]]:
    """The holds that hold on a day, the last one included, each with its number in the settings."""
    for number, hold in enumerate(settings.retention.hold):
        if hold.until is None or day <= hold.until:
            yield number, hold


def matched(hold: Hold, snapshot: Snapshot) -> Matched:
    """What a hold names."""
    runs = {key: [run.name, key] for key, run in snapshot.runs.items()}
    runs |= {row.key: [row.name, row.key] for row in snapshot.row_facts.values() if row.kind == "run"}
    logged = {row.key for row in snapshot.row_facts.values() if row.kind == "logged_model"} | {*snapshot.logged_models}
    logged |= {key for key in snapshot.behind_versions if is_model(key)}
    return Matched(
        tuple(sorted(key for key, item in snapshot.experiments.items() if holds_experiment(hold, item))),
        tuple(sorted(key for key, names in runs.items() if matches(names, hold.runs))),
        tuple(sorted(key for key in {*snapshot.registered_models, *logged} if matches([key], hold.models))),
    )


def unmatched(hold: Hold, snapshot: Snapshot) -> list[tuple[str, str]]:
    """(key of the settings, pattern) of every pattern that matches nothing: a typing mistake, or something that is gone
    for good.
    """
    return [
        (key, pattern)
        for key in ("experiments", "runs", "models")
        for pattern in getattr(hold, key)
        if not any(matched(hold.model_copy(update={**_NONE, key: (pattern,)}), snapshot))
    ]


_NONE: dict[str, tuple[str, ...]] = {"experiments": (), "runs": (), "models": ()}
