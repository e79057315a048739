"""Whether a pickle holds anything but known, harmless parts of models. It is never loaded."""

from __future__ import annotations

import io
import logging
import pickle
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import Any

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.store.models.allowlist import CALLED, Name, is_known, objections

SUFFIXES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".pt", ".pth", ".bin", ".ckpt")
UNKNOWN = "so what it does is not known"

_MAGIC = re.compile(rb"\x80[\x02-\x05]")
_DTYPE = Name("numpy", "dtype")
_NUMBER = re.compile(r"[<>=|]?[biufcSUVmM]\d*")
_MAPPINGS = {Name("collections", "OrderedDict"), Name("collections", "defaultdict")}
_FILLED = _MAPPINGS | {Name("sklearn.utils._bunch", "Bunch")}
_PAIR_STATES = {Name("numpy.random._pickle", "__bit_generator_ctor")}
"""What makes objects whose own `__setstate__` takes two things: elsewhere a pair sets attributes past it,
`__class__` among them.
"""

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
    """Whether a part of a dtype (which type, and where) has a type of numbers, text or bytes, or one with parts
    that are looked at by themselves.
    """
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


MOST_STEPS = 2_000_000
"""A pickle with more opcodes is not looked at: each takes some 200 bytes of memory and five microseconds."""

_MOST_NAMES = 1000
_LONGEST_NAME = 1000
_MARK, _PLAIN, _STRANGE = object(), object(), object()
"""The mark; a number, bytes, a list, a dict and the like; something that only the one who loads can give."""

_TEXT = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_PUT, _GET = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}
_STRANGERS = {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}
_CALLS = {"REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX"}


class UnreadableError(ValueError):
    """What the bytes do cannot be told; the message says why, in a few words."""


@dataclass(eq=False)
class Made:
    """An object that the pickle makes by calling `source` or by making it empty."""

    source: Name
    arguments: Sequence[Any]
    changed: bool = False


@dataclass(eq=False)
class Pairs:
    """A dict that the pickle writes out."""

    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


@dataclass
class Walk:
    """What one pickle does. Values are stand-ins: texts, None and tuples as they are, Name, Made and Pairs, and a
    bare object for all others.
    """

    imported: set[Name] = field(default_factory=set)
    called: set[Name] = field(default_factory=set)
    """With arguments of the pickle's choice; a class that is only made empty (`cls.__new__(cls)`) is not among them."""
    states: list[tuple[Made, Any]] = field(default_factory=list)
    """Each object whose state is set, with the state."""
    fills: list[tuple[Made, Sequence[Any]]] = field(default_factory=list)
    """Each object that items are put into, by its own methods, with their keys where they have some."""
    tricks: set[str] = field(default_factory=set)
    """What no pickler writes, in words that follow the name of the file."""
    condensed: bytes = b""
    """The same pickle without frames and without the content of long texts and numbers, for another reader."""


def walk(data: bytes) -> Walk:
    """Follow one pickle from the first byte to the last. Raises UnreadableError where it is none, or where more
    follows after its end.
    """
    machine, condensed = _Machine(), bytearray()
    with io.BytesIO(data) as stream:
        try:
            for opcode, argument, at in pickletools.genops(stream):
                machine.step(opcode, argument)
                condensed += _condensed(opcode, data, at or 0, stream.tell())
        except UnreadableError:
            raise
        except Exception as error:
            raise UnreadableError("it is damaged, or no pickle at all") from error
        if stream.tell() != len(data):
            raise UnreadableError("more follows after its end")
    machine.seen.condensed = bytes(condensed)
    return machine.seen


def _condensed(opcode: pickletools.OpcodeInfo, data: bytes, start: int, end: int) -> bytes:
    if opcode.name == "FRAME":
        return b""
    if end - start > _LONGEST_NAME and not opcode.stack_before and opcode.name not in ("GLOBAL", "PERSID"):
        return pickle.NONE
    if opcode.name in ("GLOBAL", "INST") and b"\\" in data[start:end]:
        raise UnreadableError(
            "it writes a name with a backslash"
        )  # pickletools takes it for an escape, an unpickler does not
    return data[start:end]


def python3_name(name: Name) -> Name:
    """The name that an unpickler looks up for one of Python 2, up to protocol 2."""
    if name in NAME_MAPPING:
        return Name(*NAME_MAPPING[name])
    return Name(IMPORT_MAPPING.get(name.module, name.module), name.name)


class _Machine:
    """The stack, the memo and the protocol of an unpickler at one opcode."""

    def __init__(self) -> None:
        self.seen = Walk()
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0
        self.steps = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise UnreadableError(f"it takes more than {MOST_STEPS:,} steps")
        name = opcode.name
        if name in _PUT:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in _GET:
            self.stack.append(self.memo[argument])
        elif name == "PROTO":
            self.protocol = argument
        elif name == "DUP":
            self.stack.append(self._top())
        elif name == "POP" and self.stack and self.stack[-1] is _MARK:
            self.stack.pop()
        elif name == "STOP":
            if len(self.stack) != 1 or self._top() is _MARK:
                raise UnreadableError("it does not end with one value")
        elif name != "FRAME":
            taken, items = self._take(opcode) if opcode.stack_before else ([], [])
            if opcode.stack_after:
                self.stack.append(self._result(name, argument, taken, items))

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise UnreadableError("it takes a value where there is none")
        return self.stack[-1]

    def _take(self, opcode: pickletools.OpcodeInfo) -> tuple[list[Any], list[Any]]:
        """What an opcode takes off the stack: single values, and those above the last mark."""
        wanted, items = len(opcode.stack_before), []
        if pickletools.markobject in opcode.stack_before:
            while self.stack and self.stack[-1] is not _MARK:
                items.append(self.stack.pop())
            if not self.stack:
                raise UnreadableError("it goes back to a mark that was never set")
            self.stack.pop()
            items.reverse()
            wanted = opcode.stack_before.index(pickletools.markobject)
        taken = self.stack[len(self.stack) - wanted :] if wanted else []
        if len(self.stack) < wanted or any(value is _MARK for value in taken):
            raise UnreadableError("it takes a value where there is none")
        del self.stack[len(self.stack) - wanted :]
        return taken, items

    def _result(self, name: str, argument: Any, taken: list[Any], items: list[Any]) -> Any:
        """The stand-in for what an opcode leaves on the stack."""
        if name == "MARK":
            return _MARK
        if name == "NONE":
            return None
        if name in _TEXT:
            return argument if len(argument) <= _LONGEST_NAME else _PLAIN
        if name.startswith("TUPLE") or name == "EMPTY_TUPLE":
            return tuple(items or taken)
        if name in ("EMPTY_DICT", "DICT"):
            return Pairs(items[::2], items[1::2])
        if name in ("GLOBAL", "INST"):
            found = self._found(*argument.split(" ", 1))
            return self._called(found, [tuple(items)]) if name == "INST" else found
        if name == "STACK_GLOBAL":
            return self._found(*taken)
        if name in _CALLS:
            what, *arguments = items if name == "OBJ" else taken
            if name == "NEWOBJ" and isinstance(what, Name) and arguments == [()]:
                return Made(what, ())
            return self._called(what, arguments)
        if name == "BUILD":
            return self._changed(*taken)
        if name in _FILLS:
            return self._filled(taken[0], items or taken[1:], mapping=name.startswith("SETITEM"))
        if name in _STRANGERS:
            self.seen.tricks.add("asks whoever loads it for an object that is not in it")
            return _STRANGE
        return _PLAIN

    def _found(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnreadableError("it makes up a name to import while it is loaded")
        found = Name(module, name)
        if self.protocol < 3:
            found = python3_name(found)
        self.seen.imported.add(found)
        if len(self.seen.imported) > _MOST_NAMES:
            raise UnreadableError(f"it imports more than {_MOST_NAMES:,} names")
        return found

    def _called(self, what: Any, arguments: Sequence[Any]) -> Any:
        if not isinstance(what, Name):
            self.seen.tricks.add("calls an object that it made itself")
            return _STRANGE
        self.seen.called.add(what)
        return Made(what, arguments)

    def _changed(self, target: Any, state: Any) -> Any:
        if not isinstance(target, Made):
            self.seen.tricks.add("changes something that it did not make")
        elif target.changed:
            # The first state may put a '__setstate__' into the object, which the second one would call.
            self.seen.tricks.add("sets the state of an object twice")
        else:
            target.changed = True
            self.seen.states.append((target, state))
        return target

    def _filled(self, target: Any, items: Sequence[Any], *, mapping: bool) -> Any:
        if isinstance(target, Pairs):
            target.keys += items[::2]
            target.values += items[1::2]
        elif isinstance(target, Made) and not target.changed:
            self.seen.fills.append((target, items[::2] if mapping else ()))
        elif target is not _PLAIN:
            self.seen.tricks.add("puts items into something that is no container")
        return target
