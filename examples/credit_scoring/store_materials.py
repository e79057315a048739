"""What the credit-scoring team worked with: synthetic applicants, fitted LightGBM models, plots and predictions."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from lightgbm import LGBMClassifier
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.float64]
Files = dict[str, bytes]  # path below the artifact folder -> content

FEATURES = tuple(Path(__file__).with_name("features.txt").read_text(encoding="utf-8").split())
TRAIN_ROWS = 4_000
HELD_OUT_ROWS = 4_000
SAMPLE_EVERY = 20  # of the rows that were held out: what can be scored again
FITTED = 2_000  # of the training rows: what an experiment fitted its model on; it scored the rest
POSITIVE_SHARE = 0.0807  # as in the Home Credit data
COST_FN, COST_FP = 10, 1  # a loan that defaults costs ten times a good customer turned away

HISTORY_PREFIXES = ("PREV_", "INST_", "POS_")
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "application": tuple(f for f in FEATURES if not f.startswith(("BUREAU_", *HISTORY_PREFIXES))),
    "application_bureau": tuple(f for f in FEATURES if not f.startswith(HISTORY_PREFIXES)),
    "application_history": tuple(f for f in FEATURES if not f.startswith("BUREAU_")),
    "all_189": FEATURES,
}

BINARY_PREFIXES = ("FLAG_", "NAME_", "WEEKDAY_", "REG_", "LIVE_", "CODE_", "HAS_", "FONDKAPREMONT_", "WALLSMATERIAL_")
COUNT_WORDS = ("CNT_", "_COUNT", "_CIRCLE", "NUM_", "AMT_REQ_", "DPD", "HOUR_", "TOTAL_DOCUMENTS", "RATING")


@dataclass(frozen=True)
class Materials:
    """Everything that goes into a store, made once for a seed and a number of trees."""

    train: Any  # a pandas DataFrame, the columns in the order of FEATURES
    production_model: Any  # an LGBMClassifier: beside the store, never in it
    predictions: Any  # a pandas DataFrame of TARGET and PROBABILITY
    features: Any  # a pandas DataFrame: the features of some of the rows that were predicted, ROW tells which
    selection_booster: Any  # the lightgbm.Booster that two runs of the model selection logged
    by_feature_set: dict[str, Files]
    selection: Files
    interpretation: Files
    explained_by_top_20: float  # the share of all SHAP values that the strongest 20 features have
    test_upload: Files
    stray: tuple[Files, Files, Files]


@lru_cache(maxsize=2)  # the demo builds two stores in one process, and fitting 968 trees takes a while
def make_materials(trees: int, seed: int) -> Materials:
    rng = np.random.default_rng(seed)
    frame, target = _applicants(TRAIN_ROWS + HELD_OUT_ROWS, rng)
    train, held_out = frame.iloc[:TRAIN_ROWS], frame.iloc[TRAIN_ROWS:]
    train_target, held_out_target = target[:TRAIN_ROWS], target[TRAIN_ROWS:]

    production = _classifier(seed, n_estimators=trees, max_depth=10, learning_rate=0.0188).fit(train, train_target)
    probability = production.predict_proba(held_out)[:, 1]

    sets: dict[str, Files] = {}
    distribution = _bar_chart(
        "TARGET in the training data",
        {"repaid": float((train_target == 0).sum()), "default": float(train_target.sum())},
    )
    for name, columns in FEATURE_SETS.items():
        fitted = _classifier(seed, n_estimators=8, max_depth=6).fit(
            train[list(columns)][:FITTED], train_target[:FITTED]
        )
        importance = _importance(fitted)
        sets[name] = {
            "feature_importance.csv": _csv(importance),
            "plots/feature_importance.png": _bar_chart(
                "Feature importance (gain)", importance.head(15).set_index("feature")["gain"]
            ),
            "plots/target_distribution.png": distribution,
            "model/lgbm_fitted.pkl": pickle.dumps(fitted),
        }

    selected = _classifier(seed, n_estimators=10, max_depth=5, learning_rate=0.1).fit(
        train[:FITTED], train_target[:FITTED]
    )
    scores = selected.predict_proba(train[FITTED:])[:, 1]
    defaulted = scores[train_target[FITTED:] == 1]
    recalls = {
        f"threshold {threshold:.2f}": float((defaulted >= threshold).mean()) for threshold in np.arange(0.3, 0.7, 0.05)
    }
    abandoned = _classifier(seed + 1, n_estimators=9, max_depth=4).fit(train[:FITTED], train_target[:FITTED])
    contributions = pd.DataFrame(production.predict(held_out[:40], pred_contrib=True)[:, :-1], columns=list(FEATURES))
    shap_size = contributions.abs().mean().sort_values(ascending=False)
    return Materials(
        train=train,
        production_model=production,
        predictions=pd.DataFrame(
            {"TARGET": held_out_target.astype("int64"), "PROBABILITY": probability.astype("float64")}
        ),
        features=held_out.iloc[::SAMPLE_EVERY].assign(ROW=range(0, HELD_OUT_ROWS, SAMPLE_EVERY)).reset_index(drop=True),
        selection_booster=selected.booster_,
        by_feature_set=sets,
        selection={
            "plots/recall_by_threshold.png": _bar_chart("Recall by threshold", recalls),
            "plots/target_distribution.png": distribution,
        },
        explained_by_top_20=float(shap_size.head(20).sum() / shap_size.sum()),
        interpretation={
            "interpretation/feature_importance.csv": sets["all_189"]["feature_importance.csv"],
            "interpretation/shap_values_sample.csv": _csv(contributions.round(6)),
            "interpretation/shap_summary.png": _bar_chart("mean |SHAP value|", shap_size.head(15)),
        },
        test_upload={
            "sample_rows.csv": _csv(train.head(10)),
            "upload.csv": sets["application"]["feature_importance.csv"],
        },
        stray=(
            {name: sets["all_189"][name] for name in ("feature_importance.csv", "plots/feature_importance.png")},
            {"model/lgbm_fitted.pkl": pickle.dumps(abandoned)},
            {
                "plots/target_distribution.png": distribution,
                "oof_predictions.csv": _csv(
                    pd.DataFrame({"TARGET": train_target[FITTED : FITTED + 400], "PROBABILITY": scores[:400].round(6)})
                ),
            },
        ),
    )


def score(predictions: Any, threshold: float) -> dict[str, float]:
    """The metrics that follow from predictions at a threshold."""
    target, probability = predictions["TARGET"].to_numpy(), predictions["PROBABILITY"].to_numpy()
    flagged = probability >= threshold
    tp, fp = int((flagged & (target == 1)).sum()), int((flagged & (target == 0)).sum())
    fn, tn = int((~flagged & (target == 1)).sum()), int((~flagged & (target == 0)).sum())
    ranks, positives, negatives = predictions["PROBABILITY"].rank().to_numpy(), tp + fn, fp + tn
    return {
        "roc_auc": float((ranks[target == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives)),
        "accuracy": (tp + tn) / len(target),
        "precision": tp / max(tp + fp, 1),
        "recall": tp / max(tp + fn, 1),
        "f1": 2 * tp / max(2 * tp + fp + fn, 1),
        "business_cost": float(COST_FN * fn + COST_FP * fp),
    }


def _classifier(seed: int, **hyperparameters: Any) -> Any:
    # One thread and `deterministic` give the same trees, and so the same bytes, on every build.
    reproducibly = {"random_state": seed, "n_jobs": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    return LGBMClassifier(class_weight="balanced", **reproducibly, **hyperparameters)


def _applicants(rows: int, rng: np.random.Generator) -> tuple[Any, npt.NDArray[np.int64]]:
    """Applicants whose features carry a hidden risk, the external scores most of it; the riskiest default, give or
    take luck.
    """
    risk = rng.normal(size=rows)
    columns = {name: _column(name, risk, rng) for name in FEATURES}
    external = np.stack([columns[f"EXT_SOURCE_{number}"] for number in (1, 2, 3)])
    columns |= {
        "EXT_SOURCE_MAX": external.max(axis=0),
        "EXT_SOURCE_MEAN": external.mean(axis=0),
        "EXT_SOURCE_MIN": external.min(axis=0),
    }
    outcome = 1.6 * risk + rng.logistic(size=rows)
    return pd.DataFrame(columns), (outcome > np.quantile(outcome, 1 - POSITIVE_SHARE)).astype(np.int64)


def _column(name: str, risk: Floats, rng: np.random.Generator) -> Floats:
    """Values of the kind that the name promises."""
    noise = rng.normal(size=len(risk))
    lean = rng.normal(0, 0.12) * risk  # how much this feature says about the risk
    values: Floats
    if name.startswith("EXT_SOURCE"):
        values = (1 / (1 + np.exp(0.8 * risk - noise))).round(4)
    elif name.startswith(BINARY_PREFIXES):
        values = (noise + lean > rng.uniform(-0.5, 1.5)).astype(np.float64)
    elif any(word in name for word in COUNT_WORDS):
        values = rng.poisson(np.exp(rng.uniform(-1, 2) + lean)).astype(np.float64)
    elif "DAYS" in name:
        values = -rng.gamma(2.0, 700.0 * np.exp(lean)).round()
    elif "AMT" in name or name == "INCOME_PER_PERSON":
        values = np.exp(11 + 0.6 * noise + lean).round()
    else:
        values = np.abs(1 + 0.4 * noise + lean).round(4)
    return values


def _csv(frame: Any) -> bytes:
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text.encode()


def _importance(model: Any) -> Any:
    table = pd.DataFrame(
        {"feature": model.booster_.feature_name(), "gain": model.booster_.feature_importance("gain").round(4)}
    )
    return table.assign(split=model.booster_.feature_importance("split")).sort_values(
        ["gain", "feature"], ascending=[False, True]
    )


def _bar_chart(title: str, bars: Any) -> bytes:  # a pandas Series or a dict: label -> length
    # Drawn with Pillow: a plotting library takes longer to load than the rest of the build to run.
    left, step = 250, 22
    image = Image.new("RGB", (640, 50 + step * len(bars)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((left, 12), title, fill="black")
    longest = max(length for _, length in bars.items())
    for number, (label, value) in enumerate(bars.items()):
        top = 40 + step * number
        width = round(290 * value / longest)
        draw.text((10, top), label[:38], fill="black")
        draw.rectangle((left, top, left + width, top + step - 8), fill="#1f77b4")
        draw.text((left + width + 8, top), f"{value:.6g}", fill="black")
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
