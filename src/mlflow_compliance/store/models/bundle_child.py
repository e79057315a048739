"""What runs in a limited process to build a production run: the model unpickled, saved as an MLflow model,
described and pictured.
"""

from __future__ import annotations

import csv
import json
import math
import pickle
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.store.models.plots import costs_by_threshold, draw_confusion_matrix, draw_threshold_curve
from mlflow_compliance.store.models.sandbox_child import why
from mlflow_compliance.store.models.scoring import predictions_in

REQUEST, RESULT = "request.json", "child.json"
RECORDED, SYNTHETIC = "recorded", "synthetic"
"""Where the rows of the input example come from: the features file, or nowhere."""

_EXAMPLE_ROWS = 5
_LIBRARIES = ("lightgbm", "scikit-learn", "numpy", "pandas", "scipy")
_PARQUET = b"PAR1"


def build(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write `model/`, the table of importances and the pictures below the working directory; what was learnt of the
    model on the way.
    """
    model = loaded(request["model"], request["named"])
    names = model.booster_.feature_name()
    example, origin = example_of(request["features"], names)
    libraries = {name: metadata.version(name) for name in (*_LIBRARIES, request["serialization"])}
    _save(model, example, predicted(model, example, request["named"]), request["serialization"], libraries)
    _write_importance(model.booster_, "artifacts/feature_importance.csv")
    _draw(request)
    return {
        "params": {name: _plain(value) for name, value in sorted(model.get_params().items())},
        "features": names,
        "libraries": {**libraries, "mlflow": metadata.version("mlflow"), "python": platform.python_version()},
        "example": origin,
    }


def loaded(path: str, named: str) -> Any:
    """The fitted two-class LGBMClassifier in a pickle."""
    try:
        from lightgbm import LGBMClassifier

        with open(path, "rb") as file:
            model = pickle.load(file)  # noqa: S301  the parent has scanned these bytes
    except Exception as error:  # noqa: BLE001  a pickle can raise whatever it likes
        raise ComplianceError(f"{named}: {why(error, 'unpickling')}") from None
    kind = type(model)
    if not isinstance(model, LGBMClassifier):
        raise ComplianceError(
            f"{named} holds a {kind.__module__}.{kind.__qualname__}, and a production model must be a "
            "lightgbm.LGBMClassifier"
        )
    if not model.__sklearn_is_fitted__():
        raise ComplianceError(f"{named} holds an LGBMClassifier that was never fitted")
    if model.n_classes_ != 2:
        raise ComplianceError(
            f"{named} holds a classifier of {model.n_classes_} classes, and a production model must have 2"
        )
    return model


def example_of(path: str, names: Sequence[str]) -> tuple[Any, str]:
    """A few rows of the features file; zeros where there is none, or one without these columns."""
    import pandas as pd

    found = _first_rows(path, names) if path else None
    if found is None:
        return pd.DataFrame(0.0, index=range(_EXAMPLE_ROWS), columns=list(names)), SYNTHETIC
    return found, RECORDED


def _first_rows(path: str, names: Sequence[str]) -> Any:
    """The first rows as floats; None where the file cannot give them, which the rule that scores its rows tells."""
    import pyarrow as pa

    try:
        batch = next(_batches(path))
        # LightGBM writes blanks in names as underscores.
        there = {
            **{name.replace(" ", "_"): name for name in batch.schema.names},
            **{name: name for name in batch.schema.names},
        }
        columns = [batch.column(there[name]).cast(pa.float64(), safe=False) for name in names]
    except (OSError, ValueError, LookupError, NotImplementedError, StopIteration):
        return None
    return pa.table(columns, names=list(names)).slice(0, _EXAMPLE_ROWS).to_pandas()


def _batches(path: str) -> Iterator[Any]:
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    with open(path, "rb") as file:
        parquet = file.read(4) == _PARQUET
    if parquet:
        return iter(pq.ParquetFile(path).iter_batches(batch_size=_EXAMPLE_ROWS))
    return iter(pc.open_csv(path, parse_options=pc.ParseOptions(newlines_in_values=True)))


def predicted(model: Any, example: Any, named: str) -> Any:
    """What the model gives for the rows of its example, as MLflow serves it."""
    try:
        return model.predict(example)
    except Exception as error:  # noqa: BLE001  LightGBM and scikit-learn raise errors of many kinds
        raise ComplianceError(f"{named}: {why(error, 'scoring rows of numbers')}") from None


def _save(model: Any, example: Any, output: Any, serialization: str, libraries: Mapping[str, str]) -> None:
    """Save it with its signature, its input example and the versions at hand. Nothing is looked up elsewhere."""
    import mlflow.lightgbm
    from mlflow.models import Model, infer_signature

    described = Model()
    mlflow.lightgbm.save_model(
        model,
        "model",
        mlflow_model=described,
        signature=infer_signature(example, output),
        input_example=example,
        pip_requirements=[f"{name}=={version}" for name, version in libraries.items()],
        serialization_format=serialization,
    )
    if serialization == "skops":
        from skops.io import get_untrusted_types

        # MLflow lists more than is in the file, in an order that changes from one process to the next.
        described.flavors["lightgbm"]["skops_trusted_types"] = sorted(get_untrusted_types(file="model/model.skops"))
        described.save("model/MLmodel")


def _write_importance(booster: Any, path: str) -> None:
    """What each feature gave to the trees: number of splits, and their gain in units of the objective. The
    strongest first.
    """
    kinds = [booster.feature_importance(kind).tolist() for kind in ("split", "gain")]
    rows = sorted(zip(booster.feature_name(), *kinds, strict=True), key=lambda row: (-row[2], row[0]))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["feature", "split", "gain"])
        writer.writerows(rows)


def _draw(request: Mapping[str, Any]) -> None:
    found = predictions_in(request["predictions"], target=request["target"], probability=request["probability"])
    costs = {name: request[name] for name in ("false_negative_cost", "false_positive_cost")}
    draw_confusion_matrix(
        "artifacts/confusion_matrix.png", request["values"], threshold=request["threshold"], target=request["target"]
    )
    curve = costs_by_threshold(found.target, found.probability, request["threshold"], **costs)
    draw_threshold_curve("artifacts/threshold_curve.png", curve, rows=len(found.target), **costs)


def _plain(value: Any) -> Any:
    """As JSON has it; anything else as text."""
    plain = value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)


def main() -> None:
    """Read the request from the working directory and leave the result there; a sentence about what is wrong is a
    result.
    """
    with open(REQUEST, encoding="utf-8") as file:
        request = json.load(file)
    try:
        result = build(request)
    except ComplianceError as error:
        result = {"problem": str(error)}
    text = json.dumps(result)
    with open(RESULT, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
