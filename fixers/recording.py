"""What goes on record about the facts of a production run: every value that was found, where, and who decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mlflow_compliance.api import FactValue, Product, Run, Unfixable, number


class Fact(NamedTuple):
    """A fact with the value that counts; `decided_by` is 'settings', 'model' or 'agreement'."""

    name: str
    value: str
    decided_by: str
    values: tuple[FactValue, ...]

    def record(self) -> dict[str, Any]:
        """As it stands in model_metadata.json."""
        values = [
            {
                "value": item.value,
                "run_id": item.owner.key if item.owner.kind == "run" else "",
                "experiment_id": item.experiment_id,
                "place": item.place,
            }
            for item in self.values
        ]
        return {"name": self.name, "value": self.value, "decided_by": self.decided_by, "values": values}


def facts_of(
    product: Product,
    own: Mapping[str, str],
    of_model: Iterable[str],
    replaced: Iterable[Run],
    known: Mapping[str, list[FactValue]],
) -> list[Fact]:
    """The facts that earlier runs hold, each with one value: what the settings say, what the model is, or what all of
    them agree on.

    `own` are the params of the new run, `of_model` those among them that the model itself gave. Raises Unfixable where
    nobody has decided.
    """
    wanted, model = product.production, frozenset(of_model) | {"n_features"}
    listed = {key for keys in wanted.facts.values() for key in keys}
    found: dict[str, tuple[tuple[str, ...], list[FactValue]]] = {
        fact: (wanted.facts[fact], values) for fact, values in known.items()
    }
    for run in replaced:
        for key in run.params.keys() - listed:
            found.setdefault(key, ((key,), []))[1].append(
                FactValue(run.params[key], f"param {key} of run {run.run_id}", run.ref, run.experiment_id)
            )
    return [
        _decided(name, keys, values, wanted.decided, own, model)
        for name, (keys, values) in sorted(found.items())
        if values
    ]


def _decided(
    name: str,
    keys: tuple[str, ...],
    values: list[FactValue],
    decided: Mapping[str, str],
    own: Mapping[str, str],
    model: frozenset[str],
) -> Fact:
    mine = next((key for key in keys if key in own), None)
    if name in decided:
        return Fact(name, decided[name], "settings", tuple(values))
    if mine is not None:
        return Fact(name, own[mine], "model" if mine in model else "settings", tuple(values))
    if len({number(item.value) for item in values}) == 1:
        return Fact(name, values[0].value, "agreement", tuple(values))
    told = "; ".join(f"{item.value} ({item.place})" for item in values)
    raise Unfixable(
        f"{name} has several values and nobody has decided: {told}",
        advice="say which counts, under [products.production] in compliance.toml: "
        f'`decisions = {{ {name} = "{values[0].value}" }}`',
    )
