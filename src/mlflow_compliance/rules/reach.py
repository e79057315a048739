"""How far a remedy reaches, read off its code: which kinds of change it names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from mlflow_compliance.changes import Applicability, Change

if TYPE_CHECKING:
    from mlflow_compliance.rules.fixer import Fixer

ADVICE = "advice"
"""What a rule has whose remedy changes nothing."""


def changes_of(remedy: Fixer | None) -> tuple[type[Change], ...]:
    """Kinds of change that a remedy may propose: those that it names, or a function of its own package that it calls
    does. What a library hands it is not seen.
    """
    found: dict[str, type[Change]] = {}
    first = inspect.unwrap(remedy) if remedy else None
    todo, seen = [first] if isinstance(first, FunctionType) else [], set()
    while todo:
        function = todo.pop()
        if function in seen:
            continue
        seen.add(function)
        for name in _names_in(function.__code__):
            value = function.__globals__.get(name)
            if isinstance(value, type) and issubclass(value, Change) and value is not Change:
                found[name] = value
            elif callable(value) and isinstance(inner := inspect.unwrap(value), FunctionType):
                todo += [inner] if _package(inner) == _package(first) else []
    return tuple(found[name] for name in sorted(found))


def kind_of(remedy: Fixer | None) -> str:
    """'safe', 'reversible' or 'advice': that of the change that reaches furthest."""
    kinds = {change.applicability for change in changes_of(remedy)}
    if not kinds:
        return ADVICE
    furthest = Applicability.SAFE if kinds == {Applicability.SAFE} else Applicability.REVERSIBLE
    return str(furthest.value)


def _package(function: object) -> str:
    return str(getattr(function, "__module__", "")).rpartition(".")[0]


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
