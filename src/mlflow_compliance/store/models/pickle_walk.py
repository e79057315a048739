"""Follows a pickle as an unpickler would, importing and calling nothing: what it names, calls, makes and changes."""

from __future__ import annotations

import io
import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlflow_compliance.store.models.allowlist import CALLED, MAKERS, Name, is_known
from mlflow_compliance.store.models.budget import MOST_STEPS, Budget, UnreadableError
from mlflow_compliance.store.models.call_rules import is_harmless
from mlflow_compliance.store.models.stand_ins import ARRAY, MARK, PLAIN, STRANGE, WRAPPERS, Array, Made, Pairs, array_of

_MOST_NAMES = 1000
_LONGEST_NAME = 1000

_VALUES = {
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "FLOAT", "BINFLOAT"),
}
_PUT, _GET = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}
_STRANGERS = {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}
_CALLS = {"REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
_OBJECT, _DICT = Name("builtins", "object"), Name("builtins", "dict")


@dataclass
class Walk:
    """What one pickle does. Values are stand-ins: texts, numbers, bytes, None and tuples as they are, Name, Made and
    Pairs, and a bare object for all others.
    """

    imported: set[Name] = field(default_factory=set)
    called: set[Name] = field(default_factory=set)
    """With arguments of the pickle's choice; a class that is only made empty (`cls.__new__(cls)`) is not among them."""
    odd_calls: set[Name] = field(default_factory=set)
    """Known names that are called with other arguments than picklers give them."""
    states: list[tuple[Made, Any]] = field(default_factory=list)
    """Each object whose state is set, with the state."""
    fills: list[tuple[Made, Sequence[Any]]] = field(default_factory=list)
    """Each object that items are put into, by its own methods, with their keys where they have some."""
    tricks: set[str] = field(default_factory=set)
    """What no pickler writes, in words that follow the name of the file."""
    condensed: bytes = b""
    """The same pickle without frames and without the content of long texts and numbers, for another reader."""
    nested: list[bytes] = field(default_factory=list)
    """The same of each pickle in its arrays."""
    arrays: int = 0
    """How many arrays lie between the opcodes, as joblib writes them."""


def walk(data: bytes, budget: Budget | None = None, *, arrays: bool = False) -> Walk:
    """Follow one pickle from the first byte to the last; with `arrays` as joblib would load it. Raises
    UnreadableError where it is none, or where more follows after its end.
    """
    with io.BytesIO(data) as stream:
        reader = _Reader(data, stream, budget or Budget())
        reader.seen.condensed = reader.read(arrays=arrays)
        if stream.tell() != len(data):
            raise UnreadableError("more follows after its end")
    return reader.seen


def follow(data: bytes, budget: Budget) -> Walk:
    """Follow one pickle as far as it can be followed."""
    with io.BytesIO(data) as stream:
        reader = _Reader(data, stream, budget)
        with suppress(UnreadableError):
            reader.read(arrays=False)
    return reader.seen


def attempt(data: bytes, budget: Budget) -> bool | None:
    """Whether an unpickler that is given these bytes would call something, or import something and reach the end,
    before it finds out that they are no pickle; None where all of them are followed and neither happens. Raises
    UnreadableError where that takes too many steps.
    """
    with io.BytesIO(data) as stream:
        while stream.tell() < len(data):
            reader = _Reader(data, stream, budget, sceptical=True)
            try:
                reader.read(arrays=False)
            except UnreadableError:
                if reader.spent:
                    raise
                return bool(reader.seen.called) or (None if stream.tell() >= len(data) else False)
            if reader.seen.imported or reader.seen.called:
                return True
            # Plain values: whoever reads one after another comes to what follows.
    return None


def python3_name(name: Name) -> Name:
    """The name that an unpickler looks up for one of Python 2, up to protocol 2."""
    if name in NAME_MAPPING:
        return Name(*NAME_MAPPING[name])
    return Name(IMPORT_MAPPING.get(name.module, name.module), name.name)


class _Reader:
    """Reads one pickle after another from a stream over `data`."""

    def __init__(self, data: bytes, stream: io.BytesIO, budget: Budget, *, sceptical: bool = False) -> None:
        self.seen = Walk()
        self.spent = False
        self._data = data
        self._stream = stream
        self._budget = budget
        self._sceptical = sceptical

    def read(self, *, arrays: bool) -> bytes:
        """To the end of one pickle, and of those in its arrays; gives what is kept of it for another reader."""
        machine, condensed, framed = _Machine(self.seen, sceptical=self._sceptical), bytearray(), 0
        stream, steps = self._stream, 0
        try:
            for opcode, argument, at in pickletools.genops(stream):
                steps += 1
                self._count(steps)
                machine.step(opcode, argument)
                condensed += _condensed(opcode, self._data, at or 0, stream.tell())
                if opcode.name == "FRAME":
                    framed = stream.tell() + int(argument or 0)
                elif arrays and opcode.name == "BUILD" and machine.holds_wrapper():
                    self._skip(machine.take_array(), framed)
        except UnreadableError:
            raise
        except Exception as error:
            raise UnreadableError("it is damaged, or no pickle at all") from error
        return bytes(condensed)

    def _count(self, steps: int) -> None:
        self.spent = steps > MOST_STEPS or self._budget.steps <= 0
        if steps > MOST_STEPS:
            raise UnreadableError(f"it takes more than {MOST_STEPS:,} steps")
        self._budget.step()

    def _skip(self, array: Array, framed: int) -> None:
        """Go past the bytes of an array, and look at those of objects, which are a pickle of its own. The last frame
        ends at `framed`.
        """
        stream, seen = self._stream, self.seen
        if stream.tell() < framed:
            # joblib reads on behind the frame, other readers behind the opcode.
            raise UnreadableError("an array lies within a frame, where joblib writes none")
        seen.arrays += 1
        if array.objects:
            seen.nested.append(self.read(arrays=False))
            return
        if array.aligned:
            padding = stream.read(1)
            stream.seek(int.from_bytes(padding, "little"), io.SEEK_CUR)
        if array.size > len(self._data) - stream.tell():
            raise UnreadableError("an array is larger than the file")
        stream.seek(array.size, io.SEEK_CUR)


def _condensed(opcode: pickletools.OpcodeInfo, data: bytes, start: int, end: int) -> bytes:
    if opcode.name == "FRAME":
        return b""
    if end - start > _LONGEST_NAME and not opcode.stack_before and opcode.name not in ("GLOBAL", "PERSID"):
        return pickle.NONE
    if opcode.name in ("GLOBAL", "INST") and b"\\" in data[start:end]:
        # pickletools takes it for an escape, an unpickler does not.
        raise UnreadableError("it writes a name with a backslash")
    return data[start:end]


class _Machine:
    """The stack, the memo and the protocol of an unpickler at one opcode."""

    def __init__(self, seen: Walk, *, sceptical: bool) -> None:
        self.seen = seen
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0
        self.sceptical = sceptical

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in _PUT:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in _GET:
            self.stack.append(self.memo[argument])
        elif name == "PROTO":
            self.protocol = argument
        elif name == "DUP":
            self.stack.append(self._top())
        elif name == "POP" and self.stack and self.stack[-1] is MARK:
            self.stack.pop()
        elif name == "STOP":
            if len(self.stack) != 1 or self._top() is MARK:
                raise UnreadableError("it does not end with one value")
        elif name != "FRAME":
            taken, items = self._take(opcode) if opcode.stack_before else ([], [])
            if opcode.stack_after:
                self.stack.append(self._result(name, argument, taken, items))

    def holds_wrapper(self) -> bool:
        """Whether joblib would now read an array: its wrapper is complete, on top of the stack."""
        return isinstance(self.stack[-1], Made) and self.stack[-1].source in WRAPPERS

    def take_array(self) -> Array:
        """Put the array in the place of its wrapper, as joblib does."""
        found = array_of(self.stack[-1])
        self.stack[-1] = Made(ARRAY, (), state=(1, found.shape, None, False, b""))
        return found

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise UnreadableError("it takes a value where there is none")
        return self.stack[-1]

    def _take(self, opcode: pickletools.OpcodeInfo) -> tuple[list[Any], list[Any]]:
        """What an opcode takes off the stack: single values, and those above the last mark."""
        wanted, items = len(opcode.stack_before), []
        if pickletools.markobject in opcode.stack_before:
            while self.stack and self.stack[-1] is not MARK:
                items.append(self.stack.pop())
            if not self.stack:
                raise UnreadableError("it goes back to a mark that was never set")
            self.stack.pop()
            items.reverse()
            wanted = opcode.stack_before.index(pickletools.markobject)
        taken = self.stack[len(self.stack) - wanted :] if wanted else []
        if len(self.stack) < wanted or any(value is MARK for value in taken):
            raise UnreadableError("it takes a value where there is none")
        del self.stack[len(self.stack) - wanted :]
        return taken, items

    def _result(self, name: str, argument: Any, taken: list[Any], items: list[Any]) -> Any:
        """The stand-in for what an opcode leaves on the stack."""
        if name == "MARK":
            return MARK
        if name == "NONE":
            return None
        if name in _VALUES:
            return argument
        if name in ("NEWTRUE", "NEWFALSE"):
            return name == "NEWTRUE"
        if name.startswith("TUPLE") or name == "EMPTY_TUPLE":
            return tuple(items or taken)
        if name in ("EMPTY_DICT", "DICT"):
            return Pairs(items[::2], items[1::2])
        if name in ("EMPTY_LIST", "LIST"):
            return items
        if name in ("GLOBAL", "INST"):
            found = self._found(*argument.split(" ", 1))
            return self._called(found, [tuple(items)]) if name == "INST" else found
        if name == "STACK_GLOBAL":
            return self._found(*taken)
        if name in _CALLS:
            what, *arguments = items if name == "OBJ" else taken
            if name == "NEWOBJ" and isinstance(what, Name) and arguments == [()]:
                return Made(what, ())
            return self._called(what, [tuple(arguments)] if name == "OBJ" else arguments)
        if name == "BUILD":
            return self._changed(*taken)
        if name in _FILLS:
            return self._filled(taken[0], items or taken[1:], mapping=name.startswith("SETITEM"))
        if name in _STRANGERS:
            self.seen.tricks.add("asks whoever loads it for an object that is not in it")
            return STRANGE
        return PLAIN

    def _found(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > 2 * _LONGEST_NAME:
            raise UnreadableError("it makes up a name to import while it is loaded")
        if self.sceptical and not all(map(str.isidentifier, f"{module}.{name}".split("."))):
            raise UnreadableError("it names what can be no module")
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
            return STRANGE
        if what in MAKERS and (empty := self._made_empty(arguments)):
            return empty
        self.seen.called.add(what)
        made = Made(what, arguments)
        # Now, because the pickle may still change what it gives.
        if is_known(what) and not (what in CALLED and is_harmless(made)):
            self.seen.odd_calls.add(what)
        return made

    def _made_empty(self, arguments: Sequence[Any]) -> Made | None:
        """What a maker gives that is asked for an object of a class and for no more, or, as protocols before 2 make
        one of a dict, for its items; None where it is asked for something else.
        """
        given = arguments[0] if len(arguments) == 1 else None
        if type(given) is not tuple or not given or not isinstance(given[0], Name):
            return None
        made = Made(given[0], ())
        if len(given) == 3 and given[1] == _DICT and isinstance(given[2], Pairs):
            self.seen.fills.append((made, tuple(given[2].keys)))
            return made
        return made if given[1:] in ((), (_OBJECT, None)) else None

    def _changed(self, target: Any, state: Any) -> Any:
        if not isinstance(target, Made):
            self.seen.tricks.add("changes something that it did not make")
        elif target.changed:
            # The first state may put a '__setstate__' into the object, which the second one would call.
            self.seen.tricks.add("sets the state of an object twice")
        else:
            target.changed, target.state = True, state
            self.seen.states.append((target, state))
        return target

    def _filled(self, target: Any, items: Sequence[Any], *, mapping: bool) -> Any:
        if isinstance(target, Pairs):
            target.keys += items[::2]
            target.values += items[1::2]
        elif isinstance(target, list) and not mapping:
            target += items
        elif isinstance(target, Made) and not target.changed:
            self.seen.fills.append((target, items[::2] if mapping else ()))
        elif target is not PLAIN and not isinstance(target, list):
            self.seen.tricks.add("puts items into something that is no container")
        return target
