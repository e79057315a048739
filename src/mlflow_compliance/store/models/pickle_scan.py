"""Whether a pickle holds anything but known, harmless parts of models. It is never loaded."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.store.models.allowlist import Name, is_known
from mlflow_compliance.store.models.budget import Budget, UnreadableError
from mlflow_compliance.store.models.pickle_walk import Walk, attempt, follow, python3_name, walk
from mlflow_compliance.store.models.problems import UNKNOWN, Problem, named_problems
from mlflow_compliance.store.models.stand_ins import DTYPE, WRAPPERS, Made, Pairs

_MAGIC = re.compile(rb"\x80[\x02-\x05]")
_NUMBER = re.compile(r"[<>=|]?[biufcSUVmM]\d*")
_MAPPINGS = {Name("collections", "OrderedDict"), Name("collections", "defaultdict")}
_FILLED = _MAPPINGS | {Name("sklearn.utils._bunch", "Bunch")}
_PAIR_STATES = {Name("numpy.random._pickle", "__bit_generator_ctor")}
"""What makes objects whose own `__setstate__` takes two things: elsewhere a pair sets attributes past it,
`__class__` among them.
"""

# It would print what is told here, and pytest shows what is logged wherever it was to go.
logging.getLogger("picklescan").setLevel(logging.CRITICAL + 1)


def is_pickle(data: bytes, budget: Budget) -> bool:
    """Whether loading these bytes with pickle could do something: they begin as protocols from 2 on do, or, as the
    older ones have no beginning of their own, following them leads to something that is imported or called.
    """
    if _MAGIC.match(data):
        return True
    try:
        return attempt(data, budget) is True
    except UnreadableError:
        return True  # too much to be followed to its end: told by whoever looks at it


def pickle_problems(
    data: bytes, where: str, rules: ModelSettings, budget: Budget | None = None, *, plain: bool = True
) -> Iterator[Problem]:
    """What loading these bytes as a pickle could do that is not known to be harmless, one sentence a thing. They are
    loaded by pickle itself where they are `plain`; otherwise by joblib, or by nobody knows whom.
    """
    budget = budget or Budget()
    try:
        seen = walk(data, budget, arrays=not plain)
    except UnreadableError as error:
        yield Problem(f"{where}: cannot be read as a pickle, {UNKNOWN} ({error})")
        return
    known = WRAPPERS if seen.arrays else frozenset[Name]()
    strange = [name for name in seen.imported if not is_known(name) and name not in known]
    yield from named_problems(strange, f"{where}: ", rules.allowed_globals)
    for name in sorted(seen.odd_calls):
        yield Problem(f"{where}: calls {name} with arguments of its own, {UNKNOWN}")
    tricks = {*seen.tricks, *_odd_states(seen), *_odd_items(seen), *_second_opinion(seen)}
    yield from (Problem(f"{where}: {trick}, {UNKNOWN}") for trick in sorted(tricks))
    if seen.arrays:
        yield from _told_by_pickle(data, where, rules, seen, budget)


def _told_by_pickle(data: bytes, where: str, rules: ModelSettings, seen: Walk, budget: Budget) -> Iterator[Problem]:
    """What pickle itself would do, which takes the bytes of an array for opcodes."""
    read = follow(data, budget)
    strange = [name for name in read.called if not is_known(name) and name not in seen.imported]
    start = f"{where}: an array holds opcodes, by which "
    yield from named_problems(strange, start, rules.allowed_globals)
    yield from (Problem(f"{start}{name} is called, {UNKNOWN}") for name in sorted(read.odd_calls - seen.odd_calls))
    if {*read.tricks, *_odd_states(read), *_odd_items(read)} - {*seen.tricks, *_odd_states(seen), *_odd_items(seen)}:
        yield Problem(f"{start}an object is changed, {UNKNOWN}")


def is_special(key: Any) -> bool:
    """Whether a key of an object's state is no text, or an attribute with a meaning to Python or NumPy, such as
    `__array_interface__`.
    """
    return not isinstance(key, str) or (key.startswith("__") and key.endswith("__"))


def _odd_states(seen: Walk) -> Iterator[str]:
    # One dict may be the state of very many objects: each is looked at once.
    has_special, are_numbers = cache(_has_special), cache(_are_numbers)
    for made, state in seen.states:
        if isinstance(state, (Name, Made)) or (
            type(state) is tuple and len(state) == 2 and made.source not in _PAIR_STATES
        ):
            yield "sets the state of an object as no pickler does"
        elif isinstance(state, Pairs) and has_special(state):
            yield "gives an object attributes that have a meaning to Python"
        elif made.source == DTYPE:
            sound = type(state) is tuple and len(state) in (8, 9)
            base, fields = (state[2], state[4]) if sound else (None, None)
            if (
                not sound
                or not (base is None or _is_number(base))
                or not (fields is None or (isinstance(fields, Pairs) and are_numbers(fields)))
            ):
                # Its flags may deny that there are objects in a field: bytes of the file would be taken for addresses.
                yield "makes a numpy.dtype that may lie about what it holds"


def _has_special(state: Pairs) -> bool:
    return any(map(is_special, state.keys))


def _are_numbers(fields: Pairs) -> bool:
    return all(map(_is_number, fields.values))


def _is_number(part: Any) -> bool:
    """Whether a part of a dtype (which type, and where) has a type of numbers, text or bytes, or one with parts
    that are looked at by themselves.
    """
    if type(part) is not tuple or not part or not isinstance(part[0], Made) or part[0].source != DTYPE:
        return False
    arguments = next(iter(part[0].arguments), None)
    text = arguments[0] if type(arguments) is tuple and arguments else None
    return isinstance(text, str) and _NUMBER.fullmatch(text) is not None


def _odd_items(seen: Walk) -> Iterator[str]:
    for made, keys in seen.fills:
        if is_known(made.source) and made.source not in _FILLED:
            yield f"puts items into {made.source}"
        elif made.source not in _MAPPINGS and any(map(is_special, keys)):
            yield "gives an object attributes that have a meaning to Python"


def _second_opinion(seen: Walk) -> Iterator[str]:
    """Whether picklescan sees a name that the walk did not see, or cannot tell one."""
    from picklescan.scanner import scan_pickle_bytes

    for pickled in (seen.condensed, *seen.nested):
        result = scan_pickle_bytes(BytesIO(pickled), "pickle")
        names = {Name(found.module, found.name) for found in result.globals}
        if result.scan_err or any(
            name not in seen.imported and python3_name(name) not in seen.imported for name in names
        ):
            yield "hides what it imports from one of two readers"
