"""Reads through a tracking server what rules without files need, by filters: what passes by is what they ask for, and
not every run.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from mlflow.entities import ViewType

from mlflow_compliance.production.marks import sought, sought_folded
from mlflow_compliance.production.served import served_runs
from mlflow_compliance.settings.schema import Settings, folded
from mlflow_compliance.snapshot.entities import (
    ACTIVE,
    DEFAULT,
    Experiment,
    LoggedModel,
    ModelVersion,
    RegisteredModel,
    Run,
    StoreInfo,
    is_retracted,
    says_external,
)
from mlflow_compliance.snapshot.journals import keeps_journals
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.standing import RowState, to_restore
from mlflow_compliance.snapshot.ties import is_model, named_in
from mlflow_compliance.store.backends.base import NoFilterError
from mlflow_compliance.store.backends.client import ClientReader
from mlflow_compliance.store.backends.client_entities import experiment_of, model_of
from mlflow_compliance.store.backends.client_registry import NAMES_A_MODEL, placed, read_registry
from mlflow_compliance.store.backends.listing import PAGE, chunks, get_or_none, pages
from mlflow_compliance.store.backends.rest import SEARCH_RUNS, Rest
from mlflow_compliance.store.backends.rest_runs import run_of

EXPERIMENTS_A_SEARCH = 500
"""A search by a filter costs the server one look at an index, however many experiments it is about."""
IDS_A_FILTER = 200
"""Runs or models in one filter: their ids travel in one request."""
_PLAIN_ID = re.compile(r"[0-9A-Za-z_-]+")
_ANY_ONE = re.compile(r"[^ -~]|['\"`\\%]")
"""What a pattern has any one character for: signs that quoting, patterns or databases give a meaning to, and letters
whose upper case not every database knows.
"""


class FilteredReader:
    """Reads one server. Its Snapshots are not `counted`: runs that no rule without files looks at are not in them, not
    even as numbers; of the runs that are, metrics have their latest point alone.

    What it does not look for: tags of production under another spelling of their key; parents of runs; ids in the
    location of a version that are not in its source.
    """

    def __init__(self, reader: ClientReader, rest: Rest) -> None:
        self.reader, self.client, self.rest = reader, reader.client, rest

    def read(self, info: StoreInfo, settings: Settings, also: Collection[str]) -> Snapshot:
        """The store without files. Raises NoFilterError where settings ask for what no filter can."""
        if settings.retention.says_anything:
            raise NoFilterError("retention is judged by the lives of all runs")
        found = pages(self.client.search_experiments, view_type=ViewType.ALL, max_results=PAGE)
        experiments = {item.experiment_id: experiment_of(item) for item in found}
        registry, _ = read_registry(
            self.client, self.reader.at_once, lambda version, model: _is_loaded(version, model, settings)
        )
        served, named = served_runs(settings, registry), _named(registry)
        rows = {run.run_id: run for run in self._marked(experiments, settings)}
        wanted = {*rows, *served, *also}
        asked = wanted | {key for key in named if not is_model(key)}
        rows |= {run.run_id: run for run in self._by_id(experiments, asked - rows.keys())}
        models = {
            model.model_id: model
            for model in self._models(
                experiments, {"source_run_id": wanted, "model_id": {key for key in named if is_model(key)}}
            )
        }
        homes = {key: run.experiment_id for key, run in rows.items()}
        homes |= {key: model.experiment_id for key, model in models.items()}
        behind = {key: _state(key, rows, homes) for key in named if key in homes}
        wanted |= to_restore(behind, {}, experiments)
        kept = [key for key, item in experiments.items() if keeps_journals(item)]
        full, counted = self._journals(kept)
        external = {key for key, model in models.items() if says_external(model.tags)}
        counts = self._counts(experiments) | counted
        return Snapshot(
            info=info,
            taken_at=int(time.time() * 1000),
            experiments={key: replace(item, runs=counts.get(key, {})) for key, item in experiments.items()},
            runs={
                key: rows[key]
                for key in sorted(wanted & rows.keys())
                if not is_retracted(rows[key].lifecycle, rows[key].tags)
            }
            | full,
            logged_models={key: model for key, model in models.items() if model.source_run_id in wanted},
            registered_models=placed(registry, homes, external),
            behind_versions=behind,
            counted=False,
        )

    def _runs(self, experiments: Iterable[str], where: str, view: str) -> Iterator[Run]:
        for chunk in chunks([*experiments], EXPERIMENTS_A_SEARCH):
            body = {"experiment_ids": chunk, "filter": where, "run_view_type": view, "max_results": PAGE}
            for page in self.rest.pages(SEARCH_RUNS, body):
                yield from map(run_of, page.get("runs", ()))

    def _marked(self, experiments: Mapping[str, Experiment], settings: Settings) -> Iterator[Run]:
        """The active runs with a tag that says production."""
        active, marks = [key for key, item in experiments.items() if item.active], sought_folded(settings)
        for key, pattern in sorted({(key, _pattern(value)) for key, value in sought(settings)}):
            if "`" in key:
                raise NoFilterError(f"no filter can name the tag {key}")
            yield from self._with_tag(active, key, pattern, marks)

    def _with_tag(
        self, experiments: list[str], key: str, pattern: str, marks: Collection[tuple[str, str]]
    ) -> Iterator[Run]:
        """Those whose tag is the value in any case, with space around it or not; without, where too many hold it within
        another word.
        """
        found, others = list[Run](), 0
        for wanted in (f"%{pattern}%", pattern):
            for run in self._runs(experiments, f"tags.`{key}` ILIKE '{wanted}'", "ACTIVE_ONLY"):
                if any((folded(own), folded(value)) in marks for own, value in run.tags.items()):
                    found.append(run)
                else:
                    others += 1
                if others == PAGE and wanted != pattern:
                    break
            else:
                break
        yield from found

    def _by_id(self, experiments: Iterable[str], ids: Iterable[str]) -> Iterator[Run]:
        """Those of some runs that are there, deleted or not."""
        plain, others = _sorted_out(ids)
        for chunk in chunks(plain, IDS_A_FILTER):
            yield from self._runs(experiments, f"attributes.run_id IN ({_quoted(chunk)})", "ALL")
        yield from self.reader.full_runs(others).values()

    def _models(self, experiments: Iterable[str], wanted: Mapping[str, Iterable[str]]) -> Iterator[LoggedModel]:
        """The active logged models of which an attribute is one of some ids."""
        for attribute, ids in wanted.items():
            plain, others = _sorted_out(ids)
            for chunk in chunks(plain, IDS_A_FILTER):
                for homes in chunks([*experiments], EXPERIMENTS_A_SEARCH):
                    where = f"{attribute} IN ({_quoted(chunk)})"
                    yield from map(
                        model_of,
                        pages(
                            self.client.search_logged_models,
                            experiment_ids=homes,
                            filter_string=where,
                            max_results=PAGE,
                        ),
                    )
            if attribute == "model_id":
                asked = (get_or_none(self.client.get_logged_model, key) for key in others)
                yield from (model_of(model) for model in asked if model is not None)

    def _journals(self, homes: list[str]) -> tuple[dict[str, Run], dict[str, dict[tuple[str, str], int]]]:
        """The runs of experiments that keep journals, in full and counted: what is not a journal shows in anything."""
        found = list(self._runs(homes, "", "ALL")) if homes else []
        counts: dict[str, Counter[tuple[str, str]]] = {key: Counter() for key in homes}
        for run in found:
            counts[run.experiment_id][run.lifecycle, run.status] += 1
        full = self.reader.full_runs([run.run_id for run in found if run.active])
        return full, {key: dict(number) for key, number in counts.items()}

    def _counts(self, experiments: Mapping[str, Experiment]) -> dict[str, dict[tuple[str, str], int]]:
        """What decides something in itself: whether Default holds a run, and which active ones deleted experiments do;
        at least so many.
        """
        found: dict[str, Counter[tuple[str, str]]] = {}
        default = experiments.get(DEFAULT)
        deleted = [key for key, item in experiments.items() if not item.active]
        asked = [([DEFAULT], 1)] if default is not None and default.active else []
        asked += [(chunk, PAGE) for chunk in chunks(deleted, EXPERIMENTS_A_SEARCH)]
        for homes, most in asked:
            answer = self.rest.post(
                SEARCH_RUNS, {"experiment_ids": homes, "run_view_type": "ACTIVE_ONLY", "max_results": most}
            )
            for run in map(run_of, answer.get("runs", ())):
                found.setdefault(run.experiment_id, Counter())[run.lifecycle, run.status] += 1
        return {key: dict(number) for key, number in found.items()}


def _is_loaded(version: ModelVersion, model: RegisteredModel, settings: Settings) -> bool:
    """Whether a rule without files asks where a version's files lie: what programs load, and what names another version
    and so no run or model itself.
    """
    wanted = {
        (product.production.registered_model, model.aliases.get(product.production.alias))
        for product in settings.products
    }
    names_another = version.source.startswith(NAMES_A_MODEL) and not any(map(is_model, named_in(version)))
    return (model.name, version.version) in wanted or names_another


def _named(registry: Mapping[str, RegisteredModel]) -> set[str]:
    """Ids of the runs and logged models that versions name."""
    return {key for item in registry.values() for version in item.versions for key in named_in(version)}


def _state(key: str, rows: Mapping[str, Run], homes: Mapping[str, str]) -> RowState:
    return RowState(rows[key].lifecycle if key in rows else ACTIVE, homes[key])


def _pattern(value: str) -> str:
    """The pattern of a value in any case; it may match others too."""
    return _ANY_ONE.sub("_", value)


def _sorted_out(ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Ids that can stand in a filter, and those of other signs, which rows may hold too."""
    found = sorted(ids)
    return [key for key in found if _PLAIN_ID.fullmatch(key)], [key for key in found if not _PLAIN_ID.fullmatch(key)]


def _quoted(ids: Iterable[str]) -> str:
    return ", ".join(f"'{key}'" for key in ids)
