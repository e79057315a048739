from __future__ import annotations

import json
import math
from copy import deepcopy
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mlflow_compliance.production.metadata import SCHEMA_ID, as_text, document, problems_in

SHA = "0f" * 32
VALUES = [
    {"value": "0.48", "run_id": "r1", "experiment_id": "4", "place": "param optimal_threshold of run r1"},
    {"value": 0.338, "run_id": "", "experiment_id": "", "place": "tag threshold of version 2 of credit"},
]


def composed(**other: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "product": "credit",
        "run_name": "production_v2",
        "run_id": "abc",
        "experiment_id": "4",
        "model_id": "m-1",
        "created_at": "2026-01-03T16:30:44+00:00",
        "threshold": 0.48,
        "false_negative_cost": 10.0,
        "false_positive_cost": 1.0,
        "features": ("b", "a"),
        "hyperparameters": {"objective": None, "max_depth": 10, "deterministic": True, "boosting_type": "gbdt"},
        "metrics": {"roc_auc": 0.78, "accuracy": 0.75},
        "libraries": {"python": "3.12.1", "lightgbm": "4.6.0"},
        "sources": {"predictions": ("results/p.parquet", 7, SHA), "model": ("models/m.pkl", 9, SHA)},
        "files": [("model.pkl", 9, SHA), ("confusion_matrix.png", 5, SHA)],
        "model_files": [("MLmodel", 3, SHA), ("model.skops", 4, SHA)],
        "facts": [
            {"name": "threshold", "value": "0.48", "decided_by": "settings", "values": VALUES},
            {"name": "n_features", "value": 2, "decided_by": "model", "values": []},
        ],
        "supersedes": ["r2", "r1"],
        "example": "recorded",
        "limitations": "Größe",
    }
    return document(**{**given, **other})


def test_what_is_composed_keeps_the_schema() -> None:
    assert problems_in(composed()) == []
    assert composed()["schema"] == SCHEMA_ID


def test_the_schema_is_one_and_goes_by_its_own_id() -> None:
    schema = json.loads(resources.files("mlflow_compliance").joinpath("schemas/model_metadata.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == SCHEMA_ID
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) == set(schema["properties"])
    assert all("description" in field for field in schema["properties"].values())


SORTED: dict[str, Any] = {
    "hyperparameters": {"a": 1, "b": 2},
    "metrics": {"accuracy": 0.5, "recall": 0.25},
    "libraries": {"lightgbm": "4", "python": "3"},
    "sources": {"model": ("m.pkl", 1, SHA), "predictions": ("p.csv", 2, SHA)},
    "files": [("a", 1, SHA), ("b", 2, SHA)],
    "model_files": [("c", 1, SHA), ("d", 2, SHA)],
    "facts": [{"name": name, "value": 1, "decided_by": "agreement", "values": []} for name in ("x", "y")],
    "supersedes": ["r1", "r2"],
}


def test_the_same_values_in_another_order_are_the_same_text() -> None:
    turned = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value[::-1]
        for name, value in SORTED.items()
    }
    assert as_text(composed(**turned)) == as_text(composed(**SORTED))


def test_the_order_of_the_features_is_the_model_s() -> None:
    assert composed()["features"] == ["b", "a"]
    assert composed()["n_features"] == 2


def test_the_files_of_the_model_are_told_from_those_of_the_run() -> None:
    assert [item["path"] for item in composed()["artifacts"]] == [
        "confusion_matrix.png",
        "model.pkl",
        "model/MLmodel",
        "model/model.skops",
    ]
    assert [(item["role"], item["path"]) for item in composed()["sources"]] == [
        ("model", "models/m.pkl"),
        ("predictions", "results/p.parquet"),
    ]


def test_the_text_is_readable_and_holds_what_was_composed() -> None:
    text = as_text(composed())
    assert json.loads(text) == composed()
    assert '  "limitations": "Größe"\n}\n' in text


WHEN = "expected: When the run was logged: date and time with the offset from UTC (RFC 3339)"
HEX = "expected: SHA-256 of the bytes, in lower-case hex"
RELATIVE = "expected: Relative, with forward slashes"


def one_file(path: str = "a", sha256: str = SHA, size: float = 1) -> dict[str, Any]:
    return {"artifacts": [{"path": path, "sha256": sha256, "size": size}]}


BROKEN: list[tuple[dict[str, Any], list[str]]] = [
    ({"run_id": None}, ["run_id is null, not text"]),
    ({"run_id": ""}, ["run_id is empty"]),
    ({"owner": "ann"}, ["owner is not known"]),
    ({"schema": "urn:other"}, [f'schema is "urn:other", not {SCHEMA_ID}']),
    ({"threshold": "0.48"}, ['threshold is "0.48", not a number']),
    ({"threshold": True}, ["threshold is true, not a number"]),
    ({"threshold": 1.5}, ["threshold is 1.5, more than 1"]),
    ({"costs": {"false_negative": -1}}, ["costs.false_negative is -1, less than 0", "costs.false_positive is missing"]),
    ({"created_at": "yesterday"}, [f'created_at is "yesterday"; {WHEN}']),
    ({"created_at": "2026-01-03T16:30:44"}, [f'created_at is "2026-01-03T16:30:44"; {WHEN}']),
    ({"features": []}, ["features is empty"]),
    ({"features": ["a", "a"]}, ["features names something twice"]),
    ({"n_features": 3}, ["n_features is 3 and features has 2 names"]),
    ({"n_features": 2.5}, ["n_features is 2.5, not a whole number"]),
    (
        {"hyperparameters": {"callbacks": []}},
        ["hyperparameters.callbacks is a list, not text or a number or true or false or null"],
    ),
    ({"hyperparameters": {"lambda": math.inf}}, ["hyperparameters.lambda is not a finite number"]),
    ({"metrics": {"f1": "high"}}, ['metrics.f1 is "high", not a number']),
    ({"metrics": {"f1": math.nan}}, ["metrics.f1 is not a finite number"]),
    ({"metrics": {}}, ["metrics is empty"]),
    ({"sources": [{"role": "model", "path": "m", "sha256": SHA}]}, ["sources[0].size is missing"]),
    (one_file(size=-1), ["artifacts[0].size is -1, less than 0"]),
    (one_file(size=0.5), ["artifacts[0].size is 0.5, not a whole number"]),
    (one_file(sha256=SHA[:8]), [f'artifacts[0].sha256 is "0f0f0f0f"; {HEX}']),
    (one_file(sha256=SHA.upper()), [f'artifacts[0].sha256 is "{SHA.upper()[:59]}...; {HEX}']),
    (one_file(sha256=SHA + "\n"), [f'artifacts[0].sha256 is "{SHA[:59]}...; {HEX}']),
    (one_file(path="../a"), [f'artifacts[0].path is "../a"; {RELATIVE}']),
    (one_file(path="/a"), [f'artifacts[0].path is "/a"; {RELATIVE}']),
    (one_file(path="a/.."), [f'artifacts[0].path is "a/.."; {RELATIVE}']),
    (
        {"facts": [{"name": "threshold", "value": None, "decided_by": "ann", "values": []}]},
        [
            'facts[0].decided_by is "ann", not one of settings, model, agreement',
            "facts[0].value is null, not text or a number or true or false",
        ],
    ),
    (
        {
            "facts": [
                {
                    "name": "t",
                    "value": 1,
                    "decided_by": "model",
                    "values": [{"value": 1, "run_id": "", "experiment_id": ""}],
                }
            ]
        },
        ["facts[0].values[0].place is missing"],
    ),
    ({"supersedes": ["r1", "r1"]}, ["supersedes names something twice"]),
    ({"example": "made up"}, ['example is "made up", not one of recorded, synthetic']),
]


@pytest.mark.parametrize(
    ("change", "sentences"), BROKEN, ids=lambda value: next(iter(value)) if isinstance(value, dict) else ""
)
def test_what_is_broken_is_told_in_a_sentence(change: dict[str, Any], sentences: list[str]) -> None:
    assert problems_in({**composed(), **change}) == sentences


@pytest.mark.parametrize("name", sorted(composed()))
def test_nothing_may_be_missing(name: str) -> None:
    broken = {key: value for key, value in composed().items() if key != name}
    assert problems_in(broken) == [f"{name} is missing"]


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_another_kind_of_document_is_told(value: object) -> None:
    assert len(problems_in(value)) == 1
    assert problems_in(value)[0].startswith("the document is ")


def test_nothing_of_a_long_value_but_its_beginning_is_repeated() -> None:
    (problem,) = problems_in({**composed(), "schema": "x" * 10_000})
    assert len(problem) < 200


def test_a_document_is_left_as_it_was() -> None:
    before = composed()
    given = deepcopy(before)
    problems_in(given)
    assert given == before
