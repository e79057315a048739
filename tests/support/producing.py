"""What a production run is built from, small: a pickled LightGBM classifier, its predictions, some of the rows that
it predicted.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from repairs import carry_out, plan_for
from stores import CREDIT, Lab

FEATURES = tuple(f"FEATURE_{number}" for number in range(12))
THRESHOLD = 0.4
PRODUCTION: dict[str, Any] = {
    "run_name": "production_v2",
    "model": "models/model.pkl",
    "predictions": "results/predictions.parquet",
    "features": "data/sample.parquet",
    "threshold": THRESHOLD,
    "false_negative_cost": 10.0,
    "false_positive_cost": 1.0,
    "registered_model": "credit",
    "required_params": ["max_depth", "optimal_threshold"],
    "required_metrics": ["roc_auc", "business_cost"],
    "required_tags": ["status"],
    "required_artifacts": ["model", "model.pkl", "model_metadata.json", "predictions/*"],
}


@lru_cache(maxsize=1)
def materials() -> tuple[bytes, Any, Any]:
    """The pickled model, the frame of predictions and the frame of sampled features."""
    import numpy as np
    import pandas as pd
    from lightgbm import LGBMClassifier

    dice = np.random.default_rng(7)
    frame = pd.DataFrame(dice.normal(size=(600, len(FEATURES))), columns=list(FEATURES))
    target = (frame["FEATURE_0"] + dice.normal(size=600) > 0.8).astype("int64")
    model = LGBMClassifier(n_estimators=5, max_depth=3, num_leaves=6, random_state=7, n_jobs=1, verbosity=-1).fit(
        frame, target
    )
    predictions = pd.DataFrame({"TARGET": target, "PROBABILITY": model.predict_proba(frame)[:, 1]})
    sample = frame.iloc[::50].assign(ROW=range(0, 600, 50)).reset_index(drop=True)
    return pickle.dumps(model), predictions, sample


def lay_out(folder: Path) -> None:
    """Write the files that the settings name beside a store."""
    model, predictions, sample = materials()
    for name in ("models", "results", "data"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "models" / "model.pkl").write_bytes(model)
    predictions.to_parquet(folder / "results" / "predictions.parquet", index=False)
    sample.to_parquet(folder / "data" / "sample.parquet", index=False)


def settings_for(**production: Any) -> dict[str, Any]:
    """Settings whose product is `credit`, with these about its production run."""
    return {"products": [{**CREDIT, "production": production}]}


def toml_for(uri: str, **production: Any) -> str:
    """compliance.toml of the team whose product is `credit`, with what its production run is built from."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**PRODUCTION, **production}.items() if value is not None]
    marks = "".join(f"{key} = {json.dumps(value)}\n" for key, value in CREDIT.items() if key != "production_tags")
    return (
        f"[store]\ntracking_uri = {json.dumps(uri)}\n[[products]]\n{marks}[products.production]\n"
        + "\n".join(lines)
        + "\n"
    )


def produced(make: Callable[..., Lab], **production: Any) -> Lab:
    """A store with one production run that a repair built, and the sources beside it."""
    lab = unproduced(make, **production)
    done = carry_out(lab, plan_for(lab))
    assert done.differing == []
    assert done.outcome.failed == []
    return lab


def unproduced(make: Callable[..., Lab], **production: Any) -> Lab:
    """A store with a production experiment whose run has no model, and the sources beside it."""
    lab = make()
    lay_out(lab.folder)
    (lab.folder / "compliance.toml").write_text(toml_for(lab.uri, **production))
    lab.reload()
    key = lab.experiment("credit_delivery")
    lab.run(key, "old", stage="production", metrics={"roc_auc": 0.5})
    return lab


def copied(built: Lab, folder: Path) -> Lab:
    """A produced store elsewhere, to be broken by a test."""
    return Lab.moved(built.folder, folder)


def model_folder(lab: Lab) -> Path:
    """The folder of the production run's model."""
    (folder,) = (lab.mlruns / "1" / "models").glob("*/artifacts")
    return folder
