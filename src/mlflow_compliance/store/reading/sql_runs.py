"""Reads runs, and the logged models that they wrote, in full by SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from mlflow_compliance.entities import (
    DELETED,
    NAN,
    TERMINAL_STATUSES,
    DatasetInput,
    LoggedModel,
    MetricPoint,
    ModelLink,
    ModelMetric,
    Run,
)
from mlflow_compliance.scope import RETRACTED
from mlflow_compliance.store.reading.common import sorted_points
from mlflow_compliance.store.reading.tables import Tables

MODEL_STATUS = {0: "UNSPECIFIED", 1: "PENDING", 2: "READY", 3: "FAILED"}


class RunReader:
    """Brings in everything that the tables hold about some runs."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def runs(self, ids: Collection[str]) -> dict[str, Run]:
        """The runs that are there; copies that were taken back are not."""
        params = self._pairs("params", ids)
        tags = self._pairs("tags", ids)
        metrics: dict[str, dict[str, list[MetricPoint]]] = defaultdict(lambda: defaultdict(list))
        for run_id, key, value, timestamp, step, is_nan in self.tables.within(
            "SELECT run_uuid, metrics.key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid IN :ids", ids
        ):
            metrics[run_id][key].append(MetricPoint(NAN if is_nan else value, timestamp, step))
        datasets, links = self._datasets(ids), self._links(ids)
        found = {}
        for run_id, experiment_id, name, status, lifecycle, start, end, user, uri in self.tables.within(
            "SELECT run_uuid, experiment_id, name, status, lifecycle_stage, start_time, end_time, user_id, artifact_uri FROM runs "
            "WHERE run_uuid IN :ids",
            ids,
        ):
            if lifecycle == DELETED and tags[run_id].get("compliance.copy") == RETRACTED:
                continue
            found[run_id] = Run(
                run_id=run_id,
                experiment_id=str(experiment_id),
                name=name or tags[run_id].get("mlflow.runName", ""),
                status=status,
                lifecycle=lifecycle,
                start_time=start,
                end_time=end if status in TERMINAL_STATUSES else None,
                user=user or "",
                artifact_uri=uri or "",
                params=params[run_id],
                tags=tags[run_id],
                metrics={key: sorted_points(points) for key, points in metrics[run_id].items()},
                datasets=tuple(sorted(datasets[run_id])),
                models=tuple(sorted(links[run_id])),
            )
        return found

    def _pairs(self, table: str, ids: Collection[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for run_id, key, value in self.tables.within(f"SELECT run_uuid, {table}.key, value FROM {table} WHERE run_uuid IN :ids", ids):
            found[run_id][key] = value or ""
        return found

    def _datasets(self, ids: Collection[str]) -> dict[str, list[DatasetInput]]:
        found: dict[str, list[DatasetInput]] = defaultdict(list)
        if "datasets" not in self.tables.columns:
            return found
        rows = list(
            self.tables.within(
                "SELECT inputs.destination_id, inputs.input_uuid, name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile "
                "FROM inputs JOIN datasets ON datasets.dataset_uuid = inputs.source_id "
                "WHERE inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN' AND inputs.destination_id IN :ids",
                ids,
            )
        )
        tags: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for input_id, key, value in self.tables.within(
            "SELECT input_uuid, name, value FROM input_tags WHERE input_uuid IN :ids", {row[1] for row in rows}
        ):
            tags[input_id].append((key, value))
        for run_id, input_id, name, digest, kind, source, schema, profile in rows:
            found[run_id].append(DatasetInput(name, digest, kind, source, schema, profile, tuple(sorted(tags[input_id]))))
        return found

    def _links(self, ids: Collection[str]) -> dict[str, list[ModelLink]]:
        found: dict[str, list[ModelLink]] = defaultdict(list)
        if not self.tables.has("inputs", "step"):
            return found
        for run_id, kind, model_id, step in self.tables.within(
            "SELECT source_id, source_type, destination_id, step FROM inputs WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN :ids",
            ids,
        ):
            found[run_id].append(ModelLink("output" if kind == "RUN_OUTPUT" else "input", model_id, step if kind == "RUN_OUTPUT" else 0))
        return found

    def logged_models(self, runs: Collection[str]) -> dict[str, LoggedModel]:
        """The active logged models that these runs wrote."""
        if "logged_models" not in self.tables.columns:
            return {}
        rows = list(
            self.tables.within(
                "SELECT model_id, experiment_id, name, lifecycle_stage, status, source_run_id, artifact_location, model_type "
                "FROM logged_models WHERE lifecycle_stage = 'active' AND source_run_id IN :ids",
                runs,
            )
        )
        ids = {row[0] for row in rows}
        params: dict[str, dict[str, str]] = defaultdict(dict)
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        metrics: dict[str, list[ModelMetric]] = defaultdict(list)
        for model_id, key, value in self.tables.within(
            "SELECT model_id, param_key, param_value FROM logged_model_params WHERE model_id IN :ids", ids
        ):
            params[model_id][key] = value
        for model_id, key, value in self.tables.within("SELECT model_id, tag_key, tag_value FROM logged_model_tags WHERE model_id IN :ids", ids):
            tags[model_id][key] = value
        for model_id, key, value, timestamp, step, dataset, digest in self.tables.within(
            "SELECT model_id, metric_name, metric_value, metric_timestamp_ms, metric_step, dataset_name, dataset_digest "
            "FROM logged_model_metrics WHERE model_id IN :ids",
            ids,
        ):
            metrics[model_id].append(ModelMetric(key, NAN if value is None else value, timestamp, step, dataset or "", digest or ""))
        return {
            model_id: LoggedModel(
                model_id=model_id,
                experiment_id=str(experiment_id),
                name=name,
                lifecycle=lifecycle,
                status=MODEL_STATUS.get(status, str(status)),
                source_run_id=run_id or None,
                artifact_location=location,
                model_type=kind or "",
                params=params[model_id],
                tags=tags[model_id],
                metrics=tuple(sorted(metrics[model_id], key=lambda point: (point.key, point.timestamp, point.step))),
            )
            for model_id, experiment_id, name, lifecycle, status, run_id, location, kind in rows
        }
