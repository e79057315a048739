"""What a Snapshot knows of rows that others rely on and that may be deleted or gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mlflow_compliance.snapshot.entities import ACTIVE, DELETED, Experiment
from mlflow_compliance.snapshot.ties import is_model


class RowState(NamedTuple):
    """A run or logged model that a version names, as far as its row says whether it is kept."""

    lifecycle: str
    experiment_id: str


class LostParent(NamedTuple):
    """A run that others name as their parent and that is not active. `experiment_id` is its own, empty where it has
    no row any more.
    """

    experiment_id: str
    children: Mapping[str, int]
    """Experiment -> its active runs that name it; none where it is only above another deleted parent."""


def lost_parents(
    states: Mapping[str, RowState | None],
    children: Mapping[str, Mapping[str, int]],
    above: Mapping[str, str],
) -> dict[str, LostParent]:
    """The parents that are not active, and those above them that are not either.

    `states` knows all of them (None: no row), `children` are counted by experiment, `above` is the parent that a
    deleted one names itself.
    """
    found: dict[str, LostParent] = {}
    level = sorted(children)
    while level:
        found.update({key: LostParent(state.experiment_id if (state := states[key]) else "", {}) for key in level})
        parents = {above[key] for key in level if above.get(key)}
        level = sorted(
            key for key in parents - found.keys() if (state := states.get(key)) is None or state.lifecycle != ACTIVE
        )
    return {key: lost._replace(children=dict(sorted(children.get(key, {}).items()))) for key, lost in found.items()}


MOST_PARENTS = 200
"""Deleted parents that are read in full at a time: a server is asked for them one by one."""


def to_restore(
    behind: Mapping[str, RowState], lost: Mapping[str, LostParent], experiments: Mapping[str, Experiment]
) -> set[str]:
    """Ids of the deleted runs that a remedy may restore, and that every reader brings in full for that."""
    active = {key for key, experiment in experiments.items() if experiment.active}
    named = {
        key
        for key, state in behind.items()
        if state.lifecycle == DELETED and state.experiment_id in active and not is_model(key)
    }
    return named | set(sorted(key for key, parent in lost.items() if parent.experiment_id in active)[:MOST_PARENTS])
