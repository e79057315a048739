"""Policy as tests for MLflow stores: the public names."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would be imported for nothing
if TYPE_CHECKING:
    from mlflow_compliance.audit.check import RunReport, check_run
    from mlflow_compliance.loader.load import find_production_model, load_production_model
    from mlflow_compliance.loader.model import ProductionModel
    from mlflow_compliance.loader.resolve_artifact import resolve_artifact

    __version__: str

if __path__[0].endswith("/src/mlflow_compliance"):
    # An editable install: `policies` and `fixers` lie beside `src`, where the wheel has them in this package.
    __path__.append(__path__[0][: -len("/src/mlflow_compliance")])

__all__ = [
    "ProductionModel",
    "RunReport",
    "check_run",
    "find_production_model",
    "load_production_model",
    "resolve_artifact",
]


def __getattr__(name: str) -> object:
    # pytest imports this package in every session: MLflow is imported by those who load a model.
    if name == "__version__":
        from importlib.metadata import version

        return version("pytest-mlflow-compliance")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("RunReport", "check_run"):
        from mlflow_compliance.audit import check

        return getattr(check, name)
    if name == "resolve_artifact":
        from mlflow_compliance.loader.resolve_artifact import resolve_artifact

        return resolve_artifact
    from mlflow_compliance.loader import load

    return getattr(load, name)
