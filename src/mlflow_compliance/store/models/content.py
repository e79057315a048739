"""What a file is, by its content and not by its name, and what loading it could do: pickles, archives, arrays,
compressed or not, one within another.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any, NamedTuple

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.store.models.budget import LARGEST, Budget, UnreadableError
from mlflow_compliance.store.models.pickle_scan import is_pickle, pickle_problems
from mlflow_compliance.store.models.pickle_walk import attempt
from mlflow_compliance.store.models.problems import UNKNOWN, Problem, shown
from mlflow_compliance.store.models.skops_scan import SCHEMA, SKOPS_SUFFIX, skops_problems
from mlflow_compliance.store.models.unpack import unpacked

HEAD = 4096
"""How much of a file is enough to see that it is plain data, which most files are."""
NUMPY = b"\x93NUMPY"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle")
"""What ends like this is a pickle, and told where it cannot be read as one."""

_MOST_MEMBERS = 100_000
_DEEPEST = 16
_BLOCK = 512


class Use(NamedTuple):
    """How a file will be read: by pickle itself, as a skops file; neither where nobody knows."""

    pickled: bool = False
    skops: bool = False
    depth: int = 0

    def inner(self) -> Use:
        """How the content of what is packed will be read."""
        return Use(self.pickled, depth=self.depth + 1)


UNDECLARED = Use()


def use_of(name: str, use: Use = UNDECLARED) -> Use:
    """How a file of this name will be read where its content does not say more."""
    return use._replace(skops=use.skops or _suffix(name) == SKOPS_SUFFIX)


def is_plain(head: bytes, *, whole: bool) -> bool:
    """Whether the first bytes of a file, or the whole of it, tell that nothing in it could be run."""
    budget = Budget()
    packed = unpacked(head, budget, HEAD)
    if packed is not None:
        if packed.certain and whole and packed.problem:
            return False
        if len(packed.data) or packed.certain:
            return bool(packed.data) and is_plain(packed.data, whole=whole and len(packed.data) < HEAD)
    if head.startswith((NUMPY, *ZIP)) or _is_tar(head):
        return False
    if head.startswith(b"\x80") and head[1:2] <= b"\x05" and len(head) > 1:
        return False
    try:
        found = attempt(head, budget)
    except UnreadableError:
        return False
    return found is False or (found is None and whole)


def content_problems(
    data: bytes, where: str, rules: ModelSettings, budget: Budget, use: Use = UNDECLARED
) -> Iterator[Problem]:
    """What loading these bytes could do that is not known to be harmless."""
    if use.depth > _DEEPEST:
        yield Problem(f"{where}: is packed more than {_DEEPEST} times, {UNKNOWN}")
        return
    packed = unpacked(data, budget)
    if packed is not None and (packed.certain or is_pickle(packed.data, budget)):
        if packed.problem:
            yield Problem(f"{where}: {packed.problem}")
        if packed.data:
            yield from content_problems(packed.data, f"{where}: unpacked", rules, budget, use.inner())
        return
    zipped = is_zip(BytesIO(data))
    if zipped:
        yield from _zip_problems(data, where, rules, budget, use)
        if data.startswith(ZIP):  # the first byte ends every attempt to unpickle it
            return
    elif use.skops:
        yield Problem(f"{where}: is no skops file, {UNKNOWN}")
    if _is_tar(data):
        yield from _tar_problems(data, where, rules, budget, use)
    if data.startswith(NUMPY) and not use.pickled:
        yield from _numpy_problems(BytesIO(data), where, rules, budget)
    elif use.pickled or where.lower().endswith(PICKLES) or is_pickle(data, budget):
        yield from pickle_problems(data, where, rules, budget, plain=use.pickled)


def is_zip(stream: IO[bytes]) -> bool:
    """Whether somebody could take an open file for a zip archive."""
    return zipfile.is_zipfile(stream)


def _zip_problems(data: bytes, where: str, rules: ModelSettings, budget: Budget, use: Use) -> Iterator[Problem]:
    # A pickle of text may hold the few bytes that make the end of an archive: that alone is no archive.
    certain = use.skops or data.startswith(ZIP)
    try:
        if data.count(b"PK\x01\x02") > _MOST_MEMBERS:
            yield Problem(f"{where}: holds more than {_MOST_MEMBERS:,} members, {UNKNOWN}")
            return
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            names = {member.filename for member in members}
            certain = certain or bool(members)
            if len(names) != len(members):
                yield Problem(f"{where}: holds two members of one name, {UNKNOWN}")
                return
            if not all(budget.unpack(member.file_size) for member in members):
                yield Problem(f"{where}: unpacks to more than {LARGEST >> 30} GiB, {UNKNOWN}")
                return
            if use.skops or SCHEMA in names:
                yield from skops_problems(archive, where, rules)
            for member in members:
                inner = Use(skops=_suffix(member.filename) == SKOPS_SUFFIX, depth=use.depth + 1)
                content = archive.read(member)
                if content or not member.is_dir():
                    yield from content_problems(content, f"{where}: {shown(member.filename)}", rules, budget, inner)
    except Exception:  # noqa: BLE001 - zipfile lets errors of many modules through, and after each the rest is unknown
        if certain:
            yield Problem(f"{where}: is a damaged zip archive, {UNKNOWN}")


def _is_tar(data: bytes) -> bool:
    """Whether the first block is that of a tar archive: its own sum stands in it."""
    if len(data) < _BLOCK:
        return False
    try:
        told = int(data[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return told == sum(data[:148]) + 8 * ord(" ") + sum(data[156:_BLOCK])


def _tar_problems(data: bytes, where: str, rules: ModelSettings, budget: Budget, use: Use) -> Iterator[Problem]:
    try:
        with tarfile.open(fileobj=BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= _MOST_MEMBERS:
                    yield Problem(f"{where}: holds more than {_MOST_MEMBERS:,} members, {UNKNOWN}")
                    return
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                if not budget.unpack(member.size):
                    yield Problem(f"{where}: unpacks to more than {LARGEST >> 30} GiB, {UNKNOWN}")
                    return
                inner = use_of(member.name, Use(depth=use.depth + 1))
                yield from content_problems(content.read(), f"{where}: {shown(member.name)}", rules, budget, inner)
    except Exception:  # noqa: BLE001 - tarfile lets errors of many modules through, and after each the rest is unknown
        yield Problem(f"{where}: is a damaged tar archive, {UNKNOWN}")


def _numpy_problems(stream: IO[bytes], where: str, rules: ModelSettings, budget: Budget) -> Iterator[Problem]:
    """What the pickle in a NumPy file of objects could do; other arrays are numbers."""
    import numpy as np

    reading: Any = np.lib.format
    try:
        version = reading.read_magic(stream)
        header = (reading.read_array_header_1_0 if version == (1, 0) else reading.read_array_header_2_0)(stream)
    except Exception:  # noqa: BLE001 - whatever stops the reader, the content stays unknown
        yield Problem(f"{where}: is a damaged NumPy file, {UNKNOWN}")
        return
    if header[2].hasobject:
        yield from pickle_problems(stream.read(), where, rules, budget)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
