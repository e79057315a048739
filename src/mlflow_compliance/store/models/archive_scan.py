"""Whether a zip archive, a skops file or a NumPy file holds anything but known, harmless parts of models. Nothing
in it is loaded.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.store.models.allowlist import MADE, Name, objections
from mlflow_compliance.store.models.pickle_scan import (
    SUFFIXES,
    UNKNOWN,
    is_special,
    looks_like_pickle,
    pickle_problems,
    shown,
)

LARGEST = 1 << 30
"""A pickle or archive with more bytes than this, packed or unpacked, is not looked at: it is read into memory."""
SKOPS_SUFFIX = ".skops"

_LARGEST_SCHEMA = 1 << 28
_MOST_NODES = 1_000_000
_MOST_MEMBERS = 100_000
_COST = 1 << 20
_SCHEMA = "schema.json"
NUMPY = b"\x93NUMPY"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
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


def is_zip(stream: IO[bytes]) -> bool:
    """Whether somebody could take an open file for a zip archive."""
    return zipfile.is_zipfile(stream)


class _Room:
    """How many bytes may still be unpacked, from an archive and from all the archives in it."""

    def __init__(self) -> None:
        self.left = LARGEST

    def take(self, size: int) -> bool:
        self.left -= size + _COST
        return self.left >= 0


def zip_problems(
    data: bytes, where: str, rules: ModelSettings, *, skops: bool, room: _Room | None = None
) -> Iterator[str]:
    """What the members of an archive could do; `skops` where it will be loaded as such a file."""
    room = room or _Room()
    # A pickle of text may hold the few bytes that make the end of an archive: that alone is no archive.
    certain = skops or data.startswith(ZIP)
    try:
        if data.count(b"PK\x01\x02") > _MOST_MEMBERS:
            yield f"{where}: holds more than {_MOST_MEMBERS:,} members, {UNKNOWN}"
            return
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            names = {member.filename for member in members}
            certain = certain or bool(members)
            if len(names) != len(members):
                yield f"{where}: holds two members of one name, {UNKNOWN}"
            elif not room.take(sum(member.file_size for member in members)):
                yield f"{where}: unpacks to more than {LARGEST >> 30} GiB, {UNKNOWN}"
            elif skops or _SCHEMA in names:
                yield from _skops_problems(archive, where, rules)
                yield from _member_problems(archive, where, rules, room, skip=".bin")  # how skops names plain bytes
            else:
                yield from _member_problems(archive, where, rules, room)
    except Exception:  # noqa: BLE001 - zipfile lets errors of many modules through, and after each the rest is unknown
        if certain:
            yield f"{where}: is a damaged zip archive, {UNKNOWN}"


def numpy_problems(stream: IO[bytes], where: str, rules: ModelSettings) -> Iterator[str]:
    """What the pickle in a NumPy file of objects could do; other arrays are numbers."""
    import numpy as np

    reading: Any = np.lib.format
    try:
        version = reading.read_magic(stream)
        header = (reading.read_array_header_1_0 if version == (1, 0) else reading.read_array_header_2_0)(stream)
    except Exception:  # noqa: BLE001 - whatever stops the reader, the content stays unknown
        yield f"{where}: is a damaged NumPy file, {UNKNOWN}"
        return
    if header[2].hasobject:
        yield from pickle_problems(stream.read(), where, rules)


def trust_problems(types: Any, where: str, rules: ModelSettings) -> Iterator[str]:
    """What is not harmless among the types that an MLmodel has skops trust: whoever wrote the model wrote that list."""
    listed = types if isinstance(types, list) else [types]
    for text in listed:
        if not isinstance(text, str):
            yield f"{where}: skops_trusted_types is no list of names, {UNKNOWN}"
            return
    strange = {name for name in map(_name, listed) if name not in _LOADERS}
    for name, why in objections(strange, rules.allowed_globals).items():
        yield f"{where}: has skops trust {shown(name)}, which {why}"


def _member_problems(
    archive: zipfile.ZipFile, where: str, rules: ModelSettings, room: _Room, skip: str = ""
) -> Iterator[str]:
    for member in archive.infolist():
        inner = f"{where}: {shown(member.filename)}"
        with archive.open(member) as stream:
            head = stream.read(8)
        suffix = os.path.splitext(member.filename)[1].lower()
        if head.startswith(ZIP):
            yield from zip_problems(archive.read(member), inner, rules, skops=suffix == SKOPS_SUFFIX, room=room)
        elif head.startswith(NUMPY):
            with archive.open(member) as stream:
                yield from numpy_problems(stream, inner, rules)
        elif looks_like_pickle(head) or (suffix in SUFFIXES and suffix != skip):
            yield from pickle_problems(archive.read(member), inner, rules)


def _skops_problems(archive: zipfile.ZipFile, where: str, rules: ModelSettings) -> Iterator[str]:
    from skops.io import get_untrusted_types

    nodes = _Nodes()
    try:
        schema = archive.read(_SCHEMA)
        if len(schema) > _LARGEST_SCHEMA or sum(map(schema.count, (b"{", b"[", b","))) > _MOST_NODES:
            yield f"{where}: is too large for a skops file, {UNKNOWN}"
            return
        seen = json.dumps(json.loads(schema, object_hook=nodes))
        # Only the names of the other members matter to skops' own look at it: their content would be read once for each
        # mention.
        with zipfile.ZipFile(hollow := BytesIO(), "w") as copy:
            for member in archive.namelist():
                copy.writestr(member, seen if member == _SCHEMA else b"")
        untrusted = get_untrusted_types(data=hollow.getvalue())
    except Exception:  # noqa: BLE001 - skops checks little of what it reads, and after any error the rest is unknown
        yield f"{where}: cannot be read as a skops file, {UNKNOWN}"
        return
    found = {_name(text) for text in untrusted}
    strange = {name for name in found if name not in _LOADERS or nodes.loaders.get(name, {""}) - _LOADERS[name]}
    for name, why in objections(strange, rules.allowed_globals).items():
        yield f"{where}: {shown(name)} {why}"
    if nodes.special:
        yield f"{where}: gives an object attributes that have a meaning to Python, {UNKNOWN}"


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
