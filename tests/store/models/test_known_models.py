"""Honest models: every estimator of scikit-learn, LightGBM and XGBoost that fits with defaults is known, by pickle and
by joblib.
"""

from __future__ import annotations

import importlib.util
import io
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.store.models.allowlist import CALLED, MADE, Name, is_known, objections
from mlflow_compliance.store.models.budget import Budget
from mlflow_compliance.store.models.content import content_problems
from mlflow_compliance.store.models.known_models import KNOWN

GENERATOR = Path(__file__).parents[3] / ".ci" / "known_models.py"
LIBRARIES = ("joblib", "lightgbm", "sklearn", "xgboost")
pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, LIBRARIES)),
    reason="install the test group: pip install --group test '.[lightgbm]'",
)


@pytest.fixture(scope="module")
def generator() -> Any:
    """The script that made the table; it knows how to fit what."""
    spec = importlib.util.spec_from_file_location("known_models_script", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fitted(generator: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(generator.fitted())


def told(data: bytes) -> list[str]:
    return [problem.text for problem in content_problems(data, "file", ModelSettings(), Budget())]


def packed(value: Any) -> Iterator[tuple[str, bytes]]:
    import joblib

    for protocol in (0, pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL):
        yield f"pickle {protocol}", pickle.dumps(value, protocol)
    for compress in (0, 3):
        joblib.dump(value, stream := io.BytesIO(), compress=compress)
        yield f"joblib {compress}", stream.getvalue()


@pytest.mark.slow
def test_every_estimator_that_fits_is_known(fitted: dict[str, Any]) -> None:
    found = {(name, way): told(data) for name, value in fitted.items() for way, data in packed(value)}
    assert len(found) > 5 * 200
    assert {key: problems for key, problems in found.items() if problems} == {}


def test_models_of_each_library_are_known() -> None:
    """Some of the table above, quickly."""
    import lightgbm
    import numpy as np
    import xgboost
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rows, labels = np.random.default_rng(1).normal(size=(40, 3)), np.arange(40) % 2
    models = [
        SVC(),
        RandomForestClassifier(3, random_state=np.random.RandomState(1)),
        GradientBoostingClassifier(n_estimators=2),
        KNeighborsClassifier(algorithm="kd_tree"),
        StandardScaler(),
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1),
        xgboost.XGBClassifier(n_estimators=2),
    ]
    for model in models:
        for way, data in packed(model.fit(rows, labels)):
            assert told(data) == [], (model, way)


def test_a_scaler_that_was_fitted_on_a_frame_is_known() -> None:
    """With the names of its columns, an array of objects, which joblib writes as a pickle within the pickle."""
    import pandas as pd
    from sklearn.preprocessing import StandardScaler

    frame = pd.DataFrame({"a": [1.0, 2, 3], "b": [3.0, 2, 9]})
    for way, data in packed(StandardScaler().fit(frame)):
        assert told(data) == [], way
    for way, data in packed([frame, frame.rename(columns={"a": "é" * 300}), pd.DataFrame({"c": ["x", None, "zz"]})]):
        assert told(data) == [], way


@pytest.mark.parametrize(
    ("old", "known"),
    [
        ("sklearn.ensemble.forest.RandomForestClassifier", True),
        ("sklearn.ensemble.gradient_boosting.GradientBoostingRegressor", True),
        ("sklearn.tree.tree.DecisionTreeClassifier", True),
        ("sklearn.linear_model.logistic.LogisticRegression", True),
        ("sklearn.svm.classes.SVC", True),
        ("sklearn.preprocessing.data.StandardScaler", True),
        ("sklearn.cluster.k_means_.KMeans", True),
        ("numpy.core.multiarray._reconstruct", True),
        ("sklearn.ensemble.forest.evil", False),
        ("sklearn.evil.forest.RandomForestClassifier", False),
        ("evil.ensemble.forest.RandomForestClassifier", False),
        ("sklearn.ensemble.forest.deep.RandomForestClassifier", False),
    ],
)
def test_names_of_earlier_versions(old: str, known: bool) -> None:
    module, _, name = old.rpartition(".")
    assert is_known(Name(module, name)) == known


def test_the_table_holds_nothing_that_is_known_to_be_dangerous(generator: Any) -> None:
    found = objections({*MADE, *CALLED}, ())
    assert {str(name) for name, why in found.items() if "cannot be allowed" in why} <= {"numpy.memmap"}
    names = {f"{line.split()[0]}.{name}" for line in KNOWN.strip().splitlines() for name in line.split()[1:]}
    assert not names & set(generator.NOT_KNOWN)
    assert not {name for name in names if name.rpartition(".")[2] in ("load", "loads", "partial", "getattr", "eval")}
