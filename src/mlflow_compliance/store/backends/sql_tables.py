"""MLflow's tables over an open connection: which columns there are, and how they are asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, bindparam, inspect, text

from mlflow_compliance.errors import StoreError
from mlflow_compliance.snapshot.entities import (
    NAN,
    TERMINAL_STATUSES,
    DatasetInput,
    LoggedModel,
    MetricPoint,
    ModelLink,
    ModelMetric,
    ModelVersion,
    RegisteredModel,
    Run,
    is_retracted,
)
from mlflow_compliance.snapshot.tags import EXTERNAL, RUN_NAME
from mlflow_compliance.snapshot.ties import sources_of
from mlflow_compliance.store.backends.base import IS_PROMPT, home_of, sorted_points

CHUNK = 500
"""Ids in one IN list: SQLite's oldest limit on parameters is 999."""

_HERE = {"postgresql": "current_schema()", "mysql": "DATABASE()"}
"""What limits the catalogue of a server to the database at hand."""


def columns_of(connection: Connection) -> dict[str, set[str]]:
    """Table -> its columns. A server is asked once: reflecting would ask for each table."""
    here = _HERE.get(connection.dialect.name)
    if here is None:
        schema = inspect(connection)
        return {table: {column["name"] for column in schema.get_columns(table)} for table in schema.get_table_names()}
    found: dict[str, set[str]] = {}
    catalogue = f"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = {here}"
    for table, column in connection.exec_driver_sql(catalogue):
        found.setdefault(table, set()).add(column)
    return found


def within(connection: Connection, sql: str, ids: Iterable[Any], **values: Any) -> Iterator[Any]:
    """Rows of a query with `IN :ids`, for any number of ids."""
    statement = text(sql).bindparams(bindparam("ids", expanding=True))
    ordered = sorted(ids)
    for start in range(0, len(ordered), CHUNK):
        yield from connection.execute(statement, {"ids": ordered[start : start + CHUNK], **values})


class Tables:
    """Asks one database. `workspace` is the caller's; a schema from before workspaces holds one only."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        self.connection = connection
        self.workspace = workspace
        self.columns = columns_of(connection)
        missing = {"experiments", "runs", "tags", "params", "metrics", "experiment_tags"} - self.columns.keys()
        if missing:
            raise StoreError(
                f"the database holds no MLflow store: it has no table {min(missing)!r}; check the tracking URI"
            )

    def has(self, table: str, column: str) -> bool:
        return column in self.columns.get(table, ())

    def all(self, sql: str, **values: Any) -> Sequence[Any]:
        return self.connection.execute(text(sql), values).fetchall()

    def within(self, sql: str, ids: Iterable[Any], **values: Any) -> Iterator[Any]:
        """As the function `within`."""
        return within(self.connection, sql, ids, **values)

    def equals(self, table: str, column: str, other: str) -> str:
        """A condition that joins two tables. In a store that was converted in part MySQL refuses to compare columns
        of text as they stand.
        """
        text_of = self._collations.get((table, column))
        if text_of:
            other = f"CONVERT({other} USING {text_of[0]}) COLLATE {text_of[1]}"
        return f"{table}.{column} = {other}"

    @cached_property
    def _collations(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(table, column) -> character set and collation, of MySQL's columns of text."""
        if self.connection.dialect.name != "mysql":
            return {}
        sql = (
            "SELECT table_name, column_name, character_set_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE()"
        )
        return {(table, column): (charset, collation) for table, column, charset, collation in self.all(sql) if charset}

    def here(self, table: str) -> str:
        """A condition that keeps a query inside the caller's workspace."""
        return f"{table}.workspace = :workspace" if self.has(table, "workspace") else ":workspace = :workspace"


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
            "SELECT run_uuid, experiment_id, name, status, lifecycle_stage, start_time, end_time, user_id, "
            "artifact_uri FROM runs "
            "WHERE run_uuid IN :ids",
            ids,
        ):
            if is_retracted(lifecycle, tags[run_id]):
                continue
            found[run_id] = Run(
                run_id=run_id,
                experiment_id=str(experiment_id),
                name=name or tags[run_id].get(RUN_NAME, ""),
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
        for run_id, key, value in self.tables.within(
            f"SELECT run_uuid, {table}.key, value FROM {table} WHERE run_uuid IN :ids", ids
        ):
            found[run_id][key] = value or ""
        return found

    def _datasets(self, ids: Collection[str]) -> dict[str, list[DatasetInput]]:
        found: dict[str, list[DatasetInput]] = defaultdict(list)
        if "datasets" not in self.tables.columns:
            return found
        rows = list(
            self.tables.within(
                "SELECT inputs.destination_id, inputs.input_uuid, name, digest, dataset_source_type, "
                "dataset_source, dataset_schema, dataset_profile "
                "FROM inputs JOIN datasets ON datasets.dataset_uuid = inputs.source_id "
                "WHERE inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN' AND "
                "inputs.destination_id IN :ids",
                ids,
            )
        )
        tags: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for input_id, key, value in self.tables.within(
            "SELECT input_uuid, name, value FROM input_tags WHERE input_uuid IN :ids", {row[1] for row in rows}
        ):
            tags[input_id].append((key, value))
        for run_id, input_id, name, digest, kind, source, schema, profile in rows:
            found[run_id].append(
                DatasetInput(name, digest, kind, source, schema, profile, tuple(sorted(tags[input_id])))
            )
        return found

    def _links(self, ids: Collection[str]) -> dict[str, list[ModelLink]]:
        found: dict[str, list[ModelLink]] = defaultdict(list)
        if not self.tables.has("inputs", "step"):
            return found
        for run_id, kind, model_id, step in self.tables.within(
            "SELECT source_id, source_type, destination_id, step FROM inputs WHERE source_type IN ('RUN_INPUT', "
            "'RUN_OUTPUT') AND source_id IN :ids",
            ids,
        ):
            found[run_id].append(
                ModelLink("output" if kind == "RUN_OUTPUT" else "input", model_id, step if kind == "RUN_OUTPUT" else 0)
            )
        return found

    def logged_models(self, runs: Collection[str]) -> dict[str, LoggedModel]:
        """The active logged models that these runs wrote."""
        if "logged_models" not in self.tables.columns:
            return {}
        rows = list(
            self.tables.within(
                "SELECT model_id, experiment_id, name, lifecycle_stage, status, source_run_id, artifact_location, "
                "model_type "
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
        for model_id, key, value in self.tables.within(
            "SELECT model_id, tag_key, tag_value FROM logged_model_tags WHERE model_id IN :ids", ids
        ):
            tags[model_id][key] = value
        for model_id, key, value, timestamp, step, dataset, digest in self.tables.within(
            "SELECT model_id, metric_name, metric_value, metric_timestamp_ms, metric_step, dataset_name, "
            "dataset_digest "
            "FROM logged_model_metrics WHERE model_id IN :ids",
            ids,
        ):
            metrics[model_id].append(
                ModelMetric(key, NAN if value is None else value, timestamp, step, dataset or "", digest or "")
            )
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


class RegistryReader:
    """Brings in the registered models of the caller's workspace; prompts are none."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def registered_models(self) -> dict[str, RegisteredModel]:
        """Every one with its versions, tags and aliases, by name."""
        if "registered_models" not in self.tables.columns:
            return {}
        here = {"workspace": self.tables.workspace}
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        aliases: dict[str, dict[str, str]] = defaultdict(dict)
        version_tags: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        versions: dict[str, list[ModelVersion]] = defaultdict(list)
        for name, key, value in self.tables.all(
            "SELECT registered_models.name, registered_model_tags.key, value FROM "
            f"{self.of_models('registered_model_tags')}",
            **here,
        ):
            tags[name][key] = value or ""
        if "registered_model_aliases" in self.tables.columns:
            for name, alias, version in self.tables.all(
                f"SELECT registered_models.name, alias, version FROM {self.of_models('registered_model_aliases')}",
                **here,
            ):
                aliases[name][alias] = str(version)
        for name, version, key, value in self.tables.all(
            "SELECT registered_models.name, version, model_version_tags.key, value FROM "
            f"{self.of_models('model_version_tags')}",
            **here,
        ):
            version_tags[name, str(version)][key] = value or ""
        location, link = (
            name if self.tables.has("model_versions", name) else "NULL" for name in ("storage_location", "run_link")
        )
        for name, version, run_id, source, stored, status, stage, linked in self.tables.all(
            f"SELECT registered_models.name, version, run_id, source, {location}, status, current_stage, {link} FROM "
            f"{self.of_models('model_versions')} "
            "AND current_stage <> 'Deleted_Internal' ORDER BY version",
            **here,
        ):
            tagged = version_tags[name, str(version)]
            facts = ModelVersion(
                name,
                str(version),
                run_id or None,
                source or "",
                stored or source or "",
                status or "",
                stage or "None",
                tagged,
                run_link=linked or "",
            )
            versions[name].append(facts)
        homes = self._homes(version for found in versions.values() for version in found)
        external = self._external(version for found in versions.values() for version in found)
        versions.update(
            {
                name: [
                    replace(
                        item, experiment_id=home_of(item, homes), external=not external.isdisjoint(sources_of(item))
                    )
                    for item in found
                ]
                for name, found in versions.items()
            }
        )
        return {
            name: RegisteredModel(name, tags[name], aliases[name], tuple(versions[name]))
            for (name,) in self.tables.all(
                f"SELECT name FROM registered_models WHERE {self.tables.here('registered_models')}", **here
            )
            if IS_PROMPT not in tags[name]
        }

    def of_models(self, table: str) -> str:
        """Rows of the workspace, each beside its model: MLflow writes whichever name it was called with, and MySQL
        takes `CREDIT` for `credit`.
        """
        named = self.tables.equals("registered_models", "name", f"{table}.name")
        here = (self.tables.here(name) for name in (table, "registered_models"))
        return f"{table} JOIN registered_models ON {named} WHERE {' AND '.join(here)}"

    def _homes(self, versions: Iterable[ModelVersion]) -> dict[str, str]:
        """Id of a run or logged model that a version comes from -> its experiment."""
        ids = {key for version in versions for key in sources_of(version)}
        homes = {
            run_id: str(key)
            for run_id, key in self.tables.within(
                "SELECT run_uuid, experiment_id FROM runs WHERE run_uuid IN :ids", ids
            )
        }
        if "logged_models" in self.tables.columns:
            homes |= {
                key: str(home)
                for key, home in self.tables.within(
                    "SELECT model_id, experiment_id FROM logged_models WHERE model_id IN :ids", ids
                )
            }
        return homes

    def _external(self, versions: Iterable[ModelVersion]) -> frozenset[str]:
        """Ids of the external models that versions come from."""
        if "logged_model_tags" not in self.tables.columns:
            return frozenset()
        ids = {key for version in versions for key in sources_of(version)}
        sql = (
            "SELECT model_id FROM logged_model_tags WHERE tag_key = :external AND LOWER(tag_value) = 'true' AND "
            "model_id IN :ids"
        )
        return frozenset(key for (key,) in self.tables.within(sql, ids, external=EXTERNAL))
