"""The pickle that stands in for the production model while MLflow is away, and the record of what it must hold."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mlflow_compliance.errors import ChangeError, first_line
from mlflow_compliance.loader.model import (
    ModelError,
    ProductionModel,
    UnreachableError,
    features,
    refuse_problems,
    takes_missing,
)
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.models.scan import scan_file
from mlflow_compliance.store.storage.atomic_write import create, explained, staged, write_bytes
from mlflow_compliance.store.storage.safe_io import digest_of, opened

TEMPORARY_PREFIX = "mlflow-compliance-"


class _Record(BaseModel):
    """What the last load through MLflow found, kept for the day on which MLflow is away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str | None
    run_id: str
    version: str | None
    uri: str
    threshold: float | None
    features: tuple[str, ...]
    resolved_at: str


def with_record(path: str | Path, loaded: ProductionModel, pickled: str | None) -> ProductionModel:
    """Record a model and the SHA-256 (hex) of the pickle that it was built from; a record that cannot be written is
    told in `why`.
    """
    try:
        _write_record(os.path.abspath(path), loaded, pickled)
    except ChangeError as error:
        return replace(loaded, why=f"{loaded.why}; {error}")
    return loaded


def _write_record(path: str, loaded: ProductionModel, pickled: str | None) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    facts = _Record(
        sha256=pickled,
        run_id=loaded.run_id,
        version=loaded.version,
        uri=loaded.uri,
        threshold=loaded.threshold,
        features=loaded.features,
        resolved_at=now,
    )
    with explained(path, "could not be written"), staged(path) as temporary:
        with create(temporary) as file:
            write_bytes(file, facts.model_dump_json(indent=1).encode() + b"\n")
            os.fsync(file)
        os.replace(temporary, path)


def from_pickle(
    fallback: str, record: str | Path | None, settings: Settings, away: UnreachableError
) -> ProductionModel:
    """The pickle that stands in while MLflow is away. Nothing in it runs before its bytes are known to be those on
    record.
    """
    known = _read_record(fallback, record, away)
    what = f"the fallback {fallback}"
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder:
        try:
            path = shutil.copyfile(fallback, os.path.join(folder, os.path.basename(fallback)))
            with opened(path) as file:
                digest = digest_of(file, path)
        except OSError as error:
            raise ModelError(f"{away}; {what} cannot be read ({error.strerror}) either") from error
        if digest != known.sha256:
            raise ModelError(
                f"{away}; {what} has sha256 {digest[:16]} and not the recorded {str(known.sha256)[:16]}, so it "
                "was not loaded"
            )
        refuse_problems(f"{away}; {what}", scan_file(path, settings.models).problems)
        model = _unpickled(what, path)
    why = f"{away}; {what} stands in, which holds the model of run {known.run_id} as recorded at {known.resolved_at}"
    return ProductionModel(
        model,
        features(what, model),
        takes_missing(model),
        known.threshold,
        "fallback",
        known.uri,
        known.run_id,
        known.version,
        why,
        {os.path.basename(fallback): digest},
    )


def _read_record(fallback: str, record: str | Path | None, away: UnreachableError) -> _Record:
    try:
        known = _Record.model_validate_json(Path(record).read_bytes()) if record else None
    except FileNotFoundError:
        known = None
    except (OSError, ValidationError):
        raise ModelError(f"{away}; the record {record} cannot be read, so {fallback} was not loaded") from None
    if known is None or known.sha256 is None:
        raise ModelError(
            f"{away}; there is no record of what {fallback} must hold, so it was not loaded: a load through "
            "MLflow writes one"
        )
    return known


def _unpickled(what: str, path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return pickle.load(file)  # noqa: S301 - its bytes are those on record, and were scanned
    except Exception as error:
        raise ModelError(
            f"{what} cannot be loaded here ({type(error).__name__}: {first_line(error)}): install what the model needs"
        ) from error
