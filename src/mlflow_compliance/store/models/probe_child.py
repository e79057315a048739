"""What tries a model, in a process with limits."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow_compliance.errors import first_line
from mlflow_compliance.store.models.sandbox_child import LONGEST_SENTENCE, why

FLAVORS = ("lightgbm", "xgboost", "catboost", "sklearn")
"""Loaded as what they are: MLflow's generic wrapper hides parameters and probabilities."""

_LONGEST_VALUE, _MOST_ROWS = 6000, 1000


class _ProblemError(Exception):
    """What is wrong with a model, in one sentence without a subject."""


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except _ProblemError:
        raise
    except BaseException as error:  # noqa: BLE001  a model may raise anything, and exit
        raise _ProblemError(why(error, name)) from None


def tried(folder: str, sample: Sequence[str]) -> dict[str, Any]:
    """The fields of a Probe: the model in a folder loaded, its input example scored, and the `Sample`, where one is
    given, compared.
    """
    found: dict[str, Any] = {}
    try:
        with _step("loading"):
            from mlflow.models import Model

            card = Model.load(folder)
            flavor = next((name for name in FLAVORS if name in card.flavors), "pyfunc")
            model = importlib.import_module(f"mlflow.{flavor}").load_model(folder)
            found["params"], found["features"] = _params(model), features_of(model)
        with _step("scoring its input example"):
            found["example"] = scored(model, _example(card, folder, flavor))[:_MOST_ROWS]
        if flavor != "pyfunc" and "python_function" in card.flavors:
            # What most programs and MLflow's own server call: MLmodel may say something else of it.
            with _step("loading and scoring it by mlflow.pyfunc"):
                importlib.import_module("mlflow.pyfunc").load_model(folder).predict(card.load_input_example(folder))
    except _ProblemError as problem:
        return {**found, "problem": str(problem)}
    if sample:
        try:
            with _step("scoring the sample"):
                schema = card.get_input_schema()
                names = found["features"] or (schema.input_names() if schema and schema.has_input_names() else [])
                found["sampled"], found["worst"] = compared(model, names, *sample)
        except _ProblemError as problem:
            found["sample_problem"] = str(problem)
    return found


def _example(card: Any, folder: str, flavor: str) -> Any:
    found = card.load_input_example(folder)
    if found is None:
        raise _ProblemError("has no input example to score")
    if flavor == "pyfunc" or not isinstance(found, (dict, list)):
        return found
    import pandas as pd

    # What the wrapper does with JSON; the model itself wants a table.
    single = isinstance(found, dict) and not any(isinstance(value, (list, dict)) for value in found.values())
    return pd.DataFrame([found] if single else found)


def _params(model: Any) -> dict[str, str]:
    asked: dict[object, object] = getattr(model, "get_params", dict)()
    # XGBoost's own files do not hold them: there None means forgotten, not default.
    forgotten = type(model).__module__.startswith("xgboost.")
    return {_text(name): _text(value) for name, value in asked.items() if not (forgotten and value is None)}


def features_of(model: Any) -> list[str]:
    """The names of the columns that a model was fitted on, in its own words; empty where it has none."""
    booster = getattr(model, "booster_", model)  # LightGBM's scikit-learn classes hold one
    if hasattr(booster, "feature_name"):
        return [_text(name) for name in booster.feature_name()]
    for attribute in ("feature_names_in_", "feature_names_", "feature_names"):
        if (names := getattr(model, attribute, None)) is not None:
            return [_text(name) for name in names]
    return []


def _text(value: object) -> str:
    return str(value)[:_LONGEST_VALUE].encode(errors="backslashreplace").decode()


def scored(model: Any, data: Any) -> list[float]:
    """One number a row: the probability of the second of two classes, of the most probable of several, or what
    `predict` gives.
    """
    import numpy as np

    if type(model).__module__ == "xgboost.core":  # a Booster takes no tables
        data = importlib.import_module("xgboost").DMatrix(data)
    probabilities = hasattr(model, "predict_proba")
    output = model.predict_proba(data) if probabilities else model.predict(data)
    try:
        numbers = np.asarray(output, dtype=float)
    except (TypeError, ValueError):
        raise _ProblemError("its output is not finite numbers") from None
    if probabilities and numbers.ndim == 2:
        numbers = numbers[:, 1] if numbers.shape[1] == 2 else numbers.max(axis=1)
    if not numbers.size or not np.isfinite(numbers).all():
        raise _ProblemError("its output is not finite numbers")
    return [float(number) for number in numbers.ravel()]


def compared(
    model: Any, names: Sequence[str], path: str, row: str, predictions: str, probability: str
) -> tuple[int, float]:
    """Rows that were scored again and the largest difference to what is recorded for them; `names` are the model's
    columns in order.
    """
    import numpy as np

    rows, recorded = _table(path, row), _table(predictions, probability, alone=True)[probability].to_numpy(dtype=float)
    if rows.empty:
        raise _ProblemError(f"{os.path.basename(path)} has no rows")
    positions = rows.pop(row).to_numpy(dtype=float, na_value=math.nan)
    if not np.isin(positions, np.arange(len(recorded))).all():
        raise _ProblemError(
            f"{row} in {os.path.basename(path)} holds what is no position in {os.path.basename(predictions)}"
        )
    given = np.asarray(scored(model, _in_order(rows, names, os.path.basename(path))))
    worst = np.abs(given - recorded[positions.astype(int)]).max()
    if not np.isfinite(worst):
        raise _ProblemError(
            f"{probability} in {os.path.basename(predictions)} is no finite number in every row of the sample"
        )
    return len(given), float(worst)


def _in_order(rows: Any, names: Sequence[str], file: str) -> Any:
    # LightGBM writes blanks in names as underscores.
    spelled = {
        **{str(name).replace(" ", "_"): name for name in rows.columns},
        **{str(name): name for name in rows.columns},
    }
    missing = [name for name in names if name not in spelled]
    if missing:
        raise _ProblemError(
            f"{file} lacks {len(missing)} of the model's {len(names)} columns: {', '.join(missing[:5])}"[
                :LONGEST_SENTENCE
            ]
        )
    return rows[[spelled[name] for name in names]] if names else rows


def _table(path: str, wanted: str, *, alone: bool = False) -> Any:
    """The table in a file, or one column of it alone."""
    import pandas as pd
    import pyarrow.parquet as pq

    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            parquet = file.read(4) == b"PAR1"
        there = pq.read_schema(path).names if parquet else list(pd.read_csv(path, nrows=0).columns)
        if wanted in there:
            columns = [wanted] if alone else None
            # Pandas' faster parser of numbers is wrong in the last digit.
            return (
                pd.read_parquet(path, columns=columns)
                if parquet
                else pd.read_csv(path, usecols=columns, float_precision="round_trip")
            )
    except (OSError, ValueError) as error:
        raise _ProblemError(f"{name} cannot be read: {first_line(error)}"[:LONGEST_SENTENCE]) from None
    raise _ProblemError(f"{name} has no column {wanted}"[:LONGEST_SENTENCE])


def main(folder: str, result: str, *sample: str) -> None:
    text = json.dumps(tried(folder, sample))
    with open(result, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
