"""What an MLmodel has MLflow import, call and read when its folder is loaded, and which of that is not known to be
harmless.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.snapshot.tags import EXTERNAL
from mlflow_compliance.store.models.allowlist import MADE, Name
from mlflow_compliance.store.models.mlmodel import named_files
from mlflow_compliance.store.models.problems import UNKNOWN, Problem, named_problems, shown
from mlflow_compliance.store.models.skops_scan import trust_problems
from mlflow_compliance.store.storage.parsing import refuse_costly_yaml

_LARGEST = 1 << 20
_MOST_ITEMS = 100_000
_PYFUNC = "python_function"
_LOADERS = {
    "mlflow.catboost",
    "mlflow.lightgbm",
    "mlflow.onnx",
    "mlflow.pyfunc.loaders.code_model",
    "mlflow.pyfunc.model",
    "mlflow.sklearn",
    "mlflow.statsmodels",
    "mlflow.xgboost",
}
"""They read the files that MLmodel names, which are looked at one by one, and run no more than those hold."""
_FLAVORS = {_PYFUNC, *(loader.removeprefix("mlflow.") for loader in _LOADERS)}
_DATA = ("data", "model_data", "model_path", "pickled_model")
_DEFAULTS = {"pmdarima": "model.pmd", "statsmodels": "model.statsmodels"}
"""Flavors that unpickle, and the file that MLflow takes where they name none."""
_PICKLED = {"lightgbm", "sklearn", *_DEFAULTS}
_LOADERS_WAY_OUT = "in loaders under [models] if you know that it does"
_BOOSTERS = {Name("xgboost.sklearn", "XGBModel")}


@dataclass
class Description:
    """What one MLmodel says. Paths are relative to the folder that was scanned."""

    pickles: set[str] = field(default_factory=set)
    skops: set[str] = field(default_factory=set)
    code: set[str] = field(default_factory=set)
    """Files and folders of Python code."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, other: Description) -> None:
        """What another MLmodel names, too."""
        self.pickles |= other.pickles
        self.skops |= other.skops
        self.code |= other.code

    def brings(self, name: str) -> bool:
        """Whether a file is named as code, or lies in a folder that is."""
        parts = name.split(os.sep)
        return os.curdir in self.code or any(
            os.sep.join(parts[:count]) in self.code for count in range(1, len(parts) + 1)
        )


def describe(data: bytes, where: str, folders: Collection[str], rules: ModelSettings) -> Description:
    """What the MLmodel file at `where`, a relative path, says about the folder that it lies in; `folders` are those
    that were found.
    """
    found, file = Description(), shown(where)
    try:
        document = _parsed(data)
    except Exception:  # noqa: BLE001 - PyYAML lets errors of many kinds through; a model that cannot be described cannot be judged
        found.problems.append(Problem(f"{file}: cannot be read as an MLmodel, {UNKNOWN}"))
        return found
    flavors, metadata = document.get("flavors"), document.get("metadata")
    if flavors == {} and isinstance(metadata, dict) and metadata.get(EXTERNAL) is True:
        return found  # it is hosted elsewhere: nothing is loaded
    if not isinstance(flavors, dict) or not flavors or not all(isinstance(item, dict) for item in flavors.values()):
        found.problems.append(Problem(f"{file}: describes no flavors, {UNKNOWN}"))
        return found
    folder = os.path.dirname(where)
    for name, flavor in flavors.items():
        for path, pickled in _read_by(name, flavor, flavors):
            (found.pickles if pickled else found.skops).add(os.path.normpath(os.path.join(folder, path)))
        code = (flavor.get("code"), flavor.get("model_code_path"))
        found.code |= {os.path.normpath(os.path.join(folder, path)) for path in code if isinstance(path, str)}
    found.problems += _classes(flavors, file, rules)
    found.problems += (Problem(f"{file}: {problem}") for problem in _imports(flavors, rules))
    found.problems += (Problem(f"{file}: {problem}") for problem in _paths(document, flavors, folder, folders, rules))
    for flavor in flavors.values():
        found.problems += trust_problems(flavor.get("skops_trusted_types") or [], file, rules)
    return found


def _parsed(data: bytes) -> dict[Any, Any]:
    if len(data) > _LARGEST or data.count(b",") + data.count(b"\n") > _MOST_ITEMS:
        raise ValueError("too large")
    text = data.decode("utf-8")
    refuse_costly_yaml(text)
    if any(sign in text for sign in ("<<", "!")) and any(map(_merges, yaml.parse(text, Loader=yaml.SafeLoader))):
        raise ValueError("merges mappings")  # merges of merges take exponential time
    # The very parser that MLflow uses: another one may read a crafted file differently.
    document = yaml.safe_load(text)
    if not isinstance(document, dict):
        raise TypeError("no mapping")
    return document


def _merges(event: yaml.Event) -> bool:
    return isinstance(event, yaml.ScalarEvent) and (event.value == "<<" or event.tag == "tag:yaml.org,2002:merge")


def _imports(flavors: dict[Any, dict[Any, Any]], rules: ModelSettings) -> Iterator[str]:
    """What MLflow would import or call because a flavor names it."""
    for name in flavors:
        if name not in _FLAVORS and f"mlflow.{name}" not in rules.loaders:
            yield (
                f"the flavor {shown(name)} is not known to load data only: name mlflow.{shown(name)} {_LOADERS_WAY_OUT}"
            )
    loader = flavors.get(_PYFUNC, {}).get("loader_module")
    if _PYFUNC in flavors and (not isinstance(loader, str) or loader not in {*_LOADERS, *rules.loaders}):
        told = loader if isinstance(loader, str) else "loader_module"
        yield f"{shown(told)} is not known to load data only: name it {_LOADERS_WAY_OUT}"
    onnx = flavors.get("onnx", {})
    options = onnx.get("onnx_session_options")
    if not _is_texts(onnx.get("providers") or []) or (
        options and (not isinstance(options, dict) or options.get("extra_session_config"))
    ):
        yield f"gives options to ONNX Runtime, which may name libraries that it would load, {UNKNOWN}"


def _classes(flavors: dict[Any, dict[Any, Any]], file: str, rules: ModelSettings) -> Iterator[Problem]:
    """Classes that MLflow would import and call because a flavor names them."""
    model_class = flavors.get("xgboost", {}).get("model_class", "xgboost.core.Booster")
    module, _, short = model_class.rpartition(".") if isinstance(model_class, str) else ("", "", "model_class")
    if Name(module, short) not in MADE | _BOOSTERS or not module.startswith("xgboost."):
        yield from named_problems([Name(module, short)], f"{file}: ", rules.allowed_globals)


def _is_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _paths(
    document: dict[Any, Any],
    flavors: dict[Any, dict[Any, Any]],
    folder: str,
    folders: Collection[str],
    rules: ModelSettings,
) -> Iterator[str]:
    """Paths that lead elsewhere than to a file in this folder."""
    for path in sorted(set(named_files(flavors, document))):
        if (
            "\0" in path
            or os.path.isabs(path)
            or os.path.normpath(os.path.join(folder, path)).split(os.sep)[0] == os.pardir
        ):
            yield f"{shown(path)} leads out of the folder, {UNKNOWN}"
    pyfunc = flavors.get(_PYFUNC, {})
    loader = pyfunc.get("loader_module")
    if isinstance(loader, str) and loader in set(rules.loaders) - _LOADERS:
        return
    for named in map(pyfunc.get, _DATA):
        if not isinstance(named, str):
            continue
        place = os.path.normpath(os.path.join(folder, named))
        if "/" in named or named in (os.curdir, "") or place in folders:
            # MLflow looks for the MLmodel beside the data.
            yield (
                f"{shown(named)} is not a file in the folder itself, so that another MLmodel says how it is "
                f"read, {UNKNOWN}"
            )


def _read_by(name: Any, flavor: dict[Any, Any], flavors: dict[Any, dict[Any, Any]]) -> Iterator[tuple[str, bool]]:
    """Each file that a flavor unpickles (True) or loads with skops (False)."""
    conf, kind = flavor, name
    if name == _PYFUNC:
        yield from ((path, True) for path in [flavor.get("python_model")] if isinstance(path, str))
        loader = flavor.get("loader_module")
        kind = loader.removeprefix("mlflow.") if isinstance(loader, str) else None
        conf = flavors.get(kind, {})
    if kind not in _PICKLED:
        return
    if kind == "lightgbm" and conf.get("model_class", "lightgbm.basic.Booster") == "lightgbm.basic.Booster":
        return
    pickled = kind in _DEFAULTS or conf.get("serialization_format") != "skops"
    named = [path for path in map(flavor.get, _DATA) if isinstance(path, str)]
    if not named and name != _PYFUNC and kind in _DEFAULTS:
        named = [_DEFAULTS[kind]]
    yield from ((path, pickled) for path in named)
