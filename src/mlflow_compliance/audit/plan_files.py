"""Files of saved plans: written whole or not at all, and read only as they were written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mlflow_compliance.errors import ChangeError, PlanError
from mlflow_compliance.repair.plan_document import FAMILY, SCHEMA_ID, SavedPlan, as_text, is_whole
from mlflow_compliance.repair.purge_document import PURGE_ID, PurgePlan
from mlflow_compliance.settings.errors import shown_path
from mlflow_compliance.store.storage.atomic_write import create, explained, staged, write_bytes
from mlflow_compliance.store.storage.parsing import read_at_most
from mlflow_compliance.store.storage.safe_io import opened

_LARGEST = 1 << 28
"""Bytes: a plan of 200,000 changes is smaller."""
_Kind = TypeVar("_Kind", bound=BaseModel)


def read_plan(path: Path) -> SavedPlan:
    """The plan of a repair in a file. Raises PlanError with one sentence for anything else."""
    return _read(path, SavedPlan, SCHEMA_ID, "--fix-dry-run")


def read_purge(path: Path) -> PurgePlan:
    """The plan of a purge in a file. Raises PlanError with one sentence for anything else."""
    return _read(path, PurgePlan, PURGE_ID, "--fix-purge --fix-dry-run")


def _read(path: Path, kind: type[_Kind], wanted: str, maker: str) -> _Kind:
    with _explained(path, maker):
        document = document_in(path)
        name = shown_path(path)
        schema = document.get("schema")
        way = f"make a new plan with {maker}"
        if not isinstance(schema, str) or not schema.startswith(FAMILY):
            raise PlanError(f"{name} is no plan: make one with {maker} --fix-plan={name}")
        if schema != wanted and PURGE_ID in (schema, wanted):
            other = "a purge" if schema == PURGE_ID else "a repair"
            raise PlanError(f"{name} is the plan of {other}: {way}")
        if schema != wanted:
            raise PlanError(f"{name} is a plan of another version ({schema}, here {wanted}): {way}")
        if not is_whole(document):
            raise PlanError(f"{name} was changed after it was written (its hash does not fit): {way}")
        try:
            return kind.model_validate(document)
        except ValidationError as error:
            where = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
            raise PlanError(f"{name} is no plan that this version can read (at {where or 'its top'}): {way}") from None


def refuse_to_replace(path: Path) -> None:
    """Raise PlanError where a plan cannot be written to a file: something else lies there, or its folder does not."""
    name = shown_path(path)
    if not os.path.lexists(path):
        if not path.parent.is_dir():
            raise PlanError(f"there is no folder {shown_path(path.parent)} to write the plan to: make it first")
        return
    try:
        is_plan = str(document_in(path).get("schema", "")).startswith(FAMILY)
    except (OSError, ValueError, PlanError):
        is_plan = False
    if not is_plan:
        raise PlanError(
            f"{name} is there and is no plan: nothing is written over it; name another file, or move it away"
        )


def write_plan(path: Path, document: Mapping[str, Any]) -> None:
    """Write a plan, in the place of an older one where one lies there. Raises PlanError."""
    refuse_to_replace(path)
    try:
        write_document(path, document)
    except ChangeError as error:
        raise PlanError(str(error)) from error


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file as a whole, in the place of what lies there. Raises ChangeError."""
    target = os.path.realpath(path)
    with explained(str(path), "could not be written"), staged(target) as temporary:
        with create(temporary) as file:
            write_bytes(file, as_text(document).encode())
            os.fsync(file)
        os.replace(temporary, target)


def document_in(path: Path) -> dict[str, Any]:
    """The table in a JSON file, empty where it holds none. Raises OSError, and ValueError for a file that is too large
    or holds a key twice.
    """
    with opened(os.path.realpath(path)) as file:
        content = read_at_most(file, _LARGEST)
    found: Any = {}
    with suppress(UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        found = json.loads(content.decode(), object_pairs_hook=_once)
    return found if isinstance(found, dict) else {}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table whose keys stand there once each: of two values a reader may see one, and a program take the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("holds a key twice")
    return found


@contextmanager
def _explained(path: Path, maker: str) -> Iterator[None]:
    name = shown_path(path)
    try:
        yield
    except FileNotFoundError:
        raise PlanError(f"there is no plan {name}: make one with {maker} --fix-plan={name}") from None
    except OSError as error:
        raise PlanError(f"the plan {name} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise PlanError(f"the plan {name} {error}: make a new plan with {maker}") from None
