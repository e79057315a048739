"""Which settings make rules look at less, or accept more, than they do by themselves: reports tell it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from mlflow_compliance.rules.finding import Severity
from mlflow_compliance.safe_text import first_of

if TYPE_CHECKING:
    from mlflow_compliance.rules.policy import Policy
    from mlflow_compliance.settings.flags import Flags
    from mlflow_compliance.settings.schema import Product, Settings

Looser = Callable[[Any, Any], bool]
"""Whether a value (first) asks for less than the built-in one (second)."""
_FEW = 5
"""Items of a list, and products, that one line names."""


def _larger(value: Any, own: Any) -> bool:
    return bool(value > own)


def _smaller(value: Any, own: Any) -> bool:
    return bool(value < own)


def _more(value: Collection[Any], own: Collection[Any]) -> bool:
    return not set(value) <= set(own)


def _less(value: Collection[Any], own: Collection[Any]) -> bool:
    return not set(own) <= set(value)


def _emptied(value: Collection[Any], _: Any) -> bool:
    """Said, and said to be empty: unlike the settings that say nothing of it."""
    return not value


def _fewer_names(value: Mapping[str, Collection[str]], own: Mapping[str, Collection[str]]) -> bool:
    """Whether facts, or names that they are looked for under, are left out."""
    return any(_less(value.get(fact, ()), names) for fact, names in own.items())


def _on(value: Any, _: Any) -> bool:
    return bool(value)


LOOSER: Mapping[str, Looser] = {
    "store.ignore": _on,
    "experiments.test_names": _emptied,
    "experiments.lifecycle_values": _more,
    "runs.running_max_hours": _larger,
    "models.allowed_globals": _on,
    "models.allowed_models": _on,
    "models.loaders": _on,
    "models.allow_code": _on,
    "models.half_made_max_days": _larger,
    "models.time_limit": _larger,
    "models.memory_limit": _larger,
    "duplicates.min_size": _larger,
    "duplicates.max_size": _smaller,
    "duplicates.boilerplate": _more,
    "artifacts.hash_cache": lambda value, _: value != "off",
    "gate.require_evidence": _less,
    "gate.fail_on": lambda value, own: Severity(value).rank > Severity(own).rank,
    "gate.baseline": _on,
    "waivers": _on,
}
"""Settings of the store as a whole."""
OF_PRODUCT: Mapping[str, Looser] = {
    "experiments": lambda value, _: "*" not in value,
    "production_names": _emptied,
    "production_tags": _emptied,
    "production.tolerance": _larger,
    "production.largest_predictions": _smaller,
    "production.required_params": _emptied,
    "production.required_metrics": _emptied,
    "production.required_tags": _emptied,
    "production.required_artifacts": _emptied,
    "production.facts": _fewer_names,
    "production.decisions": _on,
}
"""Settings of a product."""


def weakened(settings: Settings, rules: Mapping[str, Policy], flags: Flags | None = None) -> list[str]:
    """One line a setting that asks for less than the built-in one: what it is, where it is said, what is built in.
    `rules` are those whose severity may be lowered; what `flags` say wins over the settings.
    """
    return [
        *_of_store(settings, _of_flags(flags) if flags else {}),
        *_of_products(settings.products, settings),
        *_lowered(settings, rules),
    ]


def _of_flags(flags: Flags) -> dict[str, tuple[str, Any]]:
    """Key of a setting -> the flag that wins over it, and what it says."""
    by = "--compliance-baseline" if flags.baseline else "--compliance-baseline-write"
    given = {
        "gate.fail_on": ("--compliance-fail-on", flags.fail_on),
        "gate.baseline": (by, flags.baseline or flags.baseline_write),
    }
    return {key: said for key, said in given.items() if said[1] is not None}


def _of_store(settings: Settings, flags: Mapping[str, tuple[str, Any]]) -> Iterator[str]:
    for key, looser in LOOSER.items():
        where, value = flags.get(key, ("", None))
        found = _said(settings, key) if not where else (value, _built_in(settings, key))
        if found is not None and looser(*found):
            yield f"{key} = {_shown(found[0])} ({where or settings.origin(key)}; built in: {_shown(found[1])})"


def _of_products(products: Collection[Product], settings: Settings) -> Iterator[str]:
    for key, looser in OF_PRODUCT.items():
        saying: dict[tuple[str, str], list[str]] = {}
        for product in products:
            found = _said(product, key)
            if found is not None and looser(*found):
                shown = _shown(found[0]), _shown(found[1])
                saying.setdefault(shown, []).append(f"{product.name}: {settings.origin(key, product)}")
        for (value, own), places in saying.items():
            yield f"products.{key} = {value} ({first_of(places, _FEW)}; built in: {own})"


def _lowered(settings: Settings, rules: Mapping[str, Policy]) -> Iterator[str]:
    for key, own in sorted(settings.policies.items()):
        rule = rules.get(key)
        if rule is not None and own.severity and Severity(own.severity).rank < rule.severity.rank:
            where = settings.origin("policies")
            yield f"policies.{key}.severity = {_shown(own.severity)} ({where}; built in: {_shown(rule.severity.value)})"


def _said(table: BaseModel, key: str) -> tuple[Any, Any] | None:
    """The value that the settings give a dotted key and the one that is built in; None where they say nothing of it."""
    *above, last = key.split(".")
    for part in above:
        if part not in table.model_fields_set:
            return None
        table = getattr(table, part)
    if last not in table.model_fields_set:
        return None
    return getattr(table, last), _default(table, last)


def _built_in(table: BaseModel, key: str) -> Any:
    *above, last = key.split(".")
    for part in above:
        table = getattr(table, part)
    return _default(table, last)


def _default(table: BaseModel, key: str) -> Any:
    return type(table).model_fields[key].get_default(call_default_factory=True)


def _shown(value: Any) -> str:
    """A value as TOML would have it, long lists cut."""
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return f"{len(value)} {'table' if len(value) == 1 else 'tables'}"
    if isinstance(value, tuple | list) and len(value) > _FEW:
        return f"[{first_of([json.dumps(item) for item in value], _FEW)}]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, default=list)
