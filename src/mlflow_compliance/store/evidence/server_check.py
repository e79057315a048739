"""Whether a tracking server shows and gives a run as the store holds it: asked for as MLflow's web UI does, every
answer compared.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote

from mlflow_compliance.snapshot.entities import Experiment, LoggedModel, MetricPoint, ModelVersion, Run
from mlflow_compliance.snapshot.evidence import Served
from mlflow_compliance.snapshot.files import MLMODEL
from mlflow_compliance.store.evidence.server_requests import AJAX, Asking, GoneError

_PAGES = 10
"""Pages of runs to turn before the table's filter is used, as people do."""
_CHART = 320
"""Points that the UI asks for to draw one curve; a longer history is thinned out."""
_HISTORY = 25_000
"""Points on one page of a whole history."""
_RUN_PAGE = """query GetRun($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run {
  info { runName status } experiment { name }
  data { metrics { key value step timestamp } params { key value } tags { key value } } } } }"""

_Point = tuple[float | str | None, int, int]
"""Value, time and step, equal to itself for NaN too."""


def check_run(
    base_url: str,
    run: Run,
    experiment: Experiment,
    models: Sequence[LoggedModel],
    files: Files,
    model_files: Mapping[str, Files],
    versions: Sequence[ModelVersion],
    workspace: str = "",
) -> Served:
    """What a server does not show or give of an active run, its models and their versions.

    `workspace` is asked for where MLflow's environment names none.
    Nothing is raised for a server that fails or goes away: that is a problem as well.
    """
    places = [
        (run.artifact_uri, files),
        *((model.artifact_location, model_files.get(model.model_id, {})) for model in models),
    ]
    with Asking(base_url, workspace) as server:
        try:
            _check_experiment(server, experiment)
            _check_rows(server, run, experiment)
            _check_histories(server, run)
            check_files(server, run_tree(run), files)
            for model in models:
                _check_model(server, model)
                check_files(server, model_tree(model), model_files.get(model.model_id, {}))
            for version in versions:
                _check_version(server, version, run, places)
        except GoneError:
            pass  # the sentence about it is among the problems
        return server.served()


def _check_experiment(server: Asking, experiment: Experiment) -> None:
    table = server.pages(AJAX + "experiments/search", {"max_results": 25, "order_by": "last_update_time DESC"})
    row = server.find(
        "the experiment", table, "experiments", lambda item: bool(item["experiment_id"] == experiment.experiment_id)
    )
    page = server.json(AJAX + "experiments/get", {"experiment_id": experiment.experiment_id})
    for answer, where in ((row, "experiments/search"), (page and page["experiment"], "experiments/get")):
        if answer:
            server.same("name of the experiment", answer["name"], experiment.name, where)
            server.same_items("experiment tag", _pairs(answer), experiment.tags, where)


def _check_rows(server: Asking, run: Run, experiment: Experiment) -> None:
    """The run in its experiment's table, on its page (which asks by GraphQL) and by its id."""
    if row := _row(server, run):
        _compare(server, run, row["info"].get("run_name", ""), row["info"]["status"], row["data"], "runs/search")
    page = server.json(
        "graphql", body={"operationName": "GetRun", "variables": {"data": {"runId": run.run_id}}, "query": _RUN_PAGE}
    )
    if page and (shown := ((page.get("data") or {}).get("mlflowGetRun") or {}).get("run")):
        _compare(server, run, shown["info"]["runName"] or "", shown["info"]["status"], shown["data"], "graphql")
        server.same("name of the experiment", shown["experiment"]["name"], experiment.name, "graphql")
    elif page:
        server.problem("the run's page cannot be shown", "graphql")
    if answer := server.json(AJAX + "runs/get", {"run_id": run.run_id}):
        found = answer["run"]
        _compare(server, run, found["info"].get("run_name", ""), found["info"]["status"], found["data"], "runs/get")


def _row(server: Asking, run: Run) -> Any:
    def pages(text: str) -> Iterable[Any]:
        query = {"experiment_ids": [run.experiment_id], "filter": text, "run_view_type": "ACTIVE_ONLY"}
        return server.pages(
            AJAX + "runs/search", body={**query, "order_by": ["attributes.start_time DESC"], "max_results": 100}
        )

    turned = list(islice(pages(""), _PAGES))
    many = len(turned) == _PAGES and turned[-1] and turned[-1].get("next_page_token")
    found = pages(f"attributes.run_id = '{run.run_id}'") if many else ()
    return server.find("the run", [*turned, *found], "runs", lambda item: bool(item["info"]["run_id"] == run.run_id))


def _compare(server: Asking, run: Run, name: str, status: str, data: Mapping[str, Any], where: str) -> None:
    server.same("name of the run", name, run.name, where)
    server.same("status of the run", status, run.status, where)
    server.same_items("param", _pairs(data, "params"), run.params, where)
    server.same_items("tag", _pairs(data), run.tags, where)
    # GraphQL has no word for a number that is not finite.
    latest = {key: _point(max(points, key=_order), plain=where == "graphql") for key, points in run.metrics.items()}
    server.same_items(
        "latest value of metric", {item["key"]: _given(item) for item in data.get("metrics", ())}, latest, where
    )


def _check_histories(server: Asking, run: Run) -> None:
    for key, points in run.metrics.items():
        expected = Counter(map(_point, points))
        pages = list(
            server.pages(
                AJAX + "metrics/get-history", {"run_id": run.run_id, "metric_key": key, "max_results": _HISTORY}
            )
        )
        if None not in pages:
            _compare_history(
                server,
                key,
                [item for page in pages for item in page.get("metrics", ())],
                expected,
                "metrics/get-history",
            )
        chart = server.json(
            AJAX + "metrics/get-history-bulk-interval",
            {"run_ids": run.run_id, "metric_key": key, "max_results": _CHART},
        )
        if chart is not None:
            given = chart.get("metrics", ())
            thinned = expected & Counter(map(_given, given)) if given and len(points) > _CHART else expected
            _compare_history(server, key, given, thinned, "metrics/get-history-bulk-interval")


def _compare_history(server: Asking, key: str, items: Iterable[Any], expected: Counter[_Point], where: str) -> None:
    found = Counter(map(_given, items))
    server.checked += 1
    if found != expected:
        missing, others = (expected - found).total(), (found - expected).total()
        server.problem(
            f"the history of metric {key} lacks {missing} of its {expected.total()} points and has {others} others",
            where,
        )


def _check_model(server: Asking, model: LoggedModel) -> None:
    order = [{"field_name": "creation_time", "ascending": False}]
    pages = server.pages(
        AJAX + "logged-models/search", body={"experiment_ids": [model.experiment_id], "order_by": order}
    )
    server.find(f"model {model.name}", pages, "models", lambda item: bool(item["info"]["model_id"] == model.model_id))
    if answer := server.json(f"{AJAX}logged-models/{quote(model.model_id, safe='')}"):
        shown = answer["model"]
        server.same(f"name of model {model.model_id}", shown["info"]["name"], model.name, "logged-models")
        server.same_items(
            f"model {model.name}: param", _pairs(shown.get("data", {}), "params"), model.params, "logged-models"
        )
        server.same_items(f"model {model.name}: tag", _pairs(shown["info"]), model.tags, "logged-models")


def _check_version(server: Asking, version: ModelVersion, run: Run, places: Sequence[tuple[str, Files]]) -> None:
    """The version by its number, on the run's page, and by every alias that the registered model's page shows for
    it.
    """
    what, where = f"{version.name} version {version.version}", "model-versions/get"
    if answer := server.json(AJAX + where, {"name": version.name, "version": version.version}):
        shown = answer["model_version"]
        server.same(f"{what}: status", shown.get("status"), version.status, where)
        server.same(f"{what}: source", shown.get("source", ""), version.source, where)
        server.same(f"{what}: run", shown.get("run_id") or None, version.run_id, where)
        server.same_items(f"{what}: tag", _pairs(shown), version.tags, where)
        _check_schema(server, version, places)
    if version.run_id == run.run_id:
        pages = server.pages(AJAX + "model-versions/search", {"filter": f"run_id='{run.run_id}'"})
        server.find(
            what,
            pages,
            "model_versions",
            lambda item: bool((item["name"], item["version"]) == (version.name, version.version)),
        )
    page = server.json(AJAX + "registered-models/get", {"name": version.name})
    for item in page["registered_model"].get("aliases", ()) if page else ():
        if item["version"] != version.version:
            continue
        if answer := server.json(AJAX + "registered-models/alias", {"name": version.name, "alias": item["alias"]}):
            server.same(
                f"{what}: version of alias {item['alias']}",
                answer["model_version"]["version"],
                version.version,
                "registered-models/alias",
            )


def _check_schema(server: Asking, version: ModelVersion, places: Sequence[tuple[str, Files]]) -> None:
    """The MLmodel that the page of a version reads, where it lies in a folder that is known."""
    for place, files in places:
        if f"{version.location}/".startswith(f"{place}/"):
            inside = version.location[len(place) :].strip("/")
            if known := files.get(f"{inside}/MLmodel".lstrip("/")):
                query = {"path": MLMODEL, "name": version.name, "version": version.version}
                server.download(
                    f"MLmodel of {version.name} version {version.version}", known, "model-versions/get-artifact", query
                )


def _point(point: MetricPoint, *, plain: bool = False) -> _Point:
    """A point as an answer should give it; `plain` JSON says null for a value that is not finite."""
    if plain and not math.isfinite(point.value):
        return None, point.timestamp, point.step
    return "NaN" if math.isnan(point.value) else point.value, point.timestamp, point.step


def _given(item: Mapping[str, Any]) -> _Point:
    value = None if item["value"] is None else float(item["value"])
    return (
        "NaN" if value is not None and math.isnan(value) else value,
        int(item.get("timestamp", 0)),
        int(item.get("step", 0)),
    )


def _order(point: MetricPoint) -> tuple[int, int, float]:
    """MLflow's order of what is latest; it keeps NaN as a zero."""
    return point.step, point.timestamp, 0.0 if math.isnan(point.value) else point.value


def _pairs(data: Mapping[str, Any], name: str = "tags") -> dict[str, object]:
    return {item["key"]: item.get("value", "") for item in data.get(name, ())}


Files = Mapping[str, tuple[int, str | None]]
"""Path relative to a row's folder -> size in bytes, SHA-256 (hex) where it is known."""

_STRANGERS = 100
"""Folders without a known file to look into, about."""


class Tree(NamedTuple):
    """How the UI asks for files: the call that lists a folder and the one that gives a file, each with what it
    calls the path.
    """

    what: str
    list_call: str
    list_key: str
    get_call: str
    get_key: str
    query: Mapping[str, str]


def run_tree(run: Run) -> Tree:
    return Tree("artifact", AJAX + "artifacts/list", "path", "get-artifact", "path", {"run_uuid": run.run_id})


def model_tree(model: LoggedModel) -> Tree:
    call = f"{AJAX}logged-models/{quote(model.model_id, safe='')}/artifacts"
    return Tree(
        f"file of model {model.name}",
        f"{call}/directories",
        "artifact_directory_path",
        f"{call}/files",
        "artifact_file_path",
        {},
    )


def check_files(server: Asking, tree: Tree, files: Files) -> None:
    """Compare the lists of all folders with the files, and download each file that is listed."""
    folders = {"", *(folder for path in files for folder in _above(path))}
    listed, failed = _listed(server, tree, folders)
    for path, known in sorted(files.items()):
        name = f"{tree.what} {path}"
        if path in listed:
            server.same_size(name, listed[path], known[0], "list")
            server.download(name, known, tree.get_call, {tree.get_key: path, **tree.query})
        elif failed.isdisjoint(_above(path)):
            server.problem(f"{name} is in the store but not listed")
    for path in sorted(listed.keys() - files.keys()):
        topmost = next((folder for folder in reversed(_above(path)) if folder and folder not in folders), path)
        server.problem(f"{tree.what} {topmost} is listed but is not among the files that were read")


def _listed(server: Asking, tree: Tree, known: Set[str]) -> tuple[dict[str, int], set[str]]:
    """Every file in the lists of all folders with its size, and the folders whose list is not given. `known`
    folders hold files that were read.
    """
    listed: dict[str, int] = {}
    failed: set[str] = set()
    seen, todo = {""}, [""]
    while todo:
        folder = todo.pop()
        for page in server.pages(tree.list_call, {**tree.query, **({tree.list_key: folder} if folder else {})}):
            if page is None:
                failed.add(folder)
                continue
            server.checked += 1
            items = page.get("files", ())
            inside = {item["path"] for item in items if item.get("is_dir")}
            listed.update({item["path"]: int(item.get("file_size", 0)) for item in items if item["path"] not in inside})
            # Of a folder that was not read, one file says enough: links can make folders endless.
            if folder in known or len(inside) == len(items):
                room = len(seen - known) < _STRANGERS
                fresh = sorted(path for path in inside - seen if room or path in known)
                seen.update(fresh)
                todo += fresh
    return listed, failed


def _above(path: str) -> list[str]:
    """The folders that a file lies in, the nearest first, the topmost as ''."""
    found = []
    while path := os.path.dirname(path):
        found.append(path)
    return [*found, ""]
