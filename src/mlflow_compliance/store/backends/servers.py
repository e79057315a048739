"""Stores that are reached through MlflowClient: tracking servers, and databases of other kinds than SQLite."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from mlflow_compliance.entities import Snapshot, StoreInfo
from mlflow_compliance.errors import StoreError, first_line
from mlflow_compliance.settings import Settings
from mlflow_compliance.store.backends.base import Backend
from mlflow_compliance.store.locations import without_secrets
from mlflow_compliance.store.rows import Rows


@dataclass(frozen=True)
class ClientBackend(Backend):
    """Whatever MLflow can open."""

    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        return through_client(self.uri, self.info, self.settings, also)


def through_client(uri: str, info: StoreInfo, settings: Settings, also: Collection[str]) -> tuple[Snapshot, Rows]:
    """The store as MlflowClient gives it. Raises StoreError with what MLflow says of a failure, secrets cut out."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    from mlflow_compliance.store.client_reading import ClientReader

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        return ClientReader(MlflowClient(tracking_uri=uri)).read(info, settings, also)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        said = without_secrets(first_line(error), uri)
        raise StoreError(f"the store {info.uri} cannot be read through MLflow: {said}") from error
