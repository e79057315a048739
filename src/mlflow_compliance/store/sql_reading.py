"""Reads a Snapshot straight from MLflow's tables, read-only, in one short transaction; any schema since 2.x, as it is."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, inspect, text

from mlflow_compliance.entities import (
    ACTIVE,
    DELETED,
    NAN,
    TERMINAL_STATUSES,
    DatasetInput,
    EntityRef,
    Experiment,
    Location,
    LoggedModel,
    MetricPoint,
    ModelLink,
    ModelMetric,
    ModelVersion,
    RegisteredModel,
    Run,
    Snapshot,
    StoreInfo,
)
from mlflow_compliance.errors import StoreError
from mlflow_compliance.scope import RETRACTED, claims, primary_of, production_tags
from mlflow_compliance.settings import Settings
from mlflow_compliance.store.rows import Rows

CHUNK = 500
"""Ids in one IN list: SQLite's oldest limit on parameters is 999."""
MODEL_HISTORY = "mlflow.log-model.history"
"""Tag in which a run records the models that it logged, before logged models were entities."""
IS_PROMPT = "mlflow.prompt.is_prompt"
"""Tag of a registered 'model' that is a prompt: MLflow keeps both in the same tables."""
_MODEL_STATUS = {0: "UNSPECIFIED", 1: "PENDING", 2: "READY", 3: "FAILED"}


class SqlReader:
    """Reads one store over an open connection that cannot write. `workspace` limits it to the caller's."""

    def __init__(self, connection: Connection, workspace: str = "default") -> None:
        self.connection = connection
        schema = inspect(connection)
        self.columns = {table: {column["name"] for column in schema.get_columns(table)} for table in schema.get_table_names()}
        missing = {"experiments", "runs", "tags", "params", "metrics", "experiment_tags"} - self.columns.keys()
        if missing:
            raise StoreError(f"the database holds no MLflow store: it has no table {min(missing)!r}; check the tracking URI")
        self.workspace = workspace

    def read(self, info: StoreInfo, settings: Settings, also: Collection[str] = ()) -> tuple[Snapshot, Rows]:
        """The store without its files, and where its rows say that the files lie. `also` are runs to bring in full besides those in scope."""
        schema = ""
        if "alembic_version" in self.columns:
            schema = ",".join(sorted(version for (version,) in self._all("SELECT version_num FROM alembic_version")))
        experiments = self._experiments()
        wanted = self._scope(settings, experiments) | set(also)
        runs = {key: run for key, run in self._runs(wanted).items() if run.experiment_id in experiments}
        models = self._logged_models(runs)
        registry = self._registered_models()
        snapshot = Snapshot(
            info=replace(info, schema=schema, workspace=self.workspace if self._has("experiments", "workspace") else ""),
            taken_at=int(time.time() * 1000),
            experiments=experiments,
            runs=runs,
            logged_models=models,
            registered_models=registry,
        )
        return snapshot, self._rows(experiments, registry)

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        """Runs in full and the active logged models that they wrote."""
        runs = self._runs(run_ids)
        return runs, self._logged_models(runs)

    def _has(self, table: str, column: str) -> bool:
        return column in self.columns.get(table, ())

    def _all(self, sql: str, **values: Any) -> Sequence[Any]:
        return self.connection.execute(text(sql), values).fetchall()

    def _in(self, sql: str, ids: Iterable[str], **values: Any) -> Iterator[Any]:
        """Rows of a query with `IN :ids`, for any number of ids."""
        statement = text(sql).bindparams(bindparam("ids", expanding=True))
        ordered = sorted(ids)
        for start in range(0, len(ordered), CHUNK):
            yield from self.connection.execute(statement, {"ids": ordered[start : start + CHUNK], **values})

    def _workspace(self, table: str) -> str:
        """A condition that keeps a query inside the caller's workspace."""
        return "workspace = :workspace" if self._has(table, "workspace") else ":workspace = :workspace"

    def _experiments(self) -> dict[str, Experiment]:
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        for key, value, experiment_id in self._all("SELECT key, value, experiment_id FROM experiment_tags"):
            tags[str(experiment_id)][key] = value or ""
        counts: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
        for experiment_id, lifecycle, status, number in self._all(
            "SELECT experiment_id, lifecycle_stage, status, COUNT(*) FROM runs GROUP BY experiment_id, lifecycle_stage, status"
        ):
            counts[str(experiment_id)][lifecycle, status] = number
        for experiment_id, lifecycle, status in self._retracted_runs():
            left = counts[experiment_id][lifecycle, status] - 1
            counts[experiment_id][lifecycle, status] = left
            if not left:
                del counts[experiment_id][lifecycle, status]
        deleted: dict[str, list[str]] = defaultdict(list)
        for run_id, experiment_id in self._all(
            "SELECT run_uuid, experiment_id FROM runs WHERE lifecycle_stage = 'deleted' AND NOT EXISTS "
            "(SELECT 1 FROM tags WHERE tags.run_uuid = runs.run_uuid AND tags.key = 'compliance.copy' AND tags.value = :retracted)",
            retracted=RETRACTED,
        ):
            deleted[str(experiment_id)].append(run_id)
        assessed, traces, loose = self._assessed_runs(), self._traces(), self._loose_models()
        found = {}
        for experiment_id, name, location, lifecycle in self._all(
            f"SELECT experiment_id, name, artifact_location, lifecycle_stage FROM experiments WHERE {self._workspace('experiments')}",
            workspace=self.workspace,
        ):
            key = str(experiment_id)
            found[key] = Experiment(
                experiment_id=key,
                name=name,
                lifecycle=lifecycle,
                artifact_location=location or "",
                tags=tags[key],
                runs=counts[key],
                deleted_runs=tuple(sorted(deleted[key])) if lifecycle == ACTIVE else (),
                traces=traces.get(key, 0),
                loose_models=loose.get(key, 0),
                assessed_runs=assessed.get(key, 0),
            )
        return found

    def _retracted_runs(self) -> list[tuple[str, str, str]]:
        return [
            (str(experiment_id), lifecycle, status)
            for experiment_id, lifecycle, status in self._all(
                "SELECT experiment_id, lifecycle_stage, status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
                "WHERE tags.key = 'compliance.copy' AND tags.value = :retracted AND lifecycle_stage = 'deleted'",
                retracted=RETRACTED,
            )
        ]

    def _traces(self) -> dict[str, int]:
        if "trace_info" not in self.columns:
            return {}
        return {str(key): number for key, number in self._all("SELECT experiment_id, COUNT(*) FROM trace_info GROUP BY experiment_id")}

    def _loose_models(self) -> dict[str, int]:
        if "logged_models" not in self.columns:
            return {}
        rows = self._all(
            "SELECT logged_models.experiment_id, COUNT(*) FROM logged_models LEFT JOIN runs "
            "ON runs.run_uuid = logged_models.source_run_id AND runs.experiment_id = logged_models.experiment_id "
            "WHERE logged_models.lifecycle_stage = 'active' AND runs.run_uuid IS NULL GROUP BY logged_models.experiment_id"
        )
        return {str(key): number for key, number in rows}

    def _assessed_runs(self) -> dict[str, int]:
        """Active runs with assessments, by experiment: MLflow ties them by text in `assessment_metadata`."""
        if not self._has("assessments", "assessment_metadata"):
            return {}
        named = '%"mlflow.assessment.sourceRunId"%'
        ids = {
            _source_run(metadata)
            for (metadata,) in self._all("SELECT assessment_metadata FROM assessments WHERE assessment_metadata LIKE :named", named=named)
        }
        counts: dict[str, int] = defaultdict(int)
        for (experiment_id,) in self._in("SELECT experiment_id FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN :ids", ids - {""}):
            counts[str(experiment_id)] += 1
        return dict(counts)

    def _scope(self, settings: Settings, experiments: Mapping[str, Experiment]) -> set[str]:
        """Ids of the runs to bring in full: production runs, runs to be merged, earlier copies, runs that are still RUNNING."""
        tagged: list[tuple[str, str, str]] = []
        wanted: set[str] = set()
        for key, value in sorted(production_tags(settings)):
            for run_id, experiment_id in self._all(
                "SELECT runs.run_uuid, runs.experiment_id FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid "
                "WHERE tags.key = :key AND tags.value = :value AND runs.lifecycle_stage = 'active'",
                key=key,
                value=value,
            ):
                tagged.append((str(experiment_id), key, value))
                wanted.add(run_id)
        for (run_id,) in self._all(
            "SELECT runs.run_uuid FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid "
            "WHERE tags.key = 'compliance.source_run_id' AND runs.lifecycle_stage = 'active'"
        ):
            wanted.add(run_id)
        wanted |= {run_id for (run_id,) in self._all("SELECT run_uuid FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = 'active'")}
        found = claims(settings, experiments, tagged)
        for product in settings.products:
            ids = {claim.experiment_id for claim in found if claim.product == product.name}
            primary = primary_of(product, experiments, ids)
            rivals = ids - {primary} if primary and len(ids) > 1 else set()
            wanted |= {
                run_id for (run_id,) in self._in("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' AND experiment_id IN :ids", rivals)
            }
        return wanted

    def _runs(self, ids: Collection[str]) -> dict[str, Run]:
        params = self._pairs("params", ids)
        tags = self._pairs("tags", ids)
        metrics: dict[str, dict[str, list[MetricPoint]]] = defaultdict(lambda: defaultdict(list))
        for run_id, key, value, timestamp, step, is_nan in self._in(
            "SELECT run_uuid, key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid IN :ids", ids
        ):
            metrics[run_id][key].append(MetricPoint(NAN if is_nan else value, timestamp, step))
        datasets, links = self._datasets(ids), self._links(ids)
        found = {}
        for run_id, experiment_id, name, status, lifecycle, start, end, user, uri in self._in(
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
        for run_id, key, value in self._in(f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid IN :ids", ids):
            found[run_id][key] = value or ""
        return found

    def _datasets(self, ids: Collection[str]) -> dict[str, list[DatasetInput]]:
        found: dict[str, list[DatasetInput]] = defaultdict(list)
        if "datasets" not in self.columns:
            return found
        rows = list(
            self._in(
                "SELECT inputs.destination_id, inputs.input_uuid, name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile "
                "FROM inputs JOIN datasets ON datasets.dataset_uuid = inputs.source_id "
                "WHERE inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN' AND inputs.destination_id IN :ids",
                ids,
            )
        )
        tags: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for input_id, key, value in self._in("SELECT input_uuid, name, value FROM input_tags WHERE input_uuid IN :ids", {row[1] for row in rows}):
            tags[input_id].append((key, value))
        for run_id, input_id, name, digest, kind, source, schema, profile in rows:
            found[run_id].append(DatasetInput(name, digest, kind, source, schema, profile, tuple(sorted(tags[input_id]))))
        return found

    def _links(self, ids: Collection[str]) -> dict[str, list[ModelLink]]:
        found: dict[str, list[ModelLink]] = defaultdict(list)
        if not self._has("inputs", "step"):
            return found
        for run_id, kind, model_id, step in self._in(
            "SELECT source_id, source_type, destination_id, step FROM inputs WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN :ids",
            ids,
        ):
            found[run_id].append(ModelLink("output" if kind == "RUN_OUTPUT" else "input", model_id, step if kind == "RUN_OUTPUT" else 0))
        return found

    def _logged_models(self, runs: Collection[str]) -> dict[str, LoggedModel]:
        if "logged_models" not in self.columns:
            return {}
        rows = list(
            self._in(
                "SELECT model_id, experiment_id, name, lifecycle_stage, status, source_run_id, artifact_location, model_type "
                "FROM logged_models WHERE lifecycle_stage = 'active' AND source_run_id IN :ids",
                runs,
            )
        )
        ids = {row[0] for row in rows}
        params: dict[str, dict[str, str]] = defaultdict(dict)
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        metrics: dict[str, list[ModelMetric]] = defaultdict(list)
        for model_id, key, value in self._in("SELECT model_id, param_key, param_value FROM logged_model_params WHERE model_id IN :ids", ids):
            params[model_id][key] = value
        for model_id, key, value in self._in("SELECT model_id, tag_key, tag_value FROM logged_model_tags WHERE model_id IN :ids", ids):
            tags[model_id][key] = value
        for model_id, key, value, timestamp, step, dataset, digest in self._in(
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
                status=_MODEL_STATUS.get(status, str(status)),
                source_run_id=run_id or None,
                artifact_location=location,
                model_type=kind or "",
                params=params[model_id],
                tags=tags[model_id],
                metrics=tuple(sorted(metrics[model_id], key=lambda point: (point.key, point.timestamp, point.step))),
            )
            for model_id, experiment_id, name, lifecycle, status, run_id, location, kind in rows
        }

    def _registered_models(self) -> dict[str, RegisteredModel]:
        if "registered_models" not in self.columns:
            return {}
        here = {"workspace": self.workspace}
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        aliases: dict[str, dict[str, str]] = defaultdict(dict)
        version_tags: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        versions: dict[str, list[ModelVersion]] = defaultdict(list)
        for name, key, value in self._all(
            f"SELECT name, key, value FROM registered_model_tags WHERE {self._workspace('registered_model_tags')}", **here
        ):
            tags[name][key] = value or ""
        if "registered_model_aliases" in self.columns:
            for name, alias, version in self._all(
                f"SELECT name, alias, version FROM registered_model_aliases WHERE {self._workspace('registered_model_aliases')}",
                **here,
            ):
                aliases[name][alias] = str(version)
        for name, version, key, value in self._all(
            f"SELECT name, version, key, value FROM model_version_tags WHERE {self._workspace('model_version_tags')}",
            **here,
        ):
            version_tags[name, str(version)][key] = value or ""
        location = "storage_location" if self._has("model_versions", "storage_location") else "NULL"
        for name, version, run_id, source, stored, status, stage in self._all(
            f"SELECT name, version, run_id, source, {location}, status, current_stage FROM model_versions "
            f"WHERE {self._workspace('model_versions')} AND current_stage <> 'Deleted_Internal' ORDER BY version",
            **here,
        ):
            tagged = version_tags[name, str(version)]
            facts = ModelVersion(name, str(version), run_id or None, source or "", stored or source or "", status or "", stage or "None", tagged)
            versions[name].append(facts)
        homes = self._homes(version for found in versions.values() for version in found)
        versions.update({name: [replace(item, experiment_id=home_of(item, homes)) for item in found] for name, found in versions.items()})
        return {
            name: RegisteredModel(name, tags[name], aliases[name], tuple(versions[name]))
            for (name,) in self._all(f"SELECT name FROM registered_models WHERE {self._workspace('registered_models')}", **here)
            if IS_PROMPT not in tags[name]
        }

    def _homes(self, versions: Iterable[ModelVersion]) -> dict[str, str]:
        """Id of a run or logged model that a version comes from -> its experiment."""
        ids = {key for version in versions for key in sources_of(version)}
        homes = {run_id: str(key) for run_id, key in self._in("SELECT run_uuid, experiment_id FROM runs WHERE run_uuid IN :ids", ids)}
        if "logged_models" in self.columns:
            homes |= {key: str(home) for key, home in self._in("SELECT model_id, experiment_id FROM logged_models WHERE model_id IN :ids", ids)}
        return homes

    def _rows(self, experiments: Mapping[str, Experiment], registry: Mapping[str, RegisteredModel]) -> Rows:
        locations = [Location(item.ref, key, item.artifact_location) for key, item in experiments.items()]
        homes: dict[str, tuple[str, str]] = {}
        for run_id, experiment_id, uri in self._all("SELECT run_uuid, experiment_id, artifact_uri FROM runs"):
            if str(experiment_id) in experiments:
                locations.append(Location(EntityRef("run", run_id), str(experiment_id), uri or ""))
                homes[run_id] = (str(experiment_id), uri or "")
        for run_id, value in self._all(
            "SELECT runs.run_uuid, tags.value FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid "
            "WHERE tags.key = :history AND runs.lifecycle_stage = 'active'",
            history=MODEL_HISTORY,
        ):
            home = homes.get(run_id)
            if home:
                locations += model_places(run_id, *home, value)
        ready = set()
        if "logged_models" in self.columns:
            for model_id, experiment_id, uri, status, lifecycle in self._all(
                "SELECT model_id, experiment_id, artifact_location, status, lifecycle_stage FROM logged_models"
            ):
                if str(experiment_id) in experiments:
                    locations.append(Location(EntityRef("logged_model", model_id), str(experiment_id), uri))
                    if lifecycle != DELETED and _MODEL_STATUS.get(status) == "READY":
                        ready.add(model_id)
        for model in registry.values():
            locations += [Location(version.ref, version.experiment_id, version.location) for version in model.versions]
        return Rows(tuple(locations), frozenset(ready))


def model_places(run_id: str, experiment_id: str, uri: str, history: str) -> list[Location]:
    """Where a run's own record says that it logged models (before MLflow 3): there must be something there."""
    try:
        paths = {str(entry["artifact_path"]) for entry in json.loads(history)}
    except (ValueError, TypeError, KeyError):
        return []
    return [Location(EntityRef("run_model", f"{run_id}/{path}"), experiment_id, f"{uri}/{path}") for path in sorted(paths) if path and uri]


def sources_of(version: ModelVersion) -> tuple[str, ...]:
    """The ids that a version names as where it comes from: its run, and the logged model or run in its source."""
    scheme, _, rest = version.source.partition(":/")
    named = rest.strip("/").split("/")[0] if scheme == "runs" or rest.startswith("m-") else ""
    return tuple(key for key in (version.run_id or "", named) if key)


def home_of(version: ModelVersion, homes: Mapping[str, str]) -> str:
    """The experiment of a version's source, empty where that is gone."""
    return next((homes[key] for key in sources_of(version) if key in homes), "")


def sorted_points(points: Iterable[MetricPoint]) -> tuple[MetricPoint, ...]:
    """A history in a stable order; NaN, which has no order, goes by its text."""
    return tuple(sorted(points, key=lambda point: (point.timestamp, point.step, str(point.value))))


def _source_run(metadata: str) -> str:
    try:
        return str(json.loads(metadata).get("mlflow.assessment.sourceRunId", ""))
    except (ValueError, AttributeError):
        return ""
