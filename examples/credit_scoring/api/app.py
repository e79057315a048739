"""Serves the production model over HTTP: one call loads it, /predict scores with it, /reload changes it between two
requests.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from mlflow_compliance import ProductionModel, find_production_model, load_production_model
from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.loader.model import UnreachableError

FEATURES_FILE = Path(__file__).parents[1] / "features.txt"
LARGEST_BATCH = 1000
MOST_ERRORS = 200  # of one answer: a batch of rows without a single column would be told 189,000 times


@dataclass(frozen=True)
class ApiSettings:
    """Where the model comes from; see the README beside this file. `patience` in seconds for /health/mlflow."""

    tracking_uri: str | None = None
    config: str | None = None
    fallback: str | None = None
    record: str | None = None
    patience: float = 3.0

    @classmethod
    def from_environment(cls) -> ApiSettings:
        def named(name: str) -> str | None:
            return os.environ.get(name) or None

        return cls(
            named("MLFLOW_TRACKING_URI"),
            named("COMPLIANCE_CONFIG"),
            named("CREDIT_FALLBACK_MODEL"),
            named("CREDIT_MODEL_RECORD"),
        )


class Answer(BaseModel):
    """What was decided, and by what."""

    model_config = ConfigDict(protected_namespaces=())

    probability: float = Field(description="probability of default")
    decision: str | None = Field(
        description="'decline' from the threshold on, else 'approve'; null without a threshold"
    )
    threshold: float | None
    model_version: str | None
    run_id: str


class Answers(BaseModel):
    """One answer for each row, in their order."""

    predictions: list[Answer]


@dataclass(frozen=True)
class Loaded:
    """One loaded model and the shape of what may be asked of it. A request keeps the one that it began with."""

    model: ProductionModel
    one: type[BaseModel]
    many: type[BaseModel]
    loaded_at: str

    @classmethod
    def of(cls, model: ProductionModel) -> Loaded:
        rules = ConfigDict(strict=True, extra="forbid")
        number = Annotated[float, Field(allow_inf_nan=False)]
        value: Any = number | None if model.takes_missing else number
        # A column may have any name; a field of pydantic may not.
        columns: dict[str, Any] = {
            f"column{place}": (value, Field(alias=name)) for place, name in enumerate(model.features)
        }
        row = create_model("Row", __config__=rules, **columns)
        one = create_model("One", __config__=rules, features=(row, ...))
        rows = Annotated[list[row], Field(min_length=1, max_length=LARGEST_BATCH)]  # type: ignore[valid-type]
        many = create_model("Many", __config__=rules, rows=(rows, ...))
        return cls(model, one, many, datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def answers(self, body: dict[str, Any]) -> list[Answer]:
        """Raises ValidationError, which names what is missing, unknown or no number."""
        asked: Any = (self.many if "rows" in body else self.one).model_validate(body)
        rows = [list(row.model_dump().values()) for row in (asked.rows if "rows" in body else [asked.features])]
        frame = pd.DataFrame(rows, columns=list(self.model.features), dtype="float64")
        return [self._answer(probability) for probability in self.model.probabilities(frame)]

    def _answer(self, probability: float) -> Answer:
        threshold = self.model.threshold
        decision = None if threshold is None else "decline" if probability >= threshold else "approve"
        return Answer(
            probability=probability,
            decision=decision,
            threshold=threshold,
            model_version=self.model.version,
            run_id=self.model.run_id,
        )


@dataclass
class Service:
    """The model that serves now, or why there is none."""

    settings: ApiSettings
    loaded: Loaded | None = None
    problem: str = "nothing was loaded yet"
    """Why the last load failed, empty where it did not."""
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self) -> None:
        """Load anew beside the event loop, and only then put it in the old one's place. Raises ComplianceError and
        keeps the old one.
        """
        settings = self.settings
        async with self.loading:
            try:
                model = await asyncio.to_thread(
                    load_production_model,
                    tracking_uri=settings.tracking_uri,
                    config=settings.config,
                    # What serves came from MLflow, or stands in already: a file would be no better.
                    fallback=None if self.loaded else settings.fallback,
                    record=settings.record,
                )
            except ComplianceError as error:
                self.problem = str(error)
                raise
            self.loaded, self.problem = Loaded.of(model), ""

    def now(self) -> Loaded:
        if self.loaded is None:
            raise HTTPException(503, self.problem)
        return self.loaded

    def health(self) -> dict[str, Any]:
        loaded = self.now()
        model = loaded.model
        expected = FEATURES_FILE.read_text(encoding="utf-8").split()
        return {
            "status": "ok",
            "source": model.source,
            "model": model.uri,
            "run_id": model.run_id,
            "version": model.version,
            "threshold": model.threshold,
            "why": model.why,
            "loaded_at": loaded.loaded_at,
            "sha256": dict(model.sha256),
            "features": len(model.features),
            "unlike_features_txt": sorted(set(model.features) ^ set(expected)),
            "last_reload": self.problem or "ok",
        }

    async def mlflow(self) -> dict[str, Any]:
        """What MLflow says now. What serves does not depend on it."""
        settings = self.settings
        ask = asyncio.to_thread(
            find_production_model, tracking_uri=settings.tracking_uri, config=settings.config, timeout=settings.patience
        )
        try:
            found = await asyncio.wait_for(ask, 3 * settings.patience)
        except asyncio.TimeoutError:
            return _no_model(f"MLflow did not answer within {3 * settings.patience:g} s", reachable=False)
        except ComplianceError as error:
            return _no_model(str(error), reachable=not isinstance(error, UnreachableError))
        would_load = {
            "model": found.uri,
            "run_id": found.run_id,
            "version": found.version,
            "threshold": found.threshold,
        }
        model = self.loaded.model if self.loaded else None
        same = model is not None and (model.uri, model.run_id, model.version) == (
            found.uri,
            found.run_id,
            found.version,
        )
        return {"reachable": True, "why": found.why, "would_load": would_load, "is_loaded": same}


def _no_model(why: str, *, reachable: bool) -> dict[str, Any]:
    return {"reachable": reachable, "why": why, "would_load": None, "is_loaded": False}


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """The application; it starts also where nothing can be loaded, and then says why."""
    service = Service(settings or ApiSettings.from_environment())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await service.load()
        except ComplianceError as error:
            logging.getLogger("uvicorn.error").warning("no model was loaded: %s", error)
        yield

    app = FastAPI(title="Credit scoring", lifespan=lifespan)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input itself: it may hold what JSON cannot.
        problems = [{"where": list(item["loc"]), "problem": item["msg"]} for item in error.errors()]
        return JSONResponse({"detail": problems[:MOST_ERRORS], "problems": len(problems)}, 422)

    @app.exception_handler(ComplianceError)
    async def tell(_: Request, error: ComplianceError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 500)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return service.health()

    @app.get("/health/mlflow")
    async def health_of_mlflow() -> dict[str, Any]:
        return await service.mlflow()

    @app.post("/predict")
    def predict(body: dict[str, Any]) -> Answer | Answers:
        """`{"features": {name: number, ...}}`, or `{"rows": [{name: number, ...}, ...]}` for up to 1,000 at once."""
        loaded = service.now()
        try:
            answers = loaded.answers(body)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False)) from error
        return Answers(predictions=answers) if "rows" in body else answers[0]

    @app.post("/reload")
    async def reload() -> dict[str, Any]:
        if service.loading.locked():
            raise HTTPException(409, "the model is being loaded already")
        try:
            await service.load()
        except ComplianceError as error:
            raise HTTPException(503 if isinstance(error, UnreachableError) else 409, str(error)) from error
        return service.health()

    return app


app = create_app()
