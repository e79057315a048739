"""How the metrics of a binary classifier hang together: which follow from which, and how far apart two of them may
lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

RATIOS = ("accuracy", "precision", "recall", "f1", "roc_auc")
COUNTS = ("tn", "fp", "fn", "tp")
COST = "business_cost"

_HALF = 0.5  # less than from one whole number to the next
_NOISE = 1e-9  # in binary fractions 0.3 - 0.1 is not quite 0.2


class _Law(NamedTuple):
    name: str
    inputs: tuple[str, ...]
    follows: Callable[..., float]
    """Rises with every ratio among the inputs."""


def cost_of(fn: float, fp: float, *, false_negative_cost: float, false_positive_cost: float) -> float:
    """What the mistakes cost, in the unit of the two costs."""
    return fn * false_negative_cost + fp * false_positive_cost


def differs(name: str, recorded: float, recomputed: float, tolerance: float) -> bool:
    """Whether a recorded metric is not the recomputed one. `tolerance` is absolute, for ratios; counts and cost may
    differ by 0.5.
    """
    allowed = _HALF if name in (*COUNTS, COST) else tolerance
    # Written so that NaN differs from everything.
    return not abs(recorded - recomputed) <= allowed + _NOISE


def agree(
    values: Mapping[str, float], *, false_negative_cost: float, false_positive_cost: float, tolerance: float
) -> list[str]:
    """One sentence for each metric that does not follow from others beside it. `tolerance` is how far rounding may
    have moved a ratio.
    """

    def cost(fn: float, fp: float) -> float:
        return cost_of(fn, fp, false_negative_cost=false_negative_cost, false_positive_cost=false_positive_cost)

    problems = []
    for law in _applicable(values, cost):
        recorded, inputs = values[law.name], [values[name] for name in law.inputs]
        rounding = [tolerance if name in RATIOS else 0.0 for name in law.inputs]
        low = law.follows(*(max(0.0, value - moved) for value, moved in zip(inputs, rounding, strict=True)))
        high = law.follows(*(value + moved for value, moved in zip(inputs, rounding, strict=True)))
        nearest = min(max(recorded, low), high)
        if differs(law.name, recorded, nearest, tolerance):
            follows = shown(law.name, law.follows(*inputs))
            problems.append(
                f"{law.name} is {shown(law.name, recorded)} and follows as {follows} from {_listed(law.inputs)}"
            )
    return problems


def shown(name: str, value: float) -> str:
    """A metric as people read it: counts and costs in full, ratios with six digits."""
    return f"{value:.12g}" if name in (*COUNTS, COST) else f"{value:g}"


def _applicable(values: Mapping[str, float], cost: Callable[[float, float], float]) -> Iterator[_Law]:
    """At most one law for each metric that is there: the first that has all its inputs."""
    told = set()
    for law in (*_LAWS, _Law(COST, ("fn", "fp"), cost)):
        if (
            law.name in values
            and law.name not in told
            and all(math.isfinite(values.get(name, math.nan)) for name in law.inputs)
        ):
            told.add(law.name)
            yield law


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


_LAWS = (
    _Law("accuracy", ("tn", "fp", "fn", "tp"), lambda tn, fp, fn, tp: _share(tn + tp, tn + fp + fn + tp)),
    _Law("precision", ("tp", "fp"), lambda tp, fp: _share(tp, tp + fp)),
    _Law("recall", ("tp", "fn"), lambda tp, fn: _share(tp, tp + fn)),
    _Law("f1", ("precision", "recall"), lambda precision, recall: _share(2 * precision * recall, precision + recall)),
    _Law("f1", ("tp", "fp", "fn"), lambda tp, fp, fn: _share(2 * tp, 2 * tp + fp + fn)),
)
