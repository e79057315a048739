"""Which waiver covers a finding, and on which days. A waiver is narrow: it means entities by their own names, never
by that of the experiment that they lie in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatchcase

from mlflow_compliance.rules.selecting import selects
from mlflow_compliance.settings.gate import Waiver
from mlflow_compliance.snapshot.refs import EntityRef

SOON = 30
"""Days: a waiver that ends within them is told."""


def in_force(waiver: Waiver, today: date) -> bool:
    """Whether it counts on a day; one without a day that can be read never does."""
    return waiver.last_day is not None and today <= waiver.last_day


def ends_soon(waiver: Waiver, today: date) -> bool:
    """Whether it counts on a day, and not much longer."""
    return waiver.last_day is not None and 0 <= (waiver.last_day - today).days <= SOON


def covers(waiver: Waiver, policy: str, entity: EntityRef) -> bool:
    """Whether a waiver means the findings of a policy about an entity, whatever the day."""
    return selects((waiver.policy,), policy) and any(_means(waiver.entity, name) for name in _names(entity))


def waiver_of(waivers: Sequence[Waiver], policy: str, entity: EntityRef, today: date) -> int | None:
    """Number (from 0) of the first waiver that covers the findings of a policy about an entity on a day."""
    return next(
        (number for number, waiver in enumerate(waivers) if in_force(waiver, today) and covers(waiver, policy, entity)),
        None,
    )


def _names(entity: EntityRef) -> set[str]:
    """What a waiver may call an entity by: its name or key, alone or behind its kind, as reports tell it."""
    names = {entity.label, entity.key} - {""}
    return names | {f"{entity.kind} {name}" for name in names}


def _means(pattern: str, name: str) -> bool:
    # A name may hold what is a pattern to fnmatch: as it is written it means itself too.
    return pattern == name or fnmatchcase(name, pattern)
