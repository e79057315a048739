"""Whether a pickle holds anything but known, harmless parts of models. It is never loaded."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any

from mlflow_compliance.settings import ModelSettings
from mlflow_compliance.store.models.harmless import CALLED, is_known, objections
from mlflow_compliance.store.models.opcodes import Made, Name, Pairs, UnreadableError, Walk, python3_name, walk

SUFFIXES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".pt", ".pth", ".bin", ".ckpt")
UNKNOWN = "so what it does is not known"

_MAGIC = re.compile(rb"\x80[\x02-\x05]")
_DTYPE = Name("numpy", "dtype")
_NUMBER = re.compile(r"[<>=|]?[biufcSUVmM]\d*")
_MAPPINGS = {Name("collections", "OrderedDict"), Name("collections", "defaultdict")}
_FILLED = _MAPPINGS | {Name("sklearn.utils._bunch", "Bunch")}
_PAIR_STATES = {Name("numpy.random._pickle", "__bit_generator_ctor")}
"""What makes objects whose own `__setstate__` takes two things: elsewhere a pair sets attributes past it, `__class__` among them."""

logging.getLogger("picklescan").addHandler(logging.NullHandler())
logging.getLogger("picklescan").propagate = False  # it would print what is told here


def looks_like_pickle(head: bytes) -> bool:
    """Whether the first two bytes of a file say that it is a pickle of protocol 2 or later."""
    return _MAGIC.match(head) is not None


def pickle_problems(data: bytes, where: str, rules: ModelSettings) -> Iterator[str]:
    """What loading these bytes as a pickle could do that is not known to be harmless, one sentence a thing."""
    try:
        seen = walk(data)
    except UnreadableError as error:
        yield f"{where}: cannot be read as a pickle, {UNKNOWN} ({error})"
        return
    strange = [name for name in seen.imported if not is_known(name)]
    yield from (f"{where}: {shown(name)} {why}" for name, why in objections(strange, rules.allowed_globals).items())
    calls = sorted(name for name in seen.called if is_known(name) and name not in CALLED)
    yield from (f"{where}: calls {name} with arguments of its own, {UNKNOWN}" for name in calls)
    tricks = {*seen.tricks, *_odd_states(seen), *_odd_items(seen), *_second_opinion(seen)}
    yield from (f"{where}: {trick}, {UNKNOWN}" for trick in sorted(tricks))


def shown(name: object) -> str:
    """A name from a file, fit for one line of a report."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(name)[:200])
    return text + ("..." if len(str(name)) > 200 else "")


def is_special(key: Any) -> bool:
    """Whether a key of an object's state is no text, or an attribute with a meaning to Python or NumPy, such as `__array_interface__`."""
    return not isinstance(key, str) or (key.startswith("__") and key.endswith("__"))


def _odd_states(seen: Walk) -> Iterator[str]:
    # One dict may be the state of very many objects: each is looked at once.
    has_special, are_numbers = cache(_has_special), cache(_are_numbers)
    for made, state in seen.states:
        if isinstance(state, (Name, Made)) or (type(state) is tuple and len(state) == 2 and made.source not in _PAIR_STATES):
            yield "sets the state of an object as no pickler does"
        elif isinstance(state, Pairs) and has_special(state):
            yield "gives an object attributes that have a meaning to Python"
        elif made.source == _DTYPE:
            sound = type(state) is tuple and len(state) in (8, 9)
            base, fields = (state[2], state[4]) if sound else (None, None)
            if not sound or not (base is None or _is_number(base)) or not (fields is None or are_numbers(fields)):
                # Its flags may deny that there are objects in a field: bytes of the file would be taken for addresses.
                yield "makes a numpy.dtype that may lie about what it holds"


def _has_special(state: Pairs) -> bool:
    return any(map(is_special, state.keys))


def _are_numbers(fields: Any) -> bool:
    return isinstance(fields, Pairs) and all(map(_is_number, fields.values))


def _is_number(part: Any) -> bool:
    """Whether a part of a dtype (which type, and where) has a type of numbers, text or bytes, or one with parts that are looked at by themselves."""
    if type(part) is not tuple or not part or not isinstance(part[0], Made) or part[0].source != _DTYPE:
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

    result = scan_pickle_bytes(BytesIO(seen.condensed), "pickle")
    names = {Name(found.module, found.name) for found in result.globals}
    if result.scan_err or any(name not in seen.imported and python3_name(name) not in seen.imported for name in names):
        yield "hides what it imports from one of two readers"
