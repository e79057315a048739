"""What a client is shown of the lives of runs and logged models that are deleted or may have to be kept: no deleted
logged model, and not when a run was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow_compliance.production.holds import held_homes, holds_model, holds_run
from mlflow_compliance.production.service import shows_service, tag_names
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.entities import ACTIVE, DELETED, Experiment
from mlflow_compliance.snapshot.row_facts import RowFacts
from mlflow_compliance.snapshot.tags import RUN_NAME, SOURCE_MODEL
from mlflow_compliance.store.backends.listing import ModelRow, RunRow


@dataclass
class RowFactsListing:
    """Gathers them while runs and models pass by."""

    settings: Settings
    experiments: Mapping[str, Experiment]
    found: dict[tuple[str, str], RowFacts] = field(default_factory=dict)
    _homes: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._homes = held_homes(self.settings, self.experiments)

    def run(self, run: RunRow) -> None:
        """Before the models."""
        if not self.settings.retention.says_anything:
            return
        name = run.tags.get(RUN_NAME, "")
        if (
            run.lifecycle == DELETED
            or run.experiment_id in self._homes
            or shows_service(run.tags.items(), self.settings)
            or holds_run(self.settings, run.run_id, name)
        ):
            tags = {key: run.tags[key] for key in tag_names(self.settings) & run.tags.keys()}
            row = RowFacts("run", run.run_id, name, run.experiment_id, run.lifecycle, run.begun, tags=tags)
            self.found[row.ref.place] = row

    def model(self, model: ModelRow) -> None:
        if not self.settings.retention.says_anything:
            return
        if (
            model.experiment_id in self._homes
            or ("run", model.source_run_id) in self.found
            or model.source_model
            or holds_model(self.settings, model.model_id)
        ):
            row = RowFacts(
                "logged_model",
                model.model_id,
                model.name,
                model.experiment_id,
                ACTIVE,
                model.created,
                run_id=model.source_run_id,
                tags={SOURCE_MODEL: model.source_model} if model.source_model else {},
            )
            self.found[row.ref.place] = row
