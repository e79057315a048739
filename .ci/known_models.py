"""Writes store/models/known_models.py: every name that a pickle of a fitted estimator of scikit-learn, LightGBM or
XGBoost needs. Run it with each version that is to be known: names that are there stay.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators

from mlflow_compliance.store.models.allowlist import CALLED, MAKERS, Name
from mlflow_compliance.store.models.known_models import KNOWN, VERSIONS
from mlflow_compliance.store.models.pickle_walk import walk
from mlflow_compliance.store.models.stand_ins import WRAPPERS

TARGET = Path(__file__).parents[1] / "src" / "mlflow_compliance" / "store" / "models" / "known_models.py"
HEAD = '''"""What fitted estimators are made of, of {versions}. Written by .ci/known_models.py: do not edit."""
# ruff: noqa: E501

from __future__ import annotations

VERSIONS = """{versions}"""
KNOWN = """
{lines}
"""
"""A line a module: its name, then what pickles name in it, each a class that is made empty and given attributes, or a
function of numbers that is named and not called.
"""
'''
SPACES = {
    **{f"scipy.sparse._{kind}": inspect.isclass for kind in ("bsr", "coo", "csc", "csr", "dia")},
    "sklearn.feature_selection._univariate_selection": inspect.isfunction,
    "sklearn.feature_selection._mutual_info": inspect.isfunction,
    "sklearn.gaussian_process.kernels": inspect.isclass,
    "sklearn.metrics._classification": inspect.isfunction,
    "sklearn.metrics._dist_metrics": inspect.isclass,
    "sklearn.metrics._ranking": inspect.isfunction,
    "sklearn.metrics._regression": inspect.isfunction,
    "sklearn.metrics._scorer": inspect.isclass,
    "sklearn.metrics.pairwise": inspect.isfunction,
    "sklearn.model_selection._split": inspect.isclass,
    "sklearn.neighbors._ball_tree": inspect.isclass,
    "sklearn.neighbors._kd_tree": inspect.isclass,
    "sklearn.neural_network._stochastic_optimizers": inspect.isclass,
}
"""Modules whose other members estimators hold by their settings (a kernel, a score, a metric, a way to split): classes
of numbers that do nothing when they are made, and functions from arrays to arrays.
"""
NOT_KNOWN = {
    "sklearn.metrics.pairwise.pairwise_distances": "starts processes by an argument",
    "sklearn.metrics.pairwise.pairwise_distances_chunked": "calls a function of the caller's choice",
    "sklearn.metrics.pairwise.pairwise_kernels": "calls a function of the caller's choice",
    "sklearn.metrics._dist_metrics.PyFuncDistance": "calls a function of the caller's choice",
    "sklearn.metrics._dist_metrics.PyFuncDistance32": "calls a function of the caller's choice",
    "sklearn.metrics._dist_metrics.PyFuncDistance64": "calls a function of the caller's choice",
    "sklearn.metrics._scorer.make_scorer": "gives an object that calls a function of the caller's choice",
}
"""Left out on purpose, and why. What calls a name that it is given must never be known."""
OWN_STATE = {
    "sklearn.base.BaseEstimator": "takes its attributes, and compares a version",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": "takes its attributes, and casts an array",
    "sklearn.linear_model._stochastic_gradient.BaseSGD": "takes its attributes, and makes a loss by its name",
    "sklearn.isotonic.IsotonicRegression": "takes its attributes, and makes a function from two arrays",
    "scipy.sparse._coo.coo_matrix": "takes its attributes, and names one anew",
    "sklearn.metrics._dist_metrics.": "takes arrays and numbers, compiled",
    "sklearn.neighbors._ball_tree.": "takes arrays and numbers, compiled",
    "sklearn.neighbors._kd_tree.": "takes arrays and numbers, compiled",
    "sklearn.utils._bunch.Bunch": "takes nothing",
    "lightgbm.basic.Booster": "parses a text",
    "numpy.ma.MaskedArray": "takes arrays",
    "numpy.generic": "takes numbers",
    "numpy.random.bit_generator.BitGenerator": "takes numbers",
    "numpy.random.bit_generator.SeedSequence": "takes numbers",
    "numpy.ndarray": "takes bytes or a list, as its type says",
    "xgboost.core.Booster": "parses bytes",
}
"""Classes, and modules of compiled ones, with a `__setstate__` of their own that was read, and what it does."""
HARMLESS_MODULES = ("builtins", "lightgbm.", "numpy", "scipy.interpolate.", "scipy.sparse.", "sklearn.", "xgboost.")
HARMLESS = {"scipy._lib.array_api_compat.numpy._aliases.asarray": "gives an array"}


def needed(cls: Any) -> Iterator[dict[str, Any]]:
    """Arguments that an estimator cannot be made without."""
    given = {
        "estimator": (LogisticRegression(), Ridge()),
        "base_estimator": (LogisticRegression(), Ridge()),
        "estimators": ([("a", LogisticRegression())] * 1, [("a", Ridge())]),
        "transformers": ([("a", StandardScaler(), [0, 1])],) * 2,
        "transformer_list": ([("a", StandardScaler())],) * 2,
        "steps": ([("a", StandardScaler()), ("b", LogisticRegression())],) * 2,
        "param_grid": ({"C": [1.0]}, {"alpha": [1.0]}),
        "param_distributions": ({"C": [1.0]}, {"alpha": [1.0]}),
        "dictionary": (np.eye(4),) * 2,
    }
    parameters = inspect.signature(cls.__init__).parameters.values()
    names = [item.name for item in parameters if item.default is item.empty and item.name in given]
    yield {name: given[name][0] for name in names}
    yield {name: given[name][1] for name in names}


def fitted() -> Iterator[tuple[str, Any]]:
    """Every estimator, fitted on the first of some data that it takes; as it is made, where it takes none of them."""
    import lightgbm
    import xgboost

    rows, labels = make_classification(60, 4, random_state=1)
    counts = np.abs(rows)
    words = ["good morning", "good evening", "fine morning"] * 20
    groups: dict[str, Any] = {"n_estimators": 2}
    data: tuple[tuple[Any, ...], ...] = (
        (rows, labels),
        (counts, labels),
        (counts, labels + 1.5),
        (words, None),
        (labels,),
        (labels, labels),
        (np.c_[labels, labels], None),
        (counts, np.c_[labels, 1 - labels]),
        ([{"a": 1}, {"b": 2}], None),
        ([["a"], ["b"]],),
        (np.linspace(0, 1, 60), np.linspace(0, 1, 60)),
        (rows @ rows.T,),
        (np.zeros((60, 4000)),),
        (rows, np.where(np.arange(60) % 2, labels, -1)),
    )
    for name, cls in all_estimators():
        for arguments in needed(cls):
            for one in data:
                try:
                    yield name, cls(**arguments).fit(*one)
                    break
                except Exception:  # noqa: BLE001, S112  it does not take these
                    continue
            else:
                continue
            break
        else:
            print(f"{name} fits nothing that is here", file=sys.stderr)
    for cls in (lightgbm.LGBMClassifier, lightgbm.LGBMRegressor, lightgbm.LGBMRanker):
        sizes = {"group": [30, 30]} if cls is lightgbm.LGBMRanker else {}
        made = cls(verbose=-1, **groups).fit(rows, labels, **sizes)
        yield cls.__name__, made
        yield f"{cls.__name__}.booster_", made.booster_
    for name in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker"):
        sizes = {"group": [30, 30]} if name == "XGBRanker" else {}
        made = getattr(xgboost, name)(**groups).fit(rows, labels, **sizes)
        yield name, made
        yield f"{name}.get_booster()", made.get_booster()


def dumps(value: Any) -> Iterator[bytes]:
    """A value as pickle writes it by each protocol, and as joblib does."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps(value, protocol)
        joblib.dump(value, stream := io.BytesIO(), protocol=protocol)
        yield stream.getvalue()


def members() -> Iterator[Name]:
    """What estimators hold by their settings."""
    for module, kind in SPACES.items():
        try:
            found = vars(import_module(module))
        except ImportError:
            continue
        for name, item in found.items():
            if kind(item) and item.__module__ in (module, "scipy.sparse") and f"{module}.{name}" not in NOT_KNOWN:
                yield Name(module, name)
    for name, cls in all_estimators():
        yield Name(cls.__module__, name)


def object_of(name: Name) -> Any:
    found = import_module(name.module)
    for part in name.name.split("."):
        found = getattr(found, part)
    return found


def refuse(names: set[Name], called: set[Name]) -> None:
    """End with an error where something has to be read by a person first."""
    told = [f"{name} is called with arguments" for name in sorted(called - CALLED - MAKERS)]
    for name in sorted(names):
        if not name.module.startswith(HARMLESS_MODULES) and str(name) not in HARMLESS:
            told.append(f"{name} is of another library")
        own = next((base for base in getattr(object_of(name), "__mro__", ()) if "__setstate__" in vars(base)), None)
        where = f"{own.__module__}." if own else ""
        if own and where not in OWN_STATE and where + own.__qualname__ not in OWN_STATE:
            told.append(f"{name} sets its state by {where}{own.__qualname__}")
    if told:
        sys.exit("\n".join([*told, "read these, and add them to a table of this script or of allowlist.py"]))


def main() -> None:
    warnings.simplefilter("ignore")
    names, called, count = set(members()), set[Name](), 0
    for name, value in fitted():
        count += 1
        for data in dumps(value):
            seen = walk(data, arrays=True)
            if seen.odd_calls or seen.tricks:
                print(f"{name}: {sorted(map(str, seen.odd_calls))} {seen.tricks}", file=sys.stderr)
            names |= seen.imported
            called |= seen.called
    names -= CALLED | MAKERS | WRAPPERS
    refuse(names, called)
    import lightgbm
    import sklearn
    import xgboost

    modules = {"scikit-learn": sklearn, "LightGBM": lightgbm, "XGBoost": xgboost}
    versions = {f"{title} {module.__version__}" for title, module in modules.items()}
    versions |= {item for item in VERSIONS.split(", ") if item}
    tables = defaultdict[str, set[str]](set)
    for line in KNOWN.strip().splitlines():
        module, *before = line.split()
        tables[module] |= set(before)
    for one in names:
        tables[one.module].add(one.name)
    lines = "\n".join(" ".join([module, *sorted(tables[module])]) for module in sorted(tables))
    TARGET.write_text(HEAD.format(versions=", ".join(sorted(versions)), lines=lines))
    print(f"{TARGET}: {count} estimators, {sum(map(len, tables.values()))} names", file=sys.stderr)


if __name__ == "__main__":
    main()
