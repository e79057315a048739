"""What an MLmodel file says lies beside it, and whether that is so. Nothing is loaded, nothing outside the folder
is looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from mlflow_compliance.snapshot.evidence import ModelCard
from mlflow_compliance.snapshot.files import MLMODEL, REQUIREMENTS, ArtifactFile, ModelFolder
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.store.storage.parsing import parse_json, parse_yaml
from mlflow_compliance.store.storage.safe_io import opened

LARGEST = 1 << 20
_FILE_KEYS = ("data", "model_data", "model_path", "pickled_model", "python_model", "model_file", "code")

_OWN_LINE = re.compile(
    rb"^(?:run_id|model_id|model_uuid|utc_time_created|model_size_bytes): "
    rb"(?:'[^'\n]*'|[A-Za-z0-9](?:[\w.+:-]*\w)?)\n(?=[A-Za-z_]|\Z)",
    re.MULTILINE,
)
"""A line that tells a model from others of its kind, and is all of its entry."""
LARGEST_KEPT = 1 << 16
_LONGEST_REQUIREMENT = 4096


class Description(NamedTuple):
    """What an MLmodel file says of its folder: the files that it names, and `error` where it cannot be read."""

    names: tuple[str, ...] = ()
    artifact_path: str = ""
    error: str = ""


def inspect(
    folder: str, owner: EntityRef | None, files: Mapping[str, ArtifactFile], raw: bytes | None = None
) -> ModelFolder:
    """The model folder as its MLmodel describes it; `files` is what the walk found, `raw` the file's bytes where
    the walk read it.
    """
    return judge(
        folder,
        owner,
        read_description(folder) if raw is None else describe(raw),
        lambda name: _size(folder, name, files),
    )


def judge(
    folder: str, owner: EntityRef | None, described: Description, size_of: Callable[[str], int | None]
) -> ModelFolder:
    """The model folder as its MLmodel describes it; `size_of` says how many bytes are at a name in it, None where
    nothing is.
    """
    missing, empty = [], []
    for name in described.names:
        size = size_of(name)
        if size is None:
            missing.append(name)
        elif size == 0:
            empty.append(name)
    return ModelFolder(folder, owner, tuple(missing), tuple(empty), described.artifact_path, described.error)


def describe(raw: bytes) -> Description:
    """What the bytes of an MLmodel file say."""
    # Thousands of models of one kind differ in ids and times only: the rest is understood once for all of them.
    rest = _OWN_LINE.sub(b"", raw) or raw
    return _described(rest) if len(rest) < LARGEST_KEPT else _described.__wrapped__(rest)


@lru_cache(maxsize=1024)
def _described(raw: bytes) -> Description:
    try:
        document = parse_mlmodel(raw)
    except ValueError as error:
        return Description(error=str(error))
    flavors, path = document.get("flavors"), document.get("artifact_path")
    if not isinstance(flavors, dict):
        return Description(error="MLmodel names no flavors")
    return Description(tuple(sorted(set(named_files(flavors, document)))), path if isinstance(path, str) else "")


def read_description(folder: str) -> Description:
    """What the MLmodel file in a folder says, or why it cannot be read."""
    try:
        return describe(_raw(os.path.join(folder, MLMODEL)))
    except OSError as error:
        return Description(error=f"MLmodel cannot be read: {error.strerror}")
    except ValueError as error:
        return Description(error=str(error))


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
    """Bytes at a name in the folder, 1 for a folder that holds something; None where nothing is, or where it leads
    outside.
    """
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
    """An MLmodel file as a mapping. Raises ValueError with a reason that quotes nothing of it, OSError where it
    cannot be read.
    """
    return parse_mlmodel(_raw(path))


def _raw(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if size > LARGEST:
            raise ValueError("MLmodel is larger than 1 MiB")
        return os.read(file, size)
    finally:
        os.close(file)


def parse_mlmodel(raw: bytes) -> dict[Any, Any]:
    """What an MLmodel file holds, as a mapping. Raises ValueError with a reason that quotes nothing of it."""
    if len(raw) > LARGEST:
        raise ValueError("MLmodel is larger than 1 MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("MLmodel is not UTF-8 text") from None
    document = _parse(text) if text.strip() else {}
    if not document:
        raise ValueError("MLmodel is empty")
    return document


def _parse(text: str) -> dict[Any, Any]:
    try:
        found = parse_yaml(text)
    except ValueError as error:
        # The text itself stays out of the message: a link may have led to any file.
        raise ValueError(f"MLmodel {error}") from None
    if isinstance(found, dict):
        return found
    raise ValueError("MLmodel is not a mapping")


_COMMENT = re.compile(r"(^|\s)#.*$")
_PIP_OPTION = re.compile(r"\s--\w.*$")  # '--hash=sha256:...' behind a requirement
_INSTALLS = re.compile(r"(-e|--editable|-r|--requirement)\b")  # every other option only says how
_ONE_CONTENT = re.compile(r"#(.*&)?sha(256|384|512)=[0-9a-f]{64,}|@[0-9a-f]{40}(#|$)")


def read_card(folder: str) -> ModelCard:
    """The card of a model folder. What its files do not say, or say so that it cannot be read, is empty."""
    problem = ""
    try:
        document = read_mlmodel(os.path.join(folder, MLMODEL))
    except OSError:
        document = {}
    except ValueError as error:
        document, problem = {}, str(error)
    signature = document.get("signature")
    (inputs, wrong_inputs), (outputs, wrong_outputs) = (_columns(signature, of) for of in ("inputs", "outputs"))
    requirements = tuple(_requirements(folder))
    flavors = document.get("flavors")
    return ModelCard(
        inputs=tuple(str(column["name"]) for column in inputs if isinstance(column.get("name"), (str, int))),
        signed=bool(inputs) and bool(outputs),
        problem=problem or wrong_inputs or wrong_outputs,
        example=_example(folder, document.get("saved_input_example_info")),
        requirements=requirements,
        unpinned=tuple(line for line in requirements if not pinned(line)),
        flavors=tuple(sorted(map(str, flavors))) if isinstance(flavors, dict) else (),
    )


def pinned(line: str) -> bool:
    """Whether a requirement says one version: one '==' without a wildcard, or a URL with a hash of what lies there."""
    try:
        requirement = Requirement(line) if len(line) <= _LONGEST_REQUIREMENT else None
    except (ValueError, RecursionError):  # no requirement, or one of a marker within markers
        requirement = None
    if requirement is None:
        return bool(_ONE_CONTENT.search(line))
    if requirement.url:
        return bool(_ONE_CONTENT.search(requirement.url))
    exact = [item for item in requirement.specifier if item.operator in ("==", "===")]
    return len(exact) == 1 and not exact[0].version.endswith("*")


def _columns(signature: Any, of: str) -> tuple[list[dict[str, Any]], str]:
    """The columns, which MLflow writes as JSON text inside the YAML, and what is wrong with that text."""
    text = signature.get(of) if isinstance(signature, dict) else None
    if not isinstance(text, str):
        return [], ""
    try:
        columns = parse_json(text)
    except ValueError as error:
        return [], f"the {of} of its signature in MLmodel cannot be read: the text {error}"
    return ([column for column in columns if isinstance(column, dict)] if isinstance(columns, list) else []), ""


def _example(folder: str, info: Any) -> str:
    name = info.get("artifact_path") if isinstance(info, dict) else None
    if not isinstance(name, str):
        return ""
    path = os.path.normpath(os.path.join(folder, name))
    inside = path.startswith(os.path.normpath(folder) + os.sep)
    return name if inside and "\0" not in path and os.path.isfile(path) else ""


def _requirements(folder: str) -> Iterator[str]:
    for line in _lines(os.path.join(folder, REQUIREMENTS)):
        text = _PIP_OPTION.sub("", _COMMENT.sub("", line)).strip()
        if text and (not text.startswith("-") or _INSTALLS.match(text)):
            yield text


def _lines(path: str) -> list[str]:
    try:
        with opened(path) as file:
            return os.read(file, LARGEST).decode("utf-8-sig").replace("\\\n", " ").splitlines()
    except (OSError, ValueError):
        return []
