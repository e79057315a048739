"""Whether a skops file holds anything but known, harmless parts of models. Nothing in it is loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.store.models.allowlist import MADE, Name
from mlflow_compliance.store.models.pickle_scan import is_special
from mlflow_compliance.store.models.problems import UNKNOWN, Problem, named_problems

SKOPS_SUFFIX = ".skops"
SCHEMA = "schema.json"
"""The member of a skops file that says what the others are."""

_LARGEST_SCHEMA = 1 << 28
_MOST_NODES = 1_000_000
_LOADERS = {
    Name("collections", "OrderedDict"): {"DictNode", "TypeNode"},
    Name("numpy", "dtype"): {"DTypeNode"},
    Name("sklearn.tree._tree", "Tree"): {"TreeNode"},
    Name("sklearn.utils._bunch", "Bunch"): {"DictNode"},
    **{name: {"ObjectNode"} for name in MADE if name.name != "Bunch"},
}
"""What models are made of beside what skops trusts, and how it may be made: empty, filled, or from numbers, but not
called.
"""


def trust_problems(types: Any, where: str, rules: ModelSettings) -> Iterator[Problem]:
    """What is not harmless among the types that an MLmodel has skops trust: whoever wrote the model wrote that list."""
    listed = types if isinstance(types, list) else [types]
    for text in listed:
        if not isinstance(text, str):
            yield Problem(f"{where}: skops_trusted_types is no list of names, {UNKNOWN}")
            return
    strange = {name for name in map(_name, listed) if name not in _LOADERS}
    yield from named_problems(strange, f"{where}: has skops trust ", rules.allowed_globals, ", which ")


def skops_problems(archive: zipfile.ZipFile, where: str, rules: ModelSettings) -> Iterator[Problem]:
    from skops.io import get_untrusted_types

    nodes = _Nodes()
    try:
        schema = archive.read(SCHEMA)
        if len(schema) > _LARGEST_SCHEMA or sum(map(schema.count, (b"{", b"[", b","))) > _MOST_NODES:
            yield Problem(f"{where}: is too large for a skops file, {UNKNOWN}")
            return
        seen = json.dumps(json.loads(schema, object_hook=nodes))
        # Only the names of the other members matter to skops' own look at it: their content would be read once for each
        # mention.
        with zipfile.ZipFile(hollow := BytesIO(), "w") as copy:
            for member in archive.namelist():
                copy.writestr(member, seen if member == SCHEMA else b"")
        untrusted = get_untrusted_types(data=hollow.getvalue())
    except Exception:  # noqa: BLE001 - skops checks little of what it reads, and after any error the rest is unknown
        yield Problem(f"{where}: cannot be read as a skops file, {UNKNOWN}")
        return
    found = {_name(text) for text in untrusted}
    strange = {name for name in found if name not in _LOADERS or nodes.loaders.get(name, {""}) - _LOADERS[name]}
    yield from named_problems(strange, f"{where}: ", rules.allowed_globals)
    if nodes.special:
        yield Problem(f"{where}: gives an object attributes that have a meaning to Python, {UNKNOWN}")


class _Nodes:
    """Looks at every node of a schema.json while it is parsed."""

    def __init__(self) -> None:
        self.loaders: dict[Name, set[str]] = {}
        self.special = False

    def __call__(self, node: dict[str, Any]) -> dict[str, Any]:
        if isinstance(node.get("__loader__"), str):
            self.loaders.setdefault(_name(f"{node.get('__module__')}.{node.get('__class__')}"), set()).add(
                node["__loader__"]
            )
        else:
            self.special |= any(is_special(key) and key != "__id__" for key in node)
        # Without ids every mention of a node is looked at by itself. With them, nodes that share nodes take exponential
        # time.
        return {key: value for key, value in node.items() if key != "__id__" or isinstance(value, dict)}


def _name(text: str) -> Name:
    module, _, name = text.rpartition(".")
    return Name(module, name)
