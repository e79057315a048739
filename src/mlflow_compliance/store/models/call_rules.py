"""With which arguments the known functions may be called: what they do depends on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_compliance.store.models.allowlist import Name
from mlflow_compliance.store.models.stand_ins import ARRAYS, DTYPE, Made, Pairs, is_shape, shape_of

_TYPE = re.compile(r"[<>=|]?[A-Za-z]\d*")
_ENCODINGS = ("latin1", "latin-1", "utf-8", "ascii")
_MOST_ENTRIES = 16
_LARGEST_EMPTY = 1 << 16
"""Items of an array that is made before its content is there; picklers ask for none."""
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_BYTEARRAY, _ENCODE = Name("builtins", "bytearray"), Name("_codecs", "encode")
_BIT_GENERATOR = Name("numpy.random._pickle", "__bit_generator_ctor")
_SEED = Name("numpy.random.bit_generator", "SeedSequence")
_INDEX = {
    f"{name}Index"
    for name in ("", "Range", "Multi", "Datetime", "Timedelta", "Period", "Interval", "Categorical", "Int64", "UInt64")
} | {"Float64Index"}
_OF_AN_INDEX = {
    *("data", "name", "names", "dtype", "start", "stop", "step", "levels", "codes", "labels", "sortorder"),
    *("freq", "tz", "closed", "left", "right", "categories", "ordered", "verify_integrity"),
}
_ARROW_TEXTS = {"string": 4, "utf8": 4, "large_string": 8, "large_utf8": 8}

Arguments = tuple[Any, ...]


def _is_encoding(given: Arguments) -> bool:
    return len(given) == 2 and not isinstance(given[0], Name) and given[1] in _ENCODINGS


def _is_dtype(value: Any) -> bool:
    return isinstance(value, Made) and value.source == DTYPE


def _is_type_of_dtype(given: Arguments) -> bool:
    # A type of another kind (a dict of fields, a class with an attribute `dtype`) may say where objects lie.
    return 1 <= len(given) <= 3 and isinstance(given[0], str) and _TYPE.fullmatch(given[0]) is not None


def _is_empty_array(given: Arguments) -> bool:
    return (
        len(given) == 3
        and isinstance(given[0], Name)
        and given[0] in ARRAYS
        and is_shape(given[1])
        and _size_of(given[1]) <= _LARGEST_EMPTY
        and _is_byte_type(given[2])
    )


def _is_masked_array(given: Arguments) -> bool:
    masked = len(given) == 4 and isinstance(given[0], Name) and given[0].name == "MaskedArray"
    return masked and _is_empty_array(given[1:])


def _size_of(shape: tuple[int, ...]) -> int:
    size = 1
    for count in shape:
        size *= count
    return size


def _is_byte_type(value: Any) -> bool:
    """How picklers say that the type is still to come: b'b', by protocols before 3 made by `encode`."""
    if isinstance(value, Made) and value.source == _ENCODE:
        value = (value.positional or (None,))[0]
    return value in (b"b", "b")


def _begins_with_dtype(given: Arguments) -> bool:
    return 1 <= len(given) <= 2 and _is_dtype(given[0])


def _is_buffer(given: Arguments) -> bool:
    return 3 <= len(given) <= 4 and not isinstance(given[0], Name) and _is_dtype(given[1])


def _names_bit_generator(given: Arguments) -> bool:
    """The name or the class of one, or one that was made; and the function that makes it, no other."""
    one = given[0] if given else "MT19937"
    known = (
        (isinstance(one, str) and one in _BIT_GENERATORS)
        or (isinstance(one, Name) and one.module.startswith("numpy.random.") and one.name in _BIT_GENERATORS)
        or (isinstance(one, Made) and one.source == _BIT_GENERATOR)
    )
    return known and all(isinstance(item, Name) and item == _BIT_GENERATOR for item in given[1:])


def _is_seed(given: Arguments) -> bool:
    return len(given) == 3 and isinstance(given[0], Name) and given[0] == _SEED


def _is_index(given: Arguments) -> bool:
    """`_new_Index` makes whatever class it is given with whatever arguments: an array at an address, say."""
    if len(given) != 2 or not isinstance(given[0], Name) or not isinstance(given[1], Pairs):
        return False
    entries = given[1].texts(_MOST_ENTRIES)
    return (
        given[0].module.partition(".")[0] == "pandas"
        and given[0].name in _INDEX
        and entries is not None
        and entries.keys() <= _OF_AN_INDEX
        and not any(isinstance(value, Name) for value in entries.values())
    )


def _is_block(given: Arguments) -> bool:
    """Values and where they go: a slice, or an array of places. How many dimensions there are is checked by pandas."""
    return len(given) == 3 and isinstance(given[0], Made) and isinstance(given[1], Made) and type(given[2]) is int


def _is_tree(given: Arguments) -> bool:
    """Compiled code reads as many counts of classes as there are said to be outputs."""
    return (
        len(given) == 3
        and all(type(count) is int and 0 <= count < 1 << 31 for count in (given[0], given[2]))
        and shape_of(given[1]) == (given[2],)
    )


def _has_no_size(given: Arguments) -> bool:
    """A number would be how many bytes to make."""
    return all(isinstance(item, (bytes, bytearray, str)) or _is_made_by_encode(item) for item in given)


def _is_made_by_encode(value: Any) -> bool:
    return isinstance(value, Made) and value.source == _ENCODE


def _is_list(given: Arguments) -> bool:
    """A range would be all the numbers in it."""
    return not given or (len(given) == 1 and type(given[0]) in (list, tuple))


def _is_factory(given: Arguments) -> bool:
    """What a defaultdict makes for a missing key."""
    made = given[0] if given else Name("builtins", "list")
    return isinstance(made, Name) and made.module in ("builtins", "collections") and _are_plain(given[1:])


def _are_plain(given: Arguments) -> bool:
    return not any(isinstance(item, Name) for item in given)


def _is_arrow_text(given: Arguments) -> bool:
    """Text as Arrow keeps it: Arrow trusts what it is told, so that what lies beyond the buffers would be read."""
    parts = given[0] if len(given) == 1 and type(given[0]) is tuple else ()
    if len(parts) != 7 or type(parts[4]) is not list or len(parts[4]) != 3:
        return False
    alias = (parts[0].positional or (None,))[0] if isinstance(parts[0], Made) else None
    width = _ARROW_TEXTS.get(alias) if isinstance(alias, str) else None
    length, offset = parts[1], parts[3]
    valid, places, text = map(_content, parts[4])
    if not width or places is None or text is None or parts[5] != [] or parts[6] is not None:
        return False
    if not all(type(count) is int and 0 <= count < 1 << 40 for count in (length, offset)):
        return False
    if parts[4][0] is not None and (valid is None or len(valid) * 8 < offset + length):
        return False
    if not length and not places:
        return True
    return (offset + length + 1) * width <= len(places) and _rise(places[: (offset + length + 1) * width], width, text)


def _rise(places: bytes, width: int, text: bytes) -> bool:
    import numpy as np

    found = np.frombuffer(places, f"<i{width}")
    return bool(found[0] >= 0 and (found[1:] >= found[:-1]).all() and found[-1] <= len(text))


def _content(buffer: Any) -> bytes | None:
    """What a buffer of Arrow holds; None for none, or one that is not written out."""
    inner = buffer.positional if isinstance(buffer, Made) and buffer.source.name == "py_buffer" else None
    made = inner[0] if inner else None
    if isinstance(made, Made) and made.source == _BYTEARRAY:
        made = (made.positional or (b"",))[0]
    if isinstance(made, Made) and made.source == _ENCODE:  # how protocols before 3 write bytes
        text = (made.positional or (None,))[0]
        made = text.encode("latin1", "replace") if isinstance(text, str) else None
    return bytes(made) if isinstance(made, (bytes, bytearray)) else None


_RULES: Mapping[Name, Callable[[Arguments], bool]] = {
    _ENCODE: _is_encoding,
    Name("builtins", "bytearray"): _has_no_size,
    Name("builtins", "bytes"): _has_no_size,
    Name("builtins", "frozenset"): _is_list,
    Name("builtins", "set"): _is_list,
    Name("collections", "defaultdict"): _is_factory,
    DTYPE: _is_type_of_dtype,
    Name("numpy.ma.core", "_mareconstruct"): _is_masked_array,
    **{Name(f"numpy.{core}.multiarray", "_reconstruct"): _is_empty_array for core in ("core", "_core")},
    **{Name(f"numpy.{core}.multiarray", "scalar"): _begins_with_dtype for core in ("core", "_core")},
    **{Name(f"numpy.{core}.numeric", "_frombuffer"): _is_buffer for core in ("core", "_core")},
    _BIT_GENERATOR: _names_bit_generator,
    Name("numpy.random._pickle", "__generator_ctor"): _names_bit_generator,
    Name("numpy.random._pickle", "__randomstate_ctor"): _names_bit_generator,
    Name("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _is_seed,
    Name("pandas.core.indexes.base", "_new_Index"): _is_index,
    Name("pandas._libs.internals", "_unpickle_block"): _is_block,
    Name("pyarrow.lib", "_restore_array"): _is_arrow_text,
    Name("sklearn.tree._tree", "Tree"): _is_tree,
}


def is_harmless(call: Made) -> bool:
    """Whether a known function does no harm with these arguments."""
    given = call.positional
    return given is not None and _RULES.get(call.source, _are_plain)(given)
