"""What stands for the values of a pickle that is followed and not loaded, and the arrays that joblib writes in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from mlflow_compliance.store.models.allowlist import Name
from mlflow_compliance.store.models.budget import UnreadableError

MARK, PLAIN, STRANGE = object(), object(), object()
"""The mark; a set and the like; something that only the one who loads can give."""
DTYPE, ARRAY = Name("numpy", "dtype"), Name("numpy", "ndarray")
ARRAYS = {
    ARRAY,
    Name("numpy", "matrix"),
    Name("numpy", "memmap"),
    Name("numpy.matrixlib.defmatrix", "matrix"),
    Name("numpy.core.memmap", "memmap"),
    Name("numpy._core.memmap", "memmap"),
}
"""Classes of arrays that `_reconstruct` may make."""
WRAPPERS = {Name(f"{place}joblib.numpy_pickle", "NumpyArrayWrapper") for place in ("", "sklearn.externals.")}
"""What joblib writes in the place of an array, whose bytes follow."""

_TYPE = re.compile(r"[<>=|]?([A-Za-z])(\d*)")
_BYTES_OF_A_SIGN = {"S": 1, "a": 1, "V": 1, "U": 4}
_MOST_DIMENSIONS = 64


@dataclass(eq=False)
class Made:
    """An object that the pickle makes by calling `source` or by making it empty."""

    source: Name
    arguments: Sequence[Any]
    changed: bool = False
    state: Any = None

    @property
    def positional(self) -> tuple[Any, ...] | None:
        """The arguments of a plain call; None where some were given by name, or nobody knows."""
        one = self.arguments[0] if len(self.arguments) == 1 else None
        return one if type(one) is tuple else None


@dataclass(eq=False)
class Pairs:
    """A dict that the pickle writes out."""

    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def texts(self, most: int) -> dict[str, Any] | None:
        """It as a dict of few entries; None where it has more than `most`, or keys that are no texts."""
        if len(self.keys) > most or not all(isinstance(key, str) for key in self.keys):
            return None
        return dict(zip(self.keys, self.values, strict=False))


class Array(NamedTuple):
    """An array between the opcodes: of objects, which are a pickle of their own, or of so many bytes."""

    shape: tuple[int, ...]
    objects: bool = False
    size: int = 0
    aligned: bool = False
    """Whether a byte says how many others come before the content."""


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array that the pickle made; None where that is not known."""
    if not isinstance(value, Made):
        return None
    if value.source.name == "_frombuffer":
        given = value.positional or ()
        return given[2] if len(given) > 2 and is_shape(given[2]) else None
    shape = value.state[1] if type(value.state) is tuple and len(value.state) == 5 else None
    return shape if is_shape(shape) else None


def is_shape(value: Any) -> bool:
    """Whether a value is the shape of an array."""
    return (
        type(value) is tuple
        and len(value) <= _MOST_DIMENSIONS
        and all(type(count) is int and 0 <= count < 1 << 62 for count in value)
    )


def array_of(wrapper: Made) -> Array:
    """The array that a wrapper of joblib stands for. Raises UnreadableError where it is none that joblib writes."""
    told = wrapper.state.texts(6) if isinstance(wrapper.state, Pairs) else None
    told = {"allow_mmap": False, "numpy_array_alignment_bytes": None} | (told or {})
    shape, dtype = told.get("shape"), told.get("dtype")
    if (
        len(told) != 6
        or told.get("order") not in ("C", "F")
        or not isinstance(told.get("subclass"), Name)
        or told.get("subclass") not in ARRAYS
        or not is_shape(shape)
        or not isinstance(dtype, Made)
        or dtype.source != DTYPE
    ):
        raise UnreadableError("an array is described as joblib describes none")
    assert type(shape) is tuple
    size = _item_size(dtype)
    if size < 0:
        return Array(shape, objects=True)
    return Array(shape, size=prod(shape) * size, aligned=told["numpy_array_alignment_bytes"] is not None)


def _item_size(dtype: Made) -> int:
    """Bytes of one item; -1 for objects."""
    text = (dtype.positional or (None,))[0]
    found = _TYPE.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise UnreadableError("an array is of a type that joblib does not write")
    letter, count = found[1], int(found[2] or 0)
    if letter == "O":
        return -1
    if letter not in _BYTES_OF_A_SIGN:
        return count
    size = count * _BYTES_OF_A_SIGN[letter]
    stated = dtype.state[5] if type(dtype.state) is tuple and len(dtype.state) in (8, 9) else size
    if stated != size:
        raise UnreadableError("the type of an array has two sizes")
    return size
