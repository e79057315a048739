"""What is deleted although it must be kept, and was not put aside by a repair on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.holds import holds_experiment, in_force, today
from mlflow_compliance.production.retention import retained
from mlflow_compliance.production.service import Retained
from mlflow_compliance.snapshot.entities import DEFAULT, DELETED, Experiment
from mlflow_compliance.snapshot.row_facts import RowFacts
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import SOURCE_MODEL

MOST = 500
"""Deleted runs that are read in full at a time, to be restored."""


@dataclass
class Lost:
    """What is deleted of what must be kept, in one experiment."""

    experiment: Experiment
    runs: list[RowFacts] = field(default_factory=list)
    models: list[RowFacts] = field(default_factory=list)
    why: list[Retained] = field(default_factory=list)
    """Of each of these once."""


def lost(context: Context) -> Mapping[str, Lost]:
    """Experiment -> what is deleted in it, or it with all that is in it."""
    return context.once(_lost)


def _lost(context: Context) -> dict[str, Lost]:
    snapshot, kept = context.snapshot, retained(context)
    found: dict[str, Lost] = {}
    for key, experiment in snapshot.experiments.items():
        why = kept.get(("experiment", key), ())
        if why and not experiment.active and not experiment.retired:
            found[key] = Lost(experiment, why=list(why))
    for row, home in context.once(_missed):
        if row.kind == "logged_model" or home.active:
            told = found.setdefault(home.experiment_id, Lost(home))
            (told.runs if row.kind == "run" else told.models).append(row)
            told.why += [why for why in kept[row.ref.place] if why not in told.why]
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _missed(context: Context) -> list[tuple[RowFacts, Experiment]]:
    """Runs and logged models that are deleted and must be kept, each with its experiment, which may be deleted too."""
    snapshot, copied = context.snapshot, set(_copied(context.snapshot))
    rows = [row for place in sorted(retained(context)) if (row := snapshot.row_facts.get(place))]
    homes = ((row, snapshot.experiments.get(row.experiment_id)) for row in rows if _is_missed(row, copied, snapshot))
    return [(row, home) for row, home in homes if home is not None and not home.retired]


def _is_missed(row: RowFacts, copied: set[str], snapshot: Snapshot) -> bool:
    """Whether somebody else than a repair deleted it."""
    known = snapshot.runs.get(row.key) if row.kind == "run" else None
    if (known.lifecycle if known else row.lifecycle) != DELETED:
        return False
    run = row if row.kind == "run" else snapshot.row_facts.get(("run", row.run_id))
    return row.key not in copied and not (run is not None and (run.key in copied or run.retracted))


def _copied(snapshot: Snapshot) -> Iterator[str]:
    """Ids of the runs that have a whole copy, which took their place, and of models that were logged again."""
    yield from snapshot.whole_copies()
    for row in snapshot.row_facts.values():
        if row.kind == "logged_model" and row.lifecycle != DELETED and SOURCE_MODEL in row.tags:
            yield row.tags[SOURCE_MODEL]


def restorable(context: Context) -> set[str]:
    """Ids of the deleted runs that a remedy may restore, at most so many."""
    # Default is restored without its runs first.
    found = (
        row.key
        for row, home in context.once(_missed)
        if row.kind == "run" and (home.active or home.experiment_id == DEFAULT)
    )
    return {key for key, _ in zip(found, range(MOST), strict=False)}


def held_whole(experiment: Experiment, context: Context) -> bool:
    """Whether a hold names an experiment itself: all its runs are under it."""
    day = today(context.snapshot)
    return any(holds_experiment(hold, experiment) for _, hold in in_force(context.settings, day))
