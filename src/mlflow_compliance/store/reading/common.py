"""What both readers understand the same way, and the order that they bring things into."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping

from mlflow_compliance.entities import EntityRef, Location, MetricPoint, ModelVersion, RegisteredModel
from mlflow_compliance.settings import Settings
from mlflow_compliance.snapshot.ties import How, Tie, ids_in

MODEL_HISTORY = "mlflow.log-model.history"
"""Tag in which a run records the models that it logged, before logged models were entities."""
PROMPT_HOMES = "_mlflow_experiment_ids"
"""Tag of a prompt: the experiments that it is linked to."""
IS_PROMPT = "mlflow.prompt.is_prompt"
"""Tag of a registered 'model' that is a prompt: MLflow keeps both in the same tables."""


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


def fresh_since(settings: Settings, now: int) -> int:
    """What is dated later than this shows that something is at work, in milliseconds like `now`."""
    return max(0, int(now - settings.runs.running_max_hours * 3_600_000))


def sorted_points(points: Iterable[MetricPoint]) -> tuple[MetricPoint, ...]:
    """A history in a stable order; NaN, which has no order, goes by its text."""
    return tuple(sorted(points, key=lambda point: (point.timestamp, point.step, str(point.value))))


def traces_of(experiment_id: str) -> EntityRef:
    """The traces of an experiment, as the source of a tie."""
    return EntityRef("traces", experiment_id, f"of experiment {experiment_id}")


def belongs(how: How, kind: str, key: str, name: str, experiment_id: str) -> Tie:
    """The tie of something that people made in an experiment."""
    return Tie(how, EntityRef(kind, key, name), EntityRef("experiment", experiment_id), "", experiment_id)


def version_ties(
    registry: Mapping[str, RegisteredModel], homes: Mapping[tuple[str, str], str], writers: Mapping[str, str], written_in: Mapping[str, str]
) -> Iterator[Tie]:
    """What versions name; `homes` knows the experiments of runs and models, `writers` the run that wrote a model, `written_in` where that run is."""
    for item in registry.values():
        for version in item.versions:
            for place in itertools.product(("run", "logged_model"), ids_in(version)):
                if place in homes:
                    yield Tie(How.VERSION, version.ref, EntityRef(*place), version.experiment_id, homes[place])
                    run_id = writers.get(place[1], "") if place[0] == "logged_model" else ""
                    if run_id in written_in:
                        yield Tie(How.WRITTEN_BY, EntityRef(*place), EntityRef("run", run_id), homes[place], written_in[run_id])
