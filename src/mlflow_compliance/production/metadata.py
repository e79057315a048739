"""model_metadata.json of a production run: composed from plain values, and held to its JSON Schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.files import MLMODEL, WRITTEN_BY_MLFLOW

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError


MODEL_FILES = "model/"
"""How the metadata of a run names the files of its model."""
SCHEMA_ID = "urn:mlflow-compliance:model-metadata:1"

_KINDS = {
    "object": "a table",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}
_LONGEST = 60

File = tuple[str, int, str]
"""(path, size in bytes, SHA-256 in hex)."""


def document(
    *,
    product: str,
    run_name: str,
    run_id: str,
    experiment_id: str,
    model_id: str,
    created_at: str,
    threshold: float,
    false_negative_cost: float,
    false_positive_cost: float,
    features: Sequence[str],
    hyperparameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    libraries: Mapping[str, str],
    sources: Mapping[str, File],
    files: Iterable[File],
    model_files: Iterable[File],
    facts: Iterable[Mapping[str, Any]],
    supersedes: Iterable[str],
    example: str,
    limitations: str,
) -> dict[str, Any]:
    """The document, in a fixed order. `sources` has a role for each file; `files` are the run's and `model_files` the
    model's, each relative.
    """
    listed = [*files, *((f"{MODEL_FILES}{path}", size, sha256) for path, size, sha256 in model_files)]
    return {
        "schema": SCHEMA_ID,
        "product": product,
        "run_name": run_name,
        "run_id": run_id,
        "experiment_id": experiment_id,
        "model_id": model_id,
        "created_at": created_at,
        "threshold": threshold,
        "costs": {"false_negative": false_negative_cost, "false_positive": false_positive_cost},
        "n_features": len(features),
        "features": list(features),
        "hyperparameters": dict(sorted(hyperparameters.items())),
        "metrics": dict(sorted(metrics.items())),
        "libraries": dict(sorted(libraries.items())),
        "sources": [{"role": role, **_file(*sources[role])} for role in sorted(sources)],
        "artifacts": [_file(*item) for item in sorted(listed)],
        "facts": sorted(map(dict, facts), key=lambda fact: str(fact.get("name"))),
        "supersedes": sorted(supersedes),
        "example": example,
        "limitations": limitations,
    }


def as_text(document: Mapping[str, Any]) -> str:
    """As it is written to the file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def problems_in(document: object) -> list[str]:
    """One sentence for each thing that the schema does not allow; empty where the document keeps it."""
    found = [sentence for error in _validator().iter_errors(document) for sentence in _sentences(error)]
    if not found and isinstance(document, dict):
        found = [f"{place} is not a finite number" for place in _not_finite(document, "")]
        if document["n_features"] != len(document["features"]):
            found.append(f"n_features is {document['n_features']} and features has {len(document['features'])} names")
    return sorted(set(found))


@lru_cache(maxsize=1)
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    text = (
        resources.files("mlflow_compliance").joinpath("schemas/model_metadata.schema.json").read_text(encoding="utf-8")
    )
    return Draft202012Validator(json.loads(text))


def _file(path: str, size: int, sha256: str) -> dict[str, Any]:
    return {"path": path, "sha256": sha256, "size": size}


def _sentences(error: ValidationError) -> Iterator[str]:
    """What the library found, in our words: its own messages repeat whole documents."""
    value: Any = error.instance
    wanted: Any = error.validator_value
    schema: Any = error.schema
    place = _place(error.absolute_path)
    match error.validator:
        case "required":
            yield from (f"{_below(place, name)} is missing" for name in wanted if name not in value)
        case "additionalProperties":
            yield from (f"{_below(place, name)} is not known" for name in value if name not in schema["properties"])
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            yield f"{place or 'the document'} is {_shown(value)}, not {' or '.join(_KINDS[kind] for kind in kinds)}"
        case "enum":
            yield f"{place} is {_shown(value)}, not one of {', '.join(wanted)}"
        case "const":
            yield f"{place} is {_shown(value)}, not {wanted}"
        case "minimum":
            yield f"{place} is {_shown(value)}, less than {wanted}"
        case "maximum":
            yield f"{place} is {_shown(value)}, more than {wanted}"
        case "minLength" | "minItems" | "minProperties":
            yield f"{place} is empty"
        case "uniqueItems":
            yield f"{place} names something twice"
        case _:
            # pattern and maxLength: the description says in words what they want.
            yield f"{place} is {_shown(value)}; expected: {schema['description'].rstrip('.')}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = without_secrets(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _place(path: Iterable[str | int]) -> str:
    place = ""
    for part in path:
        place = f"{place}[{part}]" if isinstance(part, int) else _below(place, part)
    return place


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _not_finite(value: object, place: str) -> Iterator[str]:
    """Python reads NaN and Infinity where JSON has none, and they pass every limit."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _not_finite(item, _below(place, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{number}]")


def recorded_files(document: Mapping[str, Any], run_id: str) -> dict[str, str]:
    """Path in the model folder -> SHA-256, as a run's metadata lists the files of its model. Raises KeyError, TypeError
    or AttributeError for a document of another make.

    In a copy of a run MLmodel is left out: it names the ids of the copy, and the metadata is that of the first run.
    """
    named = {str(item["path"]): str(item["sha256"]) for item in document.get("artifacts", [])}
    found = {path.removeprefix(MODEL_FILES): digest for path, digest in named.items() if path.startswith(MODEL_FILES)}
    if document.get("run_id", run_id) != run_id:
        found.pop(MLMODEL, None)
    return found


def differing_files(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """How a model's files (path -> SHA-256) differ from those on record, in a few words each; empty where they do not.

    The one answer for the rules and for programs that load the model.
    """
    differing = [f"{path} is missing" for path in sorted(recorded.keys() - found.keys())]
    differing += [
        f"{path} has changed" for path in sorted(recorded.keys() & found.keys()) if recorded[path] != found[path]
    ]
    return differing + [
        f"{path} is not on record" for path in sorted(found.keys() - recorded.keys() - WRITTEN_BY_MLFLOW)
    ]
