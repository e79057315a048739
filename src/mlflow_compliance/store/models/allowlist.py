"""What models are made of: the only names that a model file may bring into a process without being asked about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from mlflow_compliance.store.models.known_models import KNOWN


class Name(NamedTuple):
    """Something in a module, as a pickle names it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def _names(table: Mapping[str, str]) -> frozenset[Name]:
    return frozenset(Name(module, name) for module, names in table.items() for name in names.split())


_LOSSES = (
    "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss CyHalfPoissonLoss "
    "CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss"
)

CALLED = _names(
    {
        # Containers and numbers: they allocate, iterate and hash.
        "builtins": "bytearray bytes complex frozenset range set slice",
        "collections": "OrderedDict defaultdict",
        # Looks a codec up by name, in the package `encodings` alone, and gives bytes or text. Protocols before 3 write
        # bytes with it.
        "_codecs": "encode",
        # Arrays, their types and single numbers, from bytes. NumPy 1 says core, NumPy 2 _core.
        "numpy": "dtype",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy.ma.core": "_mareconstruct",
        "numpy.core.numeric": "_frombuffer",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy._core.numeric": "_frombuffer",
        # Random states: they call the bit generator they are given, with at most its name, which the pickle could do
        # itself.
        "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
        "numpy.random.bit_generator": "__pyx_unpickle_SeedSequence",
        # Index and frame, and the Arrow text in them: arrays in, arrays out.
        "pandas.core.indexes.base": "_new_Index",
        "pandas._libs.internals": "_unpickle_block",
        "pandas.core.internals.managers": "BlockManager",
        "pandas": "StringDtype",
        "pandas.core.arrays.string_": "StringDtype",
        "pyarrow.lib": "_restore_array py_buffer type_for_alias",
        # Compiled objects of numbers: three arguments, or one, or none, all of them checked numbers and arrays.
        "sklearn.tree._tree": "Tree",
        "sklearn._loss._loss": _LOSSES,
        "_loss": _LOSSES,  # how scikit-learn 1.6 and 1.7 spelled it
        "sklearn.linear_model._sgd_fast": (
            "EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge SquaredLoss"
        ),
    }
)
"""May be called with the arguments that picklers give them (`call_rules`): none of them then imports, evaluates, opens
or sends anything, or calls more than the pickle itself may call.
"""

MADE = _names(
    {
        # Named as types of columns and arrays.
        "builtins": "bool dict float int list object str tuple",
        "numpy": (
            "bool bool_ float16 float32 float64 int16 int32 int64 int8 intp matrix memmap ndarray object_ str_ uint16 "
            "uint32 uint64 uint8"
        ),
        "numpy.core.memmap": "memmap",
        "numpy._core.memmap": "memmap",
        "numpy.ma": "MaskedArray",
        "numpy.ma.core": "MaskedArray",
        "numpy.matrixlib.defmatrix": "matrix",
        "numpy.random._mt19937": "MT19937",
        "numpy.random._pcg64": "PCG64 PCG64DXSM",
        "numpy.random._philox": "Philox",
        "numpy.random._sfc64": "SFC64",
        "numpy.random.bit_generator": "SeedSequence",
        "pandas": "DataFrame Index RangeIndex Series",
        "pandas.arrays": "ArrowStringArray",
        "pandas.core.arrays.string_arrow": "ArrowStringArray",
        "pandas.core.frame": "DataFrame",
        "pandas.core.indexes.base": "Index",
        "pandas.core.indexes.range": "RangeIndex",
        "pandas.core.internals.managers": "SingleBlockManager",
        "pandas.core.series": "Series",
    }
) | _names(dict(line.split(" ", 1) for line in KNOWN.strip().splitlines()))
"""May be named, made empty and given attributes, but not called with arguments: a Booster would open the file that
it is given.
"""


MAKERS = _names(
    {
        "copyreg": "__newobj__ _reconstructor",
        "sklearn.metrics._dist_metrics": "newObj",
        "sklearn.neighbors._ball_tree": "newObj",
        "sklearn.neighbors._dist_metrics": "newObj",
        "sklearn.neighbors._kd_tree": "newObj",
    }
)
"""May be called to make a known class empty, and with nothing else: `_reconstructor` would call the `__init__` of a
base, `__newobj__` pass arguments on.
"""

_RENAMED = {
    "gradient_boosting": "gb",
    "hashing": "hash",
    "hierarchical": "agglomerative",
    "k_means": "kmeans",
    "online_lda": "lda",
    "voting_classifier": "voting",
}
"""Modules of scikit-learn before 0.22 whose names changed by more than an underscore."""


def is_known(name: Name) -> bool:
    """Whether a name stands in one of the tables, be it by the module that it had in an earlier version."""
    return name in CALLED or name in MADE or name in MAKERS or _current(name) in MADE


def _current(name: Name) -> Name:
    """What scikit-learn names today what it named like this before 0.22: the same, in a module with an underscore."""
    parts = name.module.split(".")
    if parts[0] != "sklearn" or len(parts) != 3:
        return name
    old = parts[2].strip("_")
    new = "classes" if (parts[1], old) == ("tree", "tree") else _RENAMED.get(old, old)
    return Name(f"sklearn.{parts[1]}._{new}", name.name)


ALLOWABLE = "would run on load: name it in allowed_globals under [models] if you know that it is harmless"


def objections(names: Collection[Name], allowed_globals: Collection[str]) -> dict[Name, str]:
    """Each name that the settings do not allow -> why not, as the end of a sentence that begins with the name; the
    worst come first.
    """
    dangerous = _dangerous(names)
    found = dict.fromkeys(
        sorted(dangerous),
        "would run on load, and is known to run commands or code or to reach files: it cannot be allowed",
    )
    for name in sorted(set(names) - dangerous):
        if "." in name.name:
            found[name] = "would run on load, and is an attribute of something: it cannot be allowed"
        elif str(name) not in allowed_globals:
            found[name] = ALLOWABLE
    return found


def _dangerous(names: Collection[Name]) -> set[Name]:
    """Those on picklescan's list of what harms."""
    from io import BytesIO

    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    texts = [[text.encode("utf-8", "surrogatepass") for text in name] for name in names]
    imports = b"".join(
        b"".join(b"X" + len(text).to_bytes(4, "little") + text for text in pair) + b"\x930" for pair in texts
    )
    result = scan_pickle_bytes(BytesIO(b"\x80\x04" + imports + b"N."), "names")
    return {Name(found.module, found.name) for found in result.globals if found.safety is SafetyLevel.Dangerous}
