"""The production model as it was loaded, what can be asked of it, and why it may be refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlflow.models import Model

from mlflow_compliance.errors import ComplianceError, StoreError, first_line
from mlflow_compliance.production.metadata import differing_files
from mlflow_compliance.production.signature import NOT_SIGNED
from mlflow_compliance.snapshot.evidence import Unsigned

if TYPE_CHECKING:
    import pandas as pd


class UnreachableError(StoreError):
    """MLflow does not answer: nothing is known about the production model. The only error after which a fallback is
    looked at.
    """


class ModelError(ComplianceError):
    """The production model must not be loaded, or cannot be."""


@dataclass(frozen=True)
class ProductionModel:
    """The model that serves, and everything that says why it is this one."""

    model: Any
    """The native object (LGBMClassifier, ...), an mlflow.pyfunc.PyFuncModel where there is none."""
    features: tuple[str, ...]
    """Names of its columns, in the model's own order."""
    takes_missing: bool
    """Whether a value may be NaN."""
    threshold: float | None
    """A probability from here on is a yes; None where the run records none."""
    source: Literal["alias", "run", "fallback"]
    uri: str
    run_id: str
    version: str | None
    why: str
    sha256: Mapping[str, str]
    """Path in the model folder -> SHA-256 (hex) of every file that was loaded."""

    def probabilities(self, frame: pd.DataFrame) -> list[float]:
        """Probability of the positive class for each row; columns are taken by name, in any order.

        Raises ModelError where a column is missing or the model gives something else than one probability a row.
        """
        import numpy as np

        missing = [name for name in self.features if name not in frame.columns]
        if missing:
            raise ModelError(f"{len(missing)} columns that the model needs are missing: {', '.join(missing[:5])}")
        rows = frame[list(self.features)]
        scored = (
            self.model.predict_proba(rows)[:, 1] if hasattr(self.model, "predict_proba") else self.model.predict(rows)
        )
        found = np.asarray(scored)
        # Whole numbers are classes: a threshold says nothing about them.
        if found.shape != (len(rows),) or found.dtype.kind != "f" or not ((found >= 0) & (found <= 1)).all():
            raise ModelError(
                f"the model of run {self.run_id} does not give one probability for each row: log it with a flavor "
                "that does"
            )
        return [float(value) for value in found]


def refuse_problems(what: str, problems: Sequence[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise ModelError(f"{what} is not known to be safe, so it was not loaded: {problems[0]}{more}")


def refuse_differences(what: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise ModelError unless a model holds exactly the files on record, those aside that MLflow writes for the
    place where a model lies.
    """
    differing = differing_files(recorded, found)
    if differing:
        raise ModelError(
            f"{what} is not the one on record, so it was not loaded: {', '.join(differing)}; put the recorded "
            "files back"
        )


def refuse_unsigned(what: str, problems: Sequence[Unsigned]) -> None:
    """Raise ModelError for a model that is not the one that was signed."""
    if problems:
        told = ", and it ".join(problem.text for problem in problems)
        way = "sign it, by --fix where the private key is, or put its bundle back"
        if problems[0] not in NOT_SIGNED:
            way = "put its files and its bundle back from a backup"
        raise ModelError(f"{what} {told}, so it was not loaded: {way}")


def native(what: str, folder: str) -> Any:
    """The model as its own library knows it."""
    try:
        flavors = Model.load(folder).flavors
        if "lightgbm" in flavors:
            from mlflow.lightgbm import load_model
        elif "sklearn" in flavors:
            from mlflow.sklearn import load_model
        else:
            from mlflow.pyfunc import load_model
        return load_model(folder)
    except Exception as error:
        raise ModelError(
            f"{what} cannot be loaded here ({type(error).__name__}: {first_line(error)}): install what its "
            "requirements.txt names"
        ) from error


def features(what: str, model: Any) -> tuple[str, ...]:
    names = next(
        (found for name in ("feature_name_", "feature_names_in_") if (found := getattr(model, name, None)) is not None),
        None,
    )
    if names is None and hasattr(model, "feature_name"):
        names = model.feature_name()  # a booster
    if names is None and hasattr(model, "metadata"):
        schema = model.metadata.get_input_schema()  # a pyfunc model
        names = schema.input_names() if schema else None
    if names is not None and len(names):
        return tuple(str(name) for name in names)
    raise ModelError(
        f"{what} does not name its features: train it on a frame with column names, or log it with a signature"
    )


def takes_missing(model: Any) -> bool:
    with suppress(AttributeError):  # which LightGBM's own raises beside a scikit-learn before 1.6
        return bool(model.__sklearn_tags__().input_tags.allow_nan)
    if hasattr(model, "_get_tags"):  # scikit-learn before 1.6
        return bool(model._get_tags()["allow_nan"])
    return hasattr(model, "feature_name")
