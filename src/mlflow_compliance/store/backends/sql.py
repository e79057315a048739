"""What stores have in common whose rows are read by SQL over one connection that cannot write."""

from __future__ import annotations

import time
import warnings
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar

from sqlalchemy import Connection

from mlflow_compliance.errors import StoreError
from mlflow_compliance.production.claims import (
    EVERY_RUN,
    Claim,
    claims,
    retirable,
    runs_in_full,
)
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.lost import restorable
from mlflow_compliance.production.marks import sought_folded
from mlflow_compliance.production.served import served_runs
from mlflow_compliance.settings.schema import Settings, folded
from mlflow_compliance.snapshot.entities import (
    ACTIVE,
    DEFAULT,
    DELETED,
    DatasetInput,
    Experiment,
    LoggedModel,
    Run,
    StoreInfo,
)
from mlflow_compliance.snapshot.schema import Schema
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.standing import to_restore
from mlflow_compliance.snapshot.tags import ASSESSED_RUN, COPY_STATE, MADE_BY_US, RETRACTED
from mlflow_compliance.store.backends.base import Backend, Foretold, Rows, fresh_since, workspace
from mlflow_compliance.store.backends.sql_doomed import doom_of, doom_of_repairs
from mlflow_compliance.store.backends.sql_gc_selection import asked_of_gc, workspaces_of_gc
from mlflow_compliance.store.backends.sql_locations import rows_of
from mlflow_compliance.store.backends.sql_row_facts import row_facts
from mlflow_compliance.store.backends.sql_schema import lost_rows, read_schema
from mlflow_compliance.store.backends.sql_standing import StandingReader
from mlflow_compliance.store.backends.sql_tables import RegistryReader, RunReader, Tables
from mlflow_compliance.store.backends.sql_ties import TieReader
from mlflow_compliance.store.backends.sql_times import newest_row
from mlflow_compliance.store.backends.sql_unfinished import half_made, open_traces
from mlflow_compliance.store.storage.parsing import parse_json


@dataclass(frozen=True)
class SqlBackend(Backend):
    """A database with MLflow's tables."""

    writes: ClassVar[bool] = True

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """A connection in one read-only transaction. Nothing is created; raises StoreError of one sentence where it
        cannot be had.
        """

    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).read(self.info, self.settings, also)

    def read_metadata(self, also: Collection[str]) -> tuple[Snapshot, None]:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).snapshot(self.info, self.settings, also), None

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).details(run_ids)

    def counted(self, experiment_id: str) -> Experiment | None:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).experiments().get(experiment_id)

    def known_traces(self, ids: Collection[str]) -> Collection[str]:
        with self.reading() as connection:
            tables = Tables(connection, workspace())
            if not tables.has("trace_info", "request_id"):
                return ()
            rows = tables.within("SELECT request_id FROM trace_info WHERE request_id IN :ids", ids)
            return {trace_id for (trace_id,) in rows}

    def newest_row(self, before: int) -> int | None:
        with self.reading() as connection:
            return newest_row(Tables(connection, workspace()), before)

    def doomed(self, options: str, older_than: str | None) -> list[Foretold]:
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of SQLAlchemy, about MLflow's mappers and columns
            asked = asked_of_gc(options, older_than)
            with self.reading() as connection:
                self._check(read_schema(Tables(connection, workspace())), "nothing is destroyed by mlflow gc either")
                for name in workspaces_of_gc(asked, Tables(connection, workspace())):
                    reader = SqlReader(connection, name or workspace())
                    snapshot, rows = reader.read(self.info, self.settings, ())
                    found.append(Foretold(doom_of(reader.tables, asked, name, snapshot, self.settings), snapshot, rows))
        return found

    def refuse_purge(self) -> None:
        self.refuse_other_schema()

    def left_by_repairs(self, homes: Collection[str]) -> Foretold:
        with warnings.catch_warnings(), self.reading() as connection:
            warnings.simplefilter("ignore")
            self._check(read_schema(Tables(connection, workspace())), "nothing was changed")
            reader = SqlReader(connection, workspace())
            snapshot, rows = reader.read(self.info, self.settings, ())
            ours = [key for key in homes if key in snapshot.experiments]
            return Foretold(doom_of_repairs(reader.tables, ours, snapshot, self.settings), snapshot, rows)

    def refuse_other_schema(self) -> None:
        """Of an old store that lacks some tables, opening it would migrate it."""
        with self.reading() as connection:
            schema = read_schema(Tables(connection, workspace()))  # raises StoreError where this is no store at all
        self._check(schema, "nothing was changed")

    def _check(self, schema: Schema, ending: str) -> None:
        if schema.problem:
            raise StoreError(f"the database {self.name} {schema.problem}: {schema.way_out(self.info.uri)}; {ending}")

    @property
    @abstractmethod
    def name(self) -> str:
        """The database as sentences call it."""


_BELONGINGS = {"issues": "1 = 1", "label_schemas": "NOT is_default", "review_queues": "1 = 1"}
"""Tables of what people make in an experiment, and which rows of them people made."""


class SqlReader:
    """Reads one store over an open connection that cannot write. `workspace` limits it to the caller's."""

    def __init__(self, connection: Connection, workspace: str = "default") -> None:
        self.tables = Tables(connection, workspace)
        self.full = RunReader(self.tables)

    def read(self, info: StoreInfo, settings: Settings, also: Collection[str] = ()) -> tuple[Snapshot, Rows]:
        """The store without its files, and where its rows say that the files lie: the only query whose answer grows
        with the runs. The traces in progress are looked for among all of them.
        """
        snapshot = self.snapshot(info, settings, also)
        since = fresh_since(settings, snapshot.taken_at)
        found = open_traces(self.tables, snapshot.experiments, since)
        return replace(snapshot, open_traces=found), rows_of(
            self.tables, snapshot, settings.store.resolved_relocate(settings.base)
        )

    def snapshot(self, info: StoreInfo, settings: Settings, also: Collection[str] = ()) -> Snapshot:
        """The store without its files. `also` are runs to bring in full besides those in scope."""
        schema = read_schema(self.tables)
        experiments = self.experiments()
        registry = RegistryReader(self.tables).registered_models()
        wanted, claimed = self._scope(settings, experiments)
        standing = StandingReader(self.tables)
        behind, lost = standing.behind(registry), standing.lost_parents(experiments)
        wanted |= served_runs(settings, registry) | to_restore(behind, lost, experiments) | set(also)
        runs = {key: run for key, run in self.full.runs(wanted).items() if run.experiment_id in experiments}
        models = self.full.logged_models(runs)
        may_go = retirable(settings, experiments, claimed)
        now = int(time.time() * 1000)
        snapshot = Snapshot(
            info=replace(
                info,
                schema=",".join(schema.found),
                workspace=self.tables.workspace if self.tables.has("experiments", "workspace") else "",
            ),
            taken_at=now,
            experiments=experiments,
            runs=runs,
            logged_models=models,
            registered_models=registry,
            ties=TieReader(self.tables, now, fresh_since(settings, now)).ties(runs, registry, may_go.experiments),
            datasets=self._datasets(may_go.into),
            schema=schema,
            lost_rows=lost_rows(self.tables),
            other_workspaces=self._other_workspaces(),
            behind_versions=behind,
            lost_parents=lost,
            half_made=half_made(self.tables, experiments, registry),
            row_facts=row_facts(self.tables, settings, experiments),
        )
        held = restorable(Context(snapshot, settings)) - runs.keys()
        return replace(snapshot, runs={**runs, **self.full.runs(held)}) if held else snapshot

    def _other_workspaces(self) -> tuple[str, ...]:
        """The workspaces that hold something and were not read."""
        named = {
            str(name)
            for table in ("experiments", "registered_models")
            if self.tables.has(table, "workspace")
            for (name,) in self.tables.all(f"SELECT DISTINCT workspace FROM {table}")
        }
        return tuple(sorted(named - {self.tables.workspace}))

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        """Runs in full and the active logged models that they wrote."""
        runs = self.full.runs(run_ids)
        return runs, self.full.logged_models(runs)

    def experiments(self) -> dict[str, Experiment]:
        """Every experiment of the workspace, its runs counted."""
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        for key, value, experiment_id in self.tables.all(
            "SELECT experiment_tags.key, value, experiment_id FROM experiment_tags"
        ):
            tags[str(experiment_id)][key] = value or ""
        counts: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
        for experiment_id, lifecycle, status, number in self.tables.all(
            "SELECT experiment_id, lifecycle_stage, status, COUNT(*) FROM runs GROUP BY experiment_id, "
            "lifecycle_stage, status"
        ):
            counts[str(experiment_id)][lifecycle, status] = number
        # Each of the questions that follow is another scan of the runs, which the counts make needless in most stores.
        any_deleted = any(lifecycle == DELETED for counted in counts.values() for lifecycle, _ in counted)
        retracted = self._retracted_runs() if any_deleted else {}
        for experiment_id, lifecycle, status in retracted.values():
            left = counts[experiment_id][lifecycle, status] - 1
            counts[experiment_id][lifecycle, status] = left
            if not left:
                del counts[experiment_id][lifecycle, status]
        deleted: dict[str, list[str]] = defaultdict(list)
        for run_id, experiment_id in (
            self.tables.all("SELECT run_uuid, experiment_id FROM runs WHERE lifecycle_stage = 'deleted'")
            if any_deleted
            else ()
        ):
            if run_id not in retracted:
                deleted[str(experiment_id)].append(run_id)
        assessed, traces, loose, dependents = (
            self._assessed_runs(),
            self._traces(),
            self._loose_models(),
            self._belongings(),
        )
        found = {}
        dated = "creation_time" if self.tables.has("experiments", "creation_time") else "0"
        for experiment_id, name, location, lifecycle, created in self.tables.all(
            f"SELECT experiment_id, name, artifact_location, lifecycle_stage, {dated} FROM experiments WHERE "
            f"{self.tables.here('experiments')}",
            workspace=self.tables.workspace,
        ):
            key = str(experiment_id)
            found[key] = Experiment(
                experiment_id=key,
                name=name,
                lifecycle=lifecycle,
                artifact_location=location or "",
                tags=tags[key],
                runs=counts[key],
                deleted_runs=tuple(sorted(deleted[key])) if lifecycle == ACTIVE or key == DEFAULT else (),
                traces=traces.get(key, 0),
                loose_models=loose.get(key, 0),
                assessed_runs=assessed.get(key, 0),
                dependents=tuple(dependents[key]),
                created=created or 0,
            )
        return found

    def _retracted_runs(self) -> dict[str, tuple[str, str, str]]:
        """Run id -> experiment, lifecycle, status of the copies that were taken back."""
        return {
            run_id: (str(experiment_id), lifecycle, status)
            for run_id, experiment_id, lifecycle, status, key, value in self.tables.all(
                "SELECT runs.run_uuid, experiment_id, lifecycle_stage, status, tags.key, value FROM runs JOIN tags "
                "ON tags.run_uuid = runs.run_uuid "
                "WHERE tags.key = 'compliance.copy' AND tags.value = :retracted AND lifecycle_stage = 'deleted'",
                retracted=RETRACTED,
            )
            if (key, value) == (COPY_STATE, RETRACTED)
        }

    def _traces(self) -> dict[str, int]:
        if "trace_info" not in self.tables.columns:
            return {}
        return {
            str(key): number
            for key, number in self.tables.all("SELECT experiment_id, COUNT(*) FROM trace_info GROUP BY experiment_id")
        }

    def _loose_models(self) -> dict[str, int]:
        if "logged_models" not in self.tables.columns:
            return {}
        rows = self.tables.all(
            "SELECT logged_models.experiment_id, COUNT(*) FROM logged_models LEFT JOIN runs "
            f"ON {self.tables.equals('runs', 'run_uuid', 'logged_models.source_run_id')} AND runs.experiment_id = "
            "logged_models.experiment_id "
            "WHERE logged_models.lifecycle_stage = 'active' AND runs.run_uuid IS NULL GROUP BY "
            "logged_models.experiment_id"
        )
        return {str(key): number for key, number in rows}

    def _belongings(self) -> dict[str, list[tuple[str, int]]]:
        found: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for table, condition in _BELONGINGS.items():
            if table in self.tables.columns:
                counted = f"SELECT experiment_id, COUNT(*) FROM {table} WHERE {condition} GROUP BY experiment_id"
                for key, number in self.tables.all(counted):
                    found[str(key)].append((table.replace("_", " "), number))
        return found

    def _assessed_runs(self) -> dict[str, int]:
        """Active runs with assessments, by experiment: MLflow ties them by text in `assessment_metadata`."""
        if not self.tables.has("assessments", "assessment_metadata"):
            return {}
        named = '%"mlflow.assessment.sourceRunId"%'
        ids = {
            _source_run(metadata)
            for (metadata,) in self.tables.all(
                "SELECT assessment_metadata FROM assessments WHERE assessment_metadata LIKE :named", named=named
            )
        }
        counts: dict[str, int] = defaultdict(int)
        for (experiment_id,) in self.tables.within(
            "SELECT experiment_id FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN :ids", ids - {""}
        ):
            counts[str(experiment_id)] += 1
        return dict(counts)

    def _scope(self, settings: Settings, experiments: Mapping[str, Experiment]) -> tuple[set[str], set[Claim]]:
        """Ids of the runs to bring in full (production runs, runs to be merged, earlier copies, runs that are still
        RUNNING), and the claims.
        """
        marked = self._marked(settings)
        tagged = [(experiment_id, key, value) for _, experiment_id, key, value in marked]
        wanted = {run_id for run_id, *_ in marked}
        for run_id, key in self.tables.within(
            "SELECT runs.run_uuid, tags.key FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid "
            "WHERE tags.key IN :ids AND runs.lifecycle_stage = 'active'",
            MADE_BY_US,
        ):
            if key in MADE_BY_US:
                wanted.add(run_id)
        if any((ACTIVE, "RUNNING") in item.runs for item in experiments.values()):
            wanted |= {
                run_id
                for (run_id,) in self.tables.all(
                    "SELECT run_uuid FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = 'active'"
                )
            }
        needs = runs_in_full(settings, experiments, tagged)
        for experiment_id in sorted(needs):
            wanted |= self._with_facts(needs[experiment_id], experiment_id)
        wanted |= {
            run_id
            for (run_id,) in self.tables.within(
                "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' AND experiment_id IN :ids",
                [int(key) for key, need in needs.items() if need >= EVERY_RUN],
            )
        }
        return wanted, claims(settings, experiments, tagged)

    def _datasets(self, experiments: Collection[str]) -> dict[str, tuple[DatasetInput, ...]]:
        found: dict[str, list[DatasetInput]] = defaultdict(list)
        if "datasets" in self.tables.columns:
            for key, name, digest, kind, source, schema, profile in self.tables.within(
                "SELECT experiment_id, name, digest, dataset_source_type, dataset_source, dataset_schema, "
                "dataset_profile FROM datasets "
                "WHERE experiment_id IN :ids",
                map(int, experiments),
            ):
                found[str(key)].append(DatasetInput(name, digest, kind, source, schema, profile, ()))
        return {key: tuple(sorted(items)) for key, items in found.items()}

    def _marked(self, settings: Settings) -> list[tuple[str, str, str, str]]:
        """(run, experiment, key, value) of the tags of active runs that say production in some spelling."""
        sought = sought_folded(settings)
        names = {key for key, _ in sought}
        # A few keys beside a million rows: which of them are spelled otherwise is asked first.
        keys = [key for (key,) in self.tables.all("SELECT DISTINCT tags.key FROM tags") if folded(key) in names]
        values = sorted({value for _, value in sought})
        # Databases lower the letters of ASCII alike, and no others; what they give is compared again below.
        likes = (
            {f"v{number}": _like(value) for number, value in enumerate(values)} if all(map(str.isascii, values)) else {}
        )
        limited = " OR ".join(f"LOWER(tags.value) LIKE :{name} ESCAPE '!'" for name in likes)
        rows = self.tables.within(
            "SELECT runs.run_uuid, runs.experiment_id, tags.key, tags.value FROM tags JOIN runs ON runs.run_uuid = "
            "tags.run_uuid "
            f"WHERE tags.key IN :ids AND runs.lifecycle_stage = 'active'{f' AND ({limited})' if limited else ''}",
            keys,
            **likes,
        )
        return [
            (run_id, str(home), key, value)
            for run_id, home, key, value in rows
            if (folded(key), folded(value or "")) in sought
        ]

    def _with_facts(self, keys: frozenset[str], experiment_id: str) -> set[str]:
        """Ids of the active runs of an experiment that carry one of these names."""
        return {
            run_id
            for table in ("params", "latest_metrics", "tags")
            if table in self.tables.columns
            for run_id, key in self.tables.within(
                f"SELECT DISTINCT runs.run_uuid, {table}.key FROM runs JOIN {table} ON {table}.run_uuid = "
                "runs.run_uuid "
                f"WHERE runs.lifecycle_stage = 'active' AND runs.experiment_id = :experiment AND {table}.key IN :ids",
                keys,
                experiment=int(experiment_id),
            )
            if key in keys
        }


def _like(value: str) -> str:
    """A pattern for texts that hold a folded value, whatever space is in it."""
    escaped = "".join(f"!{char}" if char in "!%_" else char for char in value)
    return f"%{escaped.replace(' ', '%')}%"


def _source_run(metadata: str) -> str:
    try:
        return str(parse_json(metadata).get(ASSESSED_RUN, ""))
    except (ValueError, AttributeError):
        return ""
