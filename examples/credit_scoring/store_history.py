"""The history of the credit-scoring store: which experiments and runs the team logged, when, and with what in them.

26 folders hold artifacts:

    16  one for each run of experiment 2
     3  the three LightGBM runs with class weights of experiment 1
     2  the models that two of these logged (models/m-*)
     1  model_interpretation_script of experiment 4
     1  a test run of experiment 5
     3  folders under mlruns/ that nothing owns any more
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from store_materials import COST_FN, COST_FP, FEATURE_SETS, FEATURES, Files, Materials, score

Values = dict[str, list[float]]  # metric -> its value at step 0, 1, 2 ...

SAMPLING = ("none", "class_weight", "undersampling", "smote")
CANDIDATES = {  # algorithm -> (ROC AUC that it reached, its hyperparameters)
    "dummy": (0.500, {"strategy": "stratified"}),
    "logistic_regression": (0.742, {"C": "0.1", "solver": "lbfgs", "max_iter": "1000"}),
    "random_forest": (0.738, {"n_estimators": "300", "max_depth": "12"}),
    "xgboost": (0.768, {"n_estimators": "400", "max_depth": "6", "learning_rate": "0.05"}),
    "lightgbm": (0.774, {"n_estimators": "400", "max_depth": "8", "learning_rate": "0.05", "num_leaves": "31"}),
}
STRAY_PREFIXES = ("26", "57", "7b")  # how the names of the folders that nothing owns begin

# What the notebook printed for the whole training data at this threshold, copied into the run by hand.
DELIVERED = {
    "roc_auc": 0.783854,
    "accuracy": 0.59919,
    "precision": 0.1467,
    "recall": 0.82312,
    "f1": 0.24901,
    "business_cost": 162771.0,
}


@dataclass(frozen=True)
class RunSpec:
    name: str
    start: datetime
    minutes: float
    source: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: Values = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    reads_training_data: bool = False
    model: str | None = None  # the name under which this run logs the booster of the model selection
    failed: bool = False


@dataclass(frozen=True)
class ExperimentSpec:
    name: str
    created: datetime
    runs: tuple[RunSpec, ...]


def history(materials: Materials, seed: int) -> tuple[ExperimentSpec, ...]:
    """The experiments 1 to 6, in the order of their ids."""
    dice = random.Random(seed)
    return (
        ExperimentSpec("credit_scoring_model_selection", _at(4, 7), tuple(_model_selection(materials, dice))),
        ExperimentSpec(
            "credit_scoring_feature_engineering_cv", _at(4, 28), tuple(_feature_engineering(materials, dice))
        ),
        ExperimentSpec("credit_scoring_optimization_fbeta", _at(5, 19), tuple(_optimization(dice))),
        ExperimentSpec("credit_scoring_final_delivery", _at(6, 16), tuple(_final_delivery(materials))),
        ExperimentSpec("test_experiment", _at(6, 18), tuple(_tests(materials))),
        ExperimentSpec("credit_scoring_production", _at(7, 1), (_production(materials),)),
    )


def _model_selection(materials: Materials, dice: random.Random) -> Iterator[RunSpec]:
    """Five algorithms under four ways of sampling, then the best of them twice more: 22 runs."""
    plan = [(algorithm, sampling, "") for algorithm in CANDIDATES for sampling in SAMPLING]
    plan += [("lightgbm", "class_weight", "_rerun"), ("lightgbm", "class_weight", "_rerun_2")]
    for number, (algorithm, sampling, again) in enumerate(plan):
        auc, hyperparameters = CANDIDATES[algorithm]
        chosen = (algorithm, sampling) == ("lightgbm", "class_weight")
        yield RunSpec(
            name=f"{algorithm}_{sampling}{again}",
            start=_at(4, 8, 9) + timedelta(minutes=47 * number),
            minutes=dice.uniform(3, 40),
            source="notebooks/03_model_selection.ipynb",
            params={"algorithm": algorithm, "sampling": sampling, "cv_folds": "5", **hyperparameters},
            metrics=_folds(auc, dice),
            tags={"stage": "selection", "algorithm": algorithm},
            files=materials.selection if chosen else {},
            reads_training_data=algorithm == "lightgbm",
            model="lightgbm_class_weight" if again else None,
        )


def _feature_engineering(materials: Materials, dice: random.Random) -> Iterator[RunSpec]:
    """Four sets of features under four ways of sampling; the script logged the artifacts of the set in each of its
    runs: 16 runs.
    """
    plan = [(name, sampling) for name in FEATURE_SETS for sampling in SAMPLING]
    for number, (name, sampling) in enumerate(plan):
        yield RunSpec(
            name=f"lgbm_{name}_{sampling}",
            start=_at(4, 29, 8) + timedelta(minutes=63 * number),
            minutes=dice.uniform(12, 55),
            source="src/features/run_cv.py",
            params={
                "feature_set": name,
                "n_features": str(len(FEATURE_SETS[name])),
                "sampling": sampling,
                "cv_folds": "5",
            },
            metrics=_folds(0.752 + 0.00018 * len(FEATURE_SETS[name]), dice),
            tags={"stage": "feature_engineering"},
            files=materials.by_feature_set[name],
            reads_training_data=True,
        )


def _optimization(dice: random.Random) -> Iterator[RunSpec]:
    """21 trials of one Optuna study; the score climbs with the boosting rounds and, slowly, with the trials."""
    for number in range(21):
        reached = 0.42 + 0.0012 * number + dice.uniform(-0.02, 0.01)
        yield RunSpec(
            name=f"trial_{number:03d}",
            start=_at(5, 20, 18) + timedelta(minutes=38 * number),
            minutes=dice.uniform(15, 35),
            source="src/optimization/optimize_fbeta.py",
            params={
                "n_estimators": str(dice.randrange(200, 1200)),
                "max_depth": str(dice.randrange(4, 13)),
                "learning_rate": f"{dice.uniform(0.005, 0.1):.4f}",
                "num_leaves": str(dice.randrange(16, 96)),
                "min_child_samples": str(dice.randrange(20, 200)),
                "reg_alpha": f"{dice.uniform(0, 2):.3f}",
                "reg_lambda": f"{dice.uniform(0, 2):.3f}",
                "beta": "3.2",
            },
            metrics={
                "fbeta": [round(reached * (1 - 0.35 * 0.6**step), 6) for step in range(10)],
                "roc_auc": [round(0.55 + reached * 0.53 * (1 - 0.4 * 0.5**step), 6) for step in range(10)],
                "optimal_threshold": [round(dice.uniform(0.3, 0.5), 3)],
            },
            tags={"stage": "optimization", "optuna.study": "lgbm_fbeta_v2", "optuna.trial": str(number)},
        )


def _final_delivery(materials: Materials) -> Iterator[RunSpec]:
    yield RunSpec(
        name="model_interpretation_script",
        start=_at(6, 17, 10),
        minutes=21,
        source="src/interpretation/interpret.py",
        params={"explainer": "TreeExplainer", "sample_size": "40", "n_features": str(len(FEATURES))},
        metrics={"explained_by_top_20": [round(materials.explained_by_top_20, 6)]},
        tags={"stage": "delivery"},
        files=materials.interpretation,
    )
    yield RunSpec(
        name="final_model_application",
        start=_at(6, 17, 14),
        minutes=9,
        source="notebooks/06_final_model.ipynb",
        params={**_hyperparameters(materials), "optimal_threshold": "0.338"},
        metrics={name: [value] for name, value in DELIVERED.items()},
        tags={"stage": "delivery", "model_type": "LGBMClassifier"},
    )


def _tests(materials: Materials) -> Iterator[RunSpec]:
    for number, (name, failed) in enumerate(
        [("test_run", False), ("test_logging", True), ("test_artifact_upload", False), ("tmp", False)]
    ):
        yield RunSpec(
            name=name,
            start=_at(6, 18, 16) + timedelta(minutes=6 * number),
            minutes=0.2,
            source="scratch.py",
            params={"param1": "5"},
            metrics={"foo": [float(number), float(number + 1)]},
            files=materials.test_upload if name == "test_artifact_upload" else {},
            failed=failed,
        )


def _production(materials: Materials) -> RunSpec:
    # Its model lies beside the store as a pickle: logging it was forgotten.
    return RunSpec(
        name="production_lightgbm_189features",
        start=_at(7, 1, 9),
        minutes=17,
        source="src/production/train.py",
        params={
            **_hyperparameters(materials),
            "optimal_threshold": "0.48",
            "cost_fn": str(COST_FN),
            "cost_fp": str(COST_FP),
        },
        metrics={name: [round(value, 6)] for name, value in score(materials.predictions, 0.48).items()},
        tags={"stage": "production", "model_type": "LGBMClassifier", "version": "1.0.0"},
    )


def _hyperparameters(materials: Materials) -> dict[str, str]:
    names = ("n_estimators", "max_depth", "learning_rate", "num_leaves", "class_weight", "random_state")
    values = materials.production_model.get_params()
    return {"n_features": str(len(FEATURES)), **{name: str(values[name]) for name in names}}


def _folds(auc: float, dice: random.Random) -> Values:
    folds = [round(auc + dice.uniform(-0.008, 0.008), 6) for _ in range(5)]
    return {
        "cv_roc_auc": folds,
        "mean_roc_auc": [round(sum(folds) / 5, 6)],
        "fit_seconds": [round(dice.uniform(2, 240), 2)],
    }


def _at(month: int, day: int, hour: int = 8) -> datetime:
    return datetime(2025, month, day, hour, tzinfo=timezone.utc)
