"""What an MLmodel file says lies beside it, and whether that is so. Nothing is loaded, nothing outside the folder is looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import yaml

from mlflow_compliance.artifacts import ArtifactFile, ModelFolder
from mlflow_compliance.entities import EntityRef

MLMODEL = "MLmodel"
LARGEST = 1 << 20
_DEEPEST = 200
_FILE_KEYS = ("data", "model_data", "model_path", "pickled_model", "python_model", "model_file", "code")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TOP_KEY = re.compile(r"^(?=[A-Za-z_]\w*:(?:\s|$))", re.MULTILINE)
_SCALAR = re.compile(r"(\w+): (?:'([^'\n]*)'|([A-Za-z0-9_/.](?:[\w/.+@=:-]*[\w/.+@=-])?))\s*")


def inspect(folder: str, owner: EntityRef | None, files: Mapping[str, ArtifactFile], raw: bytes | None = None) -> ModelFolder:
    """The model folder as its MLmodel describes it; `files` is what the walk found, `raw` the file's bytes where the walk read it."""

    def read() -> dict[Any, Any]:
        return read_mlmodel(os.path.join(folder, MLMODEL)) if raw is None else parse_mlmodel(raw)

    return judge(folder, owner, read, lambda name: _size(folder, name, files))


def judge(folder: str, owner: EntityRef | None, read: Callable[[], dict[Any, Any]], size_of: Callable[[str], int | None]) -> ModelFolder:
    """The model folder as the MLmodel that `read` gives describes it; `size_of` says how many bytes are at a name in it, None where nothing is."""
    try:
        document = read()
        flavors = document.get("flavors")
        if not isinstance(flavors, dict):
            return ModelFolder(folder, owner, (), (), "", "MLmodel names no flavors")
    except OSError as error:
        return ModelFolder(folder, owner, (), (), "", f"MLmodel cannot be read: {error.strerror}")
    except ValueError as error:
        return ModelFolder(folder, owner, (), (), "", str(error))
    missing, empty = [], []
    for name in sorted(set(named_files(flavors, document))):
        size = size_of(name)
        if size is None:
            missing.append(name)
        elif size == 0:
            empty.append(name)
    path = document.get("artifact_path")
    return ModelFolder(folder, owner, tuple(missing), tuple(empty), path if isinstance(path, str) else "", "")


def named_files(flavors: dict[Any, Any], document: dict[Any, Any]) -> Iterator[str]:
    for flavor in flavors.values():
        if not isinstance(flavor, dict):
            continue
        env, artifacts = flavor.get("env"), flavor.get("artifacts")
        values = [flavor[key] for key in _FILE_KEYS if key in flavor]
        values += list(env.values()) if isinstance(env, dict) else [env]
        if isinstance(artifacts, dict):
            values += [item.get("path") for item in artifacts.values() if isinstance(item, dict)]
        yield from (value for value in values if isinstance(value, str) and value)
    example = document.get("saved_input_example_info")
    if isinstance(example, dict) and isinstance(example.get("artifact_path"), str):
        yield example["artifact_path"]


def _size(folder: str, name: str, files: Mapping[str, ArtifactFile]) -> int | None:
    """Bytes at a name in the folder, 1 for a folder that holds something; None where nothing is, or where it leads outside."""
    found = files.get(f"{folder}/{name}")
    if found is not None:
        return found.size
    for spelling in (name, name.replace("\\", "/")):  # MLflow on Windows has written backslashes
        path = os.path.normpath(os.path.join(folder, spelling))
        if not path.startswith(folder + os.sep) or "\0" in path:
            continue
        if path in files:
            return files[path].size
        if os.path.isdir(path) and os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
            return int(any(found for _, _, found in os.walk(path)))
    return None


def read_mlmodel(path: str) -> dict[Any, Any]:
    """An MLmodel file as a mapping. Raises ValueError with a reason that quotes nothing of it, OSError where it cannot be read."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if size > LARGEST:
            raise ValueError("MLmodel is larger than 1 MiB")
        raw = os.read(file, size)
    finally:
        os.close(file)
    return parse_mlmodel(raw)


def parse_mlmodel(raw: bytes) -> dict[Any, Any]:
    """What an MLmodel file holds, as a mapping. Raises ValueError with a reason that quotes nothing of it."""
    if len(raw) > LARGEST:
        raise ValueError("MLmodel is larger than 1 MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("MLmodel is not UTF-8 text") from None
    # Thousands of models of one kind differ in ids and times only: read those by pattern, and the rest once for all of them.
    blocks = _TOP_KEY.split(text)
    if blocks[0].strip():
        blocks = [text]
    document: dict[Any, Any] = {}
    for block in blocks:
        scalar = _SCALAR.fullmatch(block)
        if scalar:
            document[scalar[1]] = scalar[3] if scalar[2] is None else scalar[2]
        elif block.strip():
            document.update(_parse(block))
    if not document:
        raise ValueError("MLmodel is empty")
    return document


@lru_cache(maxsize=1024)
def _parse(text: str) -> dict[Any, Any]:
    try:
        refuse_depth(text)
        found = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        # The text itself stays out of the message: a link may have led to any file.
        raise ValueError("MLmodel is not YAML") from None
    if isinstance(found, dict):
        return found
    raise ValueError("MLmodel is not a mapping")


def refuse_depth(text: str) -> None:
    """The C loader recurses on the C stack: a file of brackets would end the process. Its event stream does not recurse."""
    if text.count("[") + text.count("{") < _DEEPEST and max(map(len, text.split("\n"))) < _DEEPEST:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("too deep")
