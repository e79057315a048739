"""What loading a model could do, told without loading it: every file is read once, hashed, and looked at for what
it would run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import islice

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.snapshot.evidence import Scan
from mlflow_compliance.snapshot.files import MLMODEL
from mlflow_compliance.store.models.archive_scan import (
    LARGEST,
    NUMPY,
    SKOPS_SUFFIX,
    ZIP,
    is_zip,
    numpy_problems,
    zip_problems,
)
from mlflow_compliance.store.models.mlmodel_scan import Description, describe
from mlflow_compliance.store.models.pickle_scan import SUFFIXES, UNKNOWN, looks_like_pickle, pickle_problems, shown
from mlflow_compliance.store.storage.safe_io import ChangedError, digest_of, opened, why_unread

_CODE = (".py", ".pyc", ".pyd", ".so", ".pyz", ".egg", ".whl")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")
"""gzip, bzip2, xz, 7z, LZ4, Zstandard."""
_MOST_TOLD = 20
"""Problems a file."""
_ALLOW_CODE = "set allow_code under [models] if you know that it is harmless"


def scan_model(folder: str, rules: ModelSettings) -> Scan:
    """What loading an MLflow model folder could do. Whatever cannot be read or is not known is a problem; nothing
    is raised.
    """
    looker = _Looker(rules)
    files = dict(sorted(looker.files_in(folder)))
    described = Description()
    for name in [name for name in files if os.path.basename(name) == MLMODEL]:
        data = looker.content(name, files.pop(name), _always)
        if data is not None:
            one = describe(data, name, looker.folders, rules)
            described.add(one)
            looker.tell(name, one.problems)
    both = sorted((described.pickles | described.skops) & looker.hashes.keys())  # only MLmodel files were read yet
    looker.problems += (f"{shown(name)}: is named as the model itself, {UNKNOWN}" for name in both)
    if MLMODEL not in looker.hashes:
        looker.problems.append(f"{MLMODEL}: is not there or cannot be read, so how the model is loaded is not known")
    code = [name for name in files if described.brings(name) or _suffix(name) in _CODE]
    if code and not rules.allow_code:
        looker.problems.append(
            f"{shown(code[0])}: brings code of its own ({len(code)} files), which runs on load: {_ALLOW_CODE}"
        )
    for name, path in files.items():
        looker.look(name, path, described)
    return Scan(tuple(looker.problems), looker.hashes)


def scan_file(path: str, rules: ModelSettings) -> Scan:
    """What loading one pickle or skops file could do; `hashes` has its name alone. Nothing is raised."""
    name = os.path.basename(path)
    looker = _Looker(rules)
    looker.look(name, path, Description() if _suffix(name) == SKOPS_SUFFIX else Description(pickles={name}))
    return Scan(tuple(looker.problems), looker.hashes)


class _Looker:
    """Collects the problems and the hashes of files that are looked at one by one."""

    def __init__(self, rules: ModelSettings) -> None:
        self.rules = rules
        self.problems: list[str] = []
        self.hashes: dict[str, str] = {}
        self.folders: set[str] = set()

    def files_in(self, folder: str) -> Iterator[tuple[str, str]]:
        """Relative and absolute path of every regular file at or below a folder; anything else than a folder is a
        problem.
        """
        rest = [""]
        while rest:
            below = rest.pop()
            try:
                with os.scandir(os.path.join(folder, below)) as found:
                    entries = list(found)
            except OSError as error:
                self.problems.append(
                    f"{shown(below or os.path.basename(os.path.abspath(folder)))}: cannot be read "
                    f"({why_unread(error)}), {UNKNOWN}"
                )
                continue
            for entry in entries:
                name = os.path.join(below, entry.name)
                if entry.is_symlink():
                    self.problems.append(
                        f"{shown(name)}: is a symbolic link, so what is loaded in its place is not known"
                    )
                elif entry.is_dir(follow_symlinks=False):
                    self.folders.add(name)
                    rest.append(name)
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry.path
                else:
                    self.problems.append(f"{shown(name)}: is neither a file nor a folder, {UNKNOWN}")

    def look(self, name: str, path: str, described: Description) -> None:
        """Hash a file, and say what loading it could do."""
        pickled = name in described.pickles or _suffix(name) in SUFFIXES
        skops = name in described.skops or _suffix(name) == SKOPS_SUFFIX

        def wanted(file: int) -> bool:
            head = os.pread(file, 8, 0)
            with os.fdopen(os.dup(file), "rb") as stream:
                return (
                    pickled
                    or skops
                    or head.startswith((NUMPY, *_COMPRESSED))
                    or looks_like_pickle(head)
                    or is_zip(stream)
                )

        data = self.content(name, path, wanted)
        if data is not None:
            self.tell(name, _problems_in(data, shown(name), self.rules, pickled=pickled, skops=skops))

    def content(self, name: str, path: str, wanted: Callable[[int], bool]) -> bytes | None:
        """The bytes of a file, hashed; None where they are not wanted, or are too many, or cannot be read."""
        try:
            with opened(path) as file:
                size = os.fstat(file).st_size
                if not wanted(file):
                    self.hashes[name] = digest_of(file, path)
                    return None
                if size > LARGEST:
                    self.hashes[name] = digest_of(file, path)
                    self.problems.append(f"{shown(name)}: is larger than {LARGEST >> 30} GiB, {UNKNOWN}")
                    return None
                with os.fdopen(os.dup(file), "rb") as stream:
                    stream.seek(0)
                    data = stream.read(size + 1)
                if len(data) != size:
                    raise ChangedError(path)
        except OSError as error:
            self.problems.append(f"{shown(name)}: cannot be read ({why_unread(error)}), {UNKNOWN}")
            return None
        self.hashes[name] = hashlib.sha256(data).hexdigest()
        return data

    def tell(self, name: str, problems: Iterable[str]) -> None:
        """Keep the first problems of a file."""
        told = list(islice(problems, _MOST_TOLD + 1))
        if len(told) > _MOST_TOLD:
            told[_MOST_TOLD] = f"{shown(name)}: more than these {_MOST_TOLD} things are wrong with it"
        self.problems += told


def _problems_in(data: bytes, where: str, rules: ModelSettings, *, pickled: bool, skops: bool) -> Iterator[str]:
    if data.startswith(_COMPRESSED):
        yield f"{where}: is compressed, {UNKNOWN}"
        return
    zipped = is_zip(BytesIO(data))
    if zipped:
        yield from zip_problems(data, where, rules, skops=skops)
        if data.startswith(ZIP):  # the first byte ends every attempt to unpickle it
            return
    elif skops:
        yield f"{where}: is no skops file, {UNKNOWN}"
    if pickled or looks_like_pickle(data):
        yield from pickle_problems(data, where, rules)
    elif data.startswith(NUMPY):
        yield from numpy_problems(BytesIO(data), where, rules)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _always(_: int) -> bool:
    return True
