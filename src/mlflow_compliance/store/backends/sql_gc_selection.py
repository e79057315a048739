"""What `mlflow gc` of the installed MLflow would select: its own code chooses, from rows that it can only read, and
what it would destroy is noted instead.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.orm import sessionmaker

from mlflow_compliance.errors import ComplianceError, StoreError, first_line
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.doomed import Stop
from mlflow_compliance.snapshot.entities import DELETED
from mlflow_compliance.store.backends.sql_tables import Tables
from mlflow_compliance.store.storage.locations import scheme_of

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}
_AGE = re.compile(r"([\d.]+d)?([\d.]+h)?([\d.]+m)?([\d.]+s)?")
_TAKEN = {
    "backend_store",
    "run_ids",
    "experiment_ids",
    "logged_model_ids",
    "older_than",
    "time_delta",
    "skip_experiments",
    "skip_logged_models",
    "ignore_not_found",
}
_ENABLED = "MLFLOW_ENABLE_WORKSPACES"
_ENDED = ("SUCCEEDED", "FAILED", "TIMEOUT", "CANCELED")
_OTHER_STORE = ("backend_store_uri", "tracking_uri")


class Asked(NamedTuple):
    """What is asked of gc. `older_than` in milliseconds, `words` as they are typed after `mlflow gc`."""

    words: str
    older_than: int
    aged: bool
    runs: list[str] | None
    experiments: list[str] | None
    models: list[str] | None
    jobs: bool
    job_ids: list[str] | None
    workspace: str
    all_workspaces: bool


class Selected(NamedTuple):
    """Ids of what gc would destroy by itself, by kind; what an experiment takes along is not among them."""

    runs: tuple[str, ...]
    models: tuple[str, ...]
    experiments: tuple[str, ...]
    """In the order in which it comes to them."""
    jobs: tuple[str, ...]
    files_go: frozenset[tuple[str, str]]
    """(kind, key) of what loses its files too."""
    stops: tuple[Stop, ...]


_BY_ROWS = "a row that stays refers to it, and the database refuses that"


def without_refused(chosen: Selected, refused: Mapping[str, Collection[Any]]) -> Selected:
    """What is left of a selection where the database refuses to let rows go: gc ends at the first one."""
    runs, models, homes = (
        {str(key) for key in refused.get(table, ())} for table in ("runs", "logged_models", "experiments")
    )
    first = next((key for key in chosen.experiments if key in homes), "")
    ends = [*sorted(runs & {*chosen.runs}), *sorted(models & {*chosen.models})]
    ends = ends or ([first] if first else [])
    if not ends:
        return chosen
    return chosen._replace(
        runs=tuple(key for key in chosen.runs if key not in runs),
        models=() if runs & {*chosen.runs} else tuple(key for key in chosen.models if key not in models),
        experiments=chosen.experiments[: chosen.experiments.index(first)] if ends == [first] else (),
        jobs=(),
        stops=(*chosen.stops, *(Stop(key, _BY_ROWS) for key in ends)),
    )


def asked_of_gc(options: str, older_than: str | None) -> Asked:
    """The options of `mlflow gc` as its installed version understands them. Raises ComplianceError for others."""
    import click
    from mlflow.cli import gc

    try:
        words = shlex.split(options)
    except ValueError as error:
        raise ComplianceError(f"--compliance-gc-options cannot be read ({error})") from error
    words += ["--older-than", older_than] if older_than is not None else []
    try:
        context = gc.make_context("gc", list(words))
    except (click.ClickException, click.exceptions.Exit) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else "asks for help"
        raise ComplianceError(f"mlflow gc of the installed version does not take that: {said}") from error
    given = context.params
    for name in _OTHER_STORE:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise ComplianceError(f"--{name.replace('_', '-')} of gc names a store: give it with --tracking-uri")
    if given.get("all_workspaces") and (
        context.get_parameter_source("workspace") is click.core.ParameterSource.COMMANDLINE
    ):
        raise ComplianceError("mlflow gc takes --workspace or --all-workspaces, not both")
    age = given.get("older_than")
    return Asked(
        shlex.join(words),
        _milliseconds(age) if age is not None else 0,
        bool(age),
        _ids(given.get("run_ids")),
        _ids(given.get("experiment_ids")),
        _ids(given.get("logged_model_ids")),
        bool(given.get("jobs") or given.get("job_ids")),
        _ids(given.get("job_ids")),
        "" if given.get("all_workspaces") else given.get("workspace") or "",
        bool(given.get("all_workspaces")),
    )


def _ids(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def _milliseconds(age: str) -> int:
    parts = _AGE.fullmatch(age)
    try:
        found = sum(float(part[:-1]) * _UNITS[part[-1]] for part in parts.groups() if part) if parts else None
    except ValueError:
        found = None
    if found is None:
        raise ComplianceError(f"{age!r} is no age that mlflow gc understands: write it as 30d, 12h or 1d12h30m")
    return int(found)


def workspaces_of_gc(asked: Asked, tables: Tables) -> list[str]:
    """The workspaces that gc goes through; one that is named '' where it knows of none. Raises StoreError where it
    refuses to begin.
    """
    enabled = asked.workspace or asked.all_workspaces or _says_enabled()
    held = tables.has("experiments", "workspace")
    if not enabled:
        named = [name for (name,) in tables.all("SELECT DISTINCT workspace FROM experiments")] if held else []
        if any(name not in (None, "default") for name in named):
            raise StoreError(
                "mlflow gc refuses a store with several workspaces unless it is told which: add --workspace NAME or "
                "--all-workspaces to --compliance-gc-options"
            )
        return [""]
    if not held:
        raise StoreError("this store has no workspaces: leave --workspace and --all-workspaces out")
    if asked.all_workspaces:
        return sorted(name for (name,) in tables.all("SELECT name FROM workspaces"))
    return [asked.workspace or "default"]


def _says_enabled() -> bool:
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    return bool(MLFLOW_ENABLE_WORKSPACES.get())


def select(tables: Tables, asked: Asked, workspace: str, now: int) -> Selected:
    """Let gc's own code choose among the rows of one workspace. `now` in milliseconds, for jobs."""
    import mlflow
    from mlflow.cli import gc as command

    module = inspect.getmodule(command.callback)
    choose: Callable[..., None] | None = getattr(module, "_gc_tracking_resources", None)
    if choose is None or set(inspect.signature(choose).parameters) != _TAKEN:
        raise StoreError(
            f"mlflow gc of MLflow {mlflow.__version__} chooses in a way that this version does not know: what it would "
            "destroy cannot be told"
        )
    # It says that things are deleted, which they are not.
    with (
        _as_workspace(workspace),
        TemporaryDirectory(prefix="mlflow-compliance-") as folder,
        redirect_stdout(StringIO()),
    ):
        stops: dict[str, Stop] = {}
        while True:
            store = _StandIn(tables, workspace, folder, frozenset(stops))
            try:
                choose(
                    backend_store=store,
                    run_ids=asked.runs,
                    experiment_ids=asked.experiments,
                    logged_model_ids=asked.models,
                    older_than="given" if asked.aged else None,
                    time_delta=asked.older_than,
                    skip_experiments=False,
                    skip_logged_models=False,
                    # What gc gives up at is passed over when it is asked again, so that all that it could have
                    # destroyed before is known.
                    ignore_not_found=asked.all_workspaces or bool(stops),
                )
            except _known_errors() as error:
                if not store.at or store.at in stops:
                    raise StoreError(f"mlflow gc itself would refuse: {_said(error)}") from error
                stops[store.at] = Stop(store.at, _said(error))
                continue
            break
        # It never comes to what is after the kind that it gave up at.
        at_a_run = any(not key.startswith("m-") for key in stops)
        return Selected(
            tuple(sorted(store.gone["run"])),
            () if at_a_run else tuple(sorted(store.gone["logged_model"])),
            () if stops else tuple(store.gone["experiment"]),
            tuple(_jobs(tables, asked, workspace, now)) if not stops else (),
            frozenset(store.files_gone),
            tuple(stops[key] for key in sorted(stops)),
        )


def _said(error: BaseException) -> str:
    return without_secrets(first_line(error))


def _known_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    return (MlflowException, OSError)


def _jobs(tables: Tables, asked: Asked, workspace: str, now: int) -> Iterator[str]:
    """Jobs have rows and no files; gc's own function for them cannot be asked without deleting them."""
    if not asked.jobs or "jobs" not in tables.columns:
        return
    from mlflow.entities._job_status import JobStatus

    ended = [status.to_int() for status in JobStatus if status.name in _ENDED]
    here = tables.here("jobs") if workspace else ":workspace = :workspace"
    for job_id, made in tables.within(
        f"SELECT id, creation_time FROM jobs WHERE {here} AND status IN :ids ORDER BY id", ended, workspace=workspace
    ):
        old_enough = not asked.older_than or (made or 0) < now - asked.older_than
        if old_enough and (not asked.job_ids or job_id in asked.job_ids):
            yield str(job_id)


@contextmanager
def _as_workspace(name: str) -> Iterator[None]:
    """As gc does: what it asks is limited to a workspace where it was told of one."""
    if not name:
        yield
        return
    from mlflow.utils.workspace_context import WorkspaceContext

    before = os.environ.get(_ENABLED)
    os.environ[_ENABLED] = "true"
    try:
        with WorkspaceContext(name):
            yield
    finally:
        os.environ.pop(_ENABLED) if before is None else os.environ.update({_ENABLED: before})


class _StandIn:
    """MLflow's own store over a connection that cannot write, whose hard deletions are notes. gc is handed an empty
    folder of ours in the place of every artifact location.
    """

    def __init__(self, tables: Tables, workspace: str, folder: str, passed_over: frozenset[str]) -> None:
        self._store = _store_over(tables.connection, aware=bool(workspace))
        self._tables, self._folder, self._passed_over = tables, folder, passed_over
        self._rows: Mapping[str, tuple[str, str]] | None = None
        self.at = ""
        """What it was last asked for."""
        self.gone: dict[str, list[str]] = {"run": [], "logged_model": [], "experiment": []}
        self.files_gone: set[tuple[str, str]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get_run(self, run_id: str) -> Any:
        self._begin(run_id)
        if self._rows is None:
            self._rows = dict(self._deleted_runs())
        if run_id in self._rows:
            lifecycle, uri = self._rows[run_id]
            info = _Instead(None, run_id=run_id, lifecycle_stage=lifecycle, artifact_uri=self._place(run_id, uri))
            return _Instead(None, info=info)
        run = self._store.get_run(run_id)
        return _Instead(run, info=_Instead(run.info, artifact_uri=self._place(run_id, run.info.artifact_uri)))

    def get_logged_model(self, model_id: str, **named: Any) -> Any:
        self._begin(model_id)
        model = self._store.get_logged_model(model_id, **named)
        return _Instead(model, artifact_location=self._place(model_id, model.artifact_location))

    def _hard_delete_run(self, run_id: str) -> None:
        self._note("run", run_id)

    def _hard_delete_logged_model(self, model_id: str) -> None:
        self._note("logged_model", model_id)

    def _hard_delete_experiment(self, experiment_id: str) -> None:
        self._note("experiment", str(experiment_id))

    def _begin(self, key: str) -> None:
        self.at = key
        if key in self._passed_over:
            from mlflow.exceptions import MlflowException
            from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

            raise MlflowException("passed over", error_code=RESOURCE_DOES_NOT_EXIST)

    def _place(self, key: str, uri: str) -> str:
        """A folder of ours that is gone when gc has deleted what it takes for the thing's artifacts."""
        _refuse_as_gc_does(uri)
        place = os.path.join(self._folder, re.sub(r"[^0-9A-Za-z_-]", "_", key))
        os.makedirs(place, exist_ok=True)
        return place

    def _note(self, kind: str, key: str) -> None:
        self.gone[kind].append(key)
        place = os.path.join(self._folder, re.sub(r"[^0-9A-Za-z_-]", "_", key))
        if kind != "experiment" and not os.path.exists(place):
            self.files_gone.add((kind, key))
        self.at = ""

    def _deleted_runs(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """(lifecycle, location) of the deleted runs that MLflow's own selection may name, read at one time."""
        ids = self._store._get_deleted_runs()
        sql = "SELECT run_uuid, lifecycle_stage, artifact_uri FROM runs WHERE run_uuid IN :ids"
        for run_id, lifecycle, uri in self._tables.within(sql, ids):
            if lifecycle == DELETED:
                yield run_id, (lifecycle, uri or "")


class _Instead:
    """Something as it is, but for what is said here."""

    def __init__(self, real: Any, **said: Any) -> None:
        self.__dict__.update(said)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _refuse_as_gc_does(uri: str) -> None:
    """Raise what gc is told when it asks for the place of these artifacts: it stops there."""
    scheme = scheme_of(uri)
    if scheme in ("", "file"):
        from mlflow.utils.file_utils import local_file_uri_to_path

        path = local_file_uri_to_path(uri)
        if os.path.islink(path) and os.path.isdir(path):
            raise OSError(f"{path} is a symbolic link, which is not removed")
    elif scheme != "s3":
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(uri)


def _store_over(connection: Connection, *, aware: bool) -> Any:
    """MLflow's store of rows as gc opens it, but over a connection that is open already and refuses to write."""
    from mlflow.store.db.utils import _get_managed_session_maker
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.store.tracking.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore

    kind = WorkspaceAwareSqlAlchemyStore if aware else SqlAlchemyStore
    store: Any = kind.__new__(kind)
    made = sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
    store.__dict__.update(
        db_uri="",
        db_type=connection.dialect.name,
        engine=connection.engine,
        read_engine=None,
        artifact_root_uri="",
        ManagedSessionMaker=_get_managed_session_maker(made, connection.dialect.name),
        _workspace_provider=None,
        _workspace_store_uri="",
    )
    return store
