"""Linters and schemas of others, which judge what teams put into their CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

_STYLE = (
    "{extends: default, rules: {document-start: disable, line-length: {max: 120}, truthy: {check-keys: false}, "
    "braces: disable}}"
)
INSTALL = "pip install --group judges (pip 25.1 or newer, in the checkout)"


def schema(name: str, file: Path) -> list[str]:
    """What check-jsonschema says of a file under a schema that it brings (github-workflows, github-actions,
    gitlab-ci); nothing where it fits.
    """
    return _said([*_module("check_jsonschema"), "--builtin-schema", f"vendor.{name}", str(file)])


def pre_commit(*words: str, folder: Path | None = None, environment: dict[str, str] | None = None) -> list[str]:
    """What pre-commit says where it fails."""
    return _said([*_module("pre_commit"), *words], folder, environment)


def yamllint(file: Path) -> list[str]:
    """What yamllint says of the style of a file, as this repository writes YAML."""
    return _said([*_module("yamllint"), "--strict", "-d", _STYLE, str(file)])


def hadolint(file: Path) -> list[str]:
    """What hadolint says of a Containerfile."""
    return _said([_program("hadolint"), "--no-color", str(file)])


def zizmor(file: Path) -> list[str]:
    """What zizmor finds in an action or a workflow: injected expressions, loose permissions, unpinned actions."""
    return _said([_program("zizmor"), "--offline", "--no-progress", "--color=never", "--persona=pedantic", str(file)])


def for_file(name: str, file: Path) -> list[str]:
    """What the judge of a file of this name (a path in a repository) says; nothing where there is no judge."""
    if name.startswith(".github/workflows/"):
        return schema("github-workflows", file)
    if name.endswith(("action.yml", "action.yaml")):
        return schema("github-actions", file)
    if name.endswith(".gitlab-ci.yml"):
        return schema("gitlab-ci", file)
    if name == ".pre-commit-config.yaml":
        return pre_commit("validate-config", str(file))
    return []


def _module(name: str) -> list[str]:
    if find_spec(name) is None:
        pytest.skip(f"needs {name.replace('_', '-')}: {INSTALL}")
    return [sys.executable, "-m", name]


def _program(name: str) -> str:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"needs {name}: {INSTALL}")
    return found


def _said(command: Sequence[str], folder: Path | None = None, environment: dict[str, str] | None = None) -> list[str]:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    return [] if done.returncode == 0 else [f"{done.stdout}{done.stderr}".strip()]
