"""Metrics recomputed from a file of predictions: the bytes that are hashed are the bytes that are parsed."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_compliance.errors import ComplianceError, first_line
from mlflow_compliance.production.metrics import COST, cost_of
from mlflow_compliance.snapshot.evidence import Scored
from mlflow_compliance.store.models.sandbox import MOST_SAID, Limits, run_limited, temporary_folder
from mlflow_compliance.store.storage.safe_io import opened, why_unread

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

RESULT = "scored.json"
_CHILD = "mlflow_compliance.store.models.scoring_child"
_LARGEST_ANSWER = 1 << 20
_PARQUET = b"PAR1"
_BLOCK = 1 << 20


class Predictions(NamedTuple):
    """What a file of predictions says; `target` holds 0 and 1, both at least once."""

    sha256: str
    target: Floats
    probability: Floats


class Scoring(NamedTuple):
    """What is asked of a file of predictions: two columns, the threshold, and what a mistake of each kind costs."""

    target: str
    probability: str
    threshold: float
    false_negative_cost: float
    false_positive_cost: float


class _Answer(BaseModel):
    """What the process that reads a file may answer."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    path: str
    sha256: str = Field(max_length=64)
    rows: int = Field(ge=0)
    threshold: float
    values: dict[str, float]
    problem: str = Field(max_length=MOST_SAID)
    fault: str = Field(max_length=MOST_SAID)


def score_apart(path: str, wanted: Scoring, limits: Limits) -> Scored:
    """`score` in a process with limits: what a file holds may be far more than its size says."""
    name, path = os.path.basename(path), os.path.abspath(path)
    problem = ""
    with suppress(OSError):  # the other process says why it cannot be read
        if os.stat(path).st_size > limits.megabytes << 20:
            problem = (
                f"{name} is larger than the {limits.megabytes} MiB of memory that it may take (models.memory_limit)"
            )
    with temporary_folder() as place:
        if not problem and (why := run_limited(_CHILD, [path, json.dumps(wanted._asdict())], place, limits)):
            own = "models.memory_limit, models.time_limit"
            problem = f"{name} cannot be scored: the process that reads it, which has limits ({own}), {why}"
        if not problem:
            try:
                with opened(os.path.join(place, RESULT)) as file:
                    return Scored(**_Answer.model_validate_json(os.read(file, _LARGEST_ANSWER)).model_dump())
            except (OSError, ValidationError):
                problem = f"{name} cannot be scored: the process that read it left no result that can be used"
    return Scored(path, threshold=wanted.threshold, problem=problem)


def score(
    path: str,
    *,
    target: str,
    probability: str,
    threshold: float,
    false_negative_cost: float,
    false_positive_cost: float,
) -> Scored:
    """The metrics that follow from a Parquet or CSV file with `probability >= threshold`. Columns are named; costs
    are for one mistake each.
    """
    try:
        found = predictions_in(path, target=target, probability=probability)
    except ComplianceError as error:
        return Scored(path, threshold=threshold, problem=str(error))
    values = _metrics(found, threshold)
    values[COST] = cost_of(
        values["fn"], values["fp"], false_negative_cost=false_negative_cost, false_positive_cost=false_positive_cost
    )
    return Scored(path, found.sha256, len(found.target), threshold, values)


def predictions_in(path: str, *, target: str, probability: str) -> Predictions:
    """The two named columns of a Parquet or CSV file. Raises ComplianceError where they cannot be scored."""
    name = os.path.basename(path)
    data = _bytes_of(path, name)
    columns = _columns(data, name, (target, probability))
    truth, scores = (
        _numbers(values, name, column) for values, column in zip(columns, (target, probability), strict=True)
    )
    _refuse((truth != 0) & (truth != 1), name, f"{target} are neither 0 nor 1")
    _refuse((scores < 0) | (scores > 1), name, f"{probability} are not between 0 and 1")
    if truth.min() == truth.max():
        raise ComplianceError(f"{name}: {target} is {truth[0]:g} in every row, and ROC AUC needs both classes")
    return Predictions(hashlib.sha256(data).hexdigest(), truth, scores)


def _bytes_of(path: str, name: str) -> bytes:
    try:
        with opened(path) as file:
            return b"".join(iter(lambda: os.read(file, _BLOCK), b""))
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else why_unread(error)
        raise ComplianceError(f"{name} cannot be read: {why}") from None


def _columns(data: bytes, name: str, wanted: tuple[str, str]) -> list[Any]:
    """The wanted columns as Arrow arrays, whatever they hold."""
    parquet = data.startswith(_PARQUET)
    if not parquet and not name.lower().endswith(".csv"):
        raise ComplianceError(f"{name} is neither a Parquet file nor named .csv")
    try:
        table = _from_parquet(data, name, wanted) if parquet else _from_csv(data, name, wanted)
        return [table.column(column) for column in wanted]
    # Arrow's own errors are all of these kinds.
    except (ValueError, TypeError, LookupError, OSError, NotImplementedError) as error:
        raise ComplianceError(f"{name} cannot be parsed: {first_line(error)}") from None


def _from_parquet(data: bytes, name: str, wanted: tuple[str, str]) -> Any:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    _need(wanted, file.schema_arrow.names, name)
    return file.read(columns=list(wanted))


def _from_csv(data: bytes, name: str, wanted: tuple[str, str]) -> Any:
    # Arrow refuses a row that is too long, where pandas takes its first field for an index and shifts the rest.
    import pyarrow.csv as pc

    parse = pc.ParseOptions(newlines_in_values=True)
    with pc.open_csv(io.BytesIO(data), parse_options=parse) as reader:
        _need(wanted, reader.schema.names, name)
    return pc.read_csv(
        io.BytesIO(data), parse_options=parse, convert_options=pc.ConvertOptions(include_columns=list(wanted))
    )


def _need(wanted: tuple[str, str], there: list[str], name: str) -> None:
    """Refuse a table that has not each wanted column once."""
    missing = [column for column in wanted if column not in there]
    if missing:
        noun = "columns" if len(missing) > 1 else "column"
        raise ComplianceError(f"{name} has no {noun} {' and '.join(missing)}; it has {', '.join(there) or 'none'}")
    twice = [column for column in wanted if there.count(column) > 1]
    if twice:
        raise ComplianceError(f"{name} has more than one column {twice[0]}")


def _numbers(values: Any, name: str, column: str) -> Floats:
    """The values as floats, none of them missing. Real files hold numbers in columns of objects and as text."""
    import numpy as np
    import pyarrow as pa

    if not len(values):
        raise ComplianceError(f"{name} has no rows")
    numbers: Floats
    if (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)) and not values.null_count:
        # From the buffers: what Arrow has for this imports pandas, which takes long.
        chunks = [chunk for chunk in values.cast(pa.float64(), safe=False).iterchunks() if len(chunk)]
        numbers = np.concatenate([np.frombuffer(chunk.buffers()[1])[chunk.offset :][: len(chunk)] for chunk in chunks])
    else:
        # Not pandas.to_numeric: before pandas 3 it is wrong in the last digit, which moves a probability across the
        # threshold.
        numbers = np.array([_number(value) for value in values.to_pylist()])
    _refuse(np.isnan(numbers), name, f"{column} are missing or no numbers")
    return numbers


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _refuse(bad: npt.NDArray[np.bool_], name: str, what: str) -> None:
    if count := int(bad.sum()):
        raise ComplianceError(f"{name}: {count} of {len(bad)} values of {what}")


def _metrics(found: Predictions, threshold: float) -> dict[str, float]:
    """Counted here: scikit-learn, which gives the same, takes a second to import, and this is asked right after a run
    was logged.
    """
    true, predicted = found.target == 1, found.probability >= threshold
    tp, fp = int((predicted & true).sum()), int((predicted & ~true).sum())
    fn, tn = int(true.sum()) - tp, int((~true).sum()) - fp
    return {
        "accuracy": (tp + tn) / len(true),
        "precision": _share(tp, tp + fp),
        "recall": _share(tp, tp + fn),
        "f1": _share(2 * tp, 2 * tp + fp + fn),
        "roc_auc": _roc_auc(true, found.probability),
        "tn": float(tn),
        "fp": float(fp),
        "fn": float(fn),
        "tp": float(tp),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _roc_auc(true: npt.NDArray[np.bool_], scores: Floats) -> float:
    """How often a 1 is given more than a 0, equal ones counted half: the area under the ROC curve."""
    import numpy as np

    _, place = np.unique(scores, return_inverse=True)
    ones = np.bincount(place[true], minlength=place.max() + 1)
    zeros = np.bincount(place[~true], minlength=place.max() + 1)
    below = np.cumsum(zeros) - zeros
    return int((ones * (2 * below + zeros)).sum()) / (2 * int(ones.sum()) * int(zeros.sum()))
