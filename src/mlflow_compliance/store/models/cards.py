"""What a model folder says about itself: signature, input example, requirements, flavors. Nothing is loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from mlflow_compliance.evidence import ModelCard
from mlflow_compliance.store.artifacts.mlmodel import MLMODEL, read_mlmodel
from mlflow_compliance.store.disk.content import opened

REQUIREMENTS = "requirements.txt"

_LARGEST = 1 << 20
_COMMENT = re.compile(r"(^|\s)#.*$")
_PIP_OPTION = re.compile(r"\s--\w.*$")  # '--hash=sha256:...' behind a requirement
_INSTALLS = re.compile(r"(-e|--editable|-r|--requirement)\b")  # every other option only says how
_ONE_CONTENT = re.compile(r"#(.*&)?sha(256|384|512)=[0-9a-f]{64,}|@[0-9a-f]{40}(#|$)")


def read_card(folder: str) -> ModelCard:
    """The card of a model folder. What its files do not say, or say so that it cannot be read, is empty."""
    try:
        document = read_mlmodel(os.path.join(folder, MLMODEL))
    except (OSError, ValueError):
        document = {}
    inputs = _inputs(document.get("signature"))
    requirements = tuple(_requirements(folder))
    flavors = document.get("flavors")
    return ModelCard(
        inputs=tuple(str(column["name"]) for column in inputs if "name" in column),
        signed=bool(inputs),
        example=_example(folder, document.get("saved_input_example_info")),
        requirements=requirements,
        unpinned=tuple(line for line in requirements if not pinned(line)),
        flavors=tuple(sorted(map(str, flavors))) if isinstance(flavors, dict) else (),
    )


def pinned(line: str) -> bool:
    """Whether a requirement says one version: one '==' without a wildcard, or a URL with a hash of what lies there."""
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return bool(_ONE_CONTENT.search(line))
    if requirement.url:
        return bool(_ONE_CONTENT.search(requirement.url))
    exact = [item for item in requirement.specifier if item.operator in ("==", "===")]
    return len(exact) == 1 and not exact[0].version.endswith("*")


def _inputs(signature: Any) -> list[dict[str, Any]]:
    """MLflow writes the columns as JSON text inside the YAML."""
    text = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        columns = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return []
    return [column for column in columns if isinstance(column, dict)] if isinstance(columns, list) else []


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
            return os.read(file, _LARGEST).decode("utf-8-sig").replace("\\\n", " ").splitlines()
    except (OSError, ValueError):
        return []
