"""Opens a store for writing, and writes changes to it: what each kind of them does is registered by the module of
its noun.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_compliance.changes import Change, CopyRun, LogProductionRun, RewriteLocations, dump
from mlflow_compliance.changes.base import texts_in
from mlflow_compliance.changes.symbols import unmade
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.store.storage.http_errors import refusal
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write import (  # noqa: F401  imported to be registered
    artifacts,
    copies,
    effects,
    experiments,
    locations,
    metric_files,
    owner_notes,
    production,
    registry,
    runs,
    signatures,
)
from mlflow_compliance.store.write.errors import one_sentence


class StoreWriter(effects.OpenStore):
    """Writes changes to one store. Every failure is a ChangeError; a store that is gone is a StoreError."""

    def __init__(self, store: Store, binding: dict[str, str]) -> None:
        # Whatever MLflow has to say of a failure is in the exception; its log would add a traceback.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL + 1)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        # It would print the address of every run that ends, with the password that a URI may hold.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        store.backend.refuse_other_schema()
        self.store = store
        self.binding = binding
        if not store.backend.rows:
            return
        self.reach()
        try:
            with warnings.catch_warnings():
                # MLflow's own models make SQLAlchemy warn; a user can do nothing about it.
                warnings.simplefilter("ignore")
                self.client = MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
                # The first call opens the database.
                self.client.search_experiments(max_results=1)
        except (MlflowException, OSError) as error:
            raise StoreError(
                f"the store {store.info.uri} cannot be opened for writing: {refusal(error, store.uri)}"
            ) from error

    def reach(self) -> None:
        """Raise StoreError where the store cannot be reached, or not be written to."""
        self.store.backend.reach()

    def write(self, change: Change) -> None:
        if not isinstance(change, LogProductionRun | RewriteLocations):  # it makes all of its own; it holds none
            missing = unmade(texts_in(dump(change)), self.binding)
            if missing:
                raise ChangeError(f"it builds on the {missing.strip('⟨⟩')}, which was not made")
        effects.write(change, self)

    def inverse(self, change: Change) -> Change | None:
        return effects.inverse(change, self)

    def write_together(self, changes: Sequence[CopyRun]) -> list[dict[str, str]]:
        with one_sentence("the runs could not be copied together"):
            wanted = [
                (change.run_id, change.experiment_id, copies.new_tags(change, self), change.datasets)
                for change in changes
            ]
            made = copies.RunCopier(self.client, self.store).copy_together(wanted)
        for bound in made:
            self.binding.update(bound)
        return made
