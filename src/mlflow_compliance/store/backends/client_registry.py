"""The model registry as MlflowClient gives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from mlflow.tracking import MlflowClient

from mlflow_compliance.snapshot.entities import ModelVersion, RegisteredModel
from mlflow_compliance.snapshot.ties import sources_of
from mlflow_compliance.snapshot.unfinished import HalfMade
from mlflow_compliance.store.backends.base import IS_PROMPT, home_of
from mlflow_compliance.store.backends.client_unfinished import half_made_version
from mlflow_compliance.store.backends.listing import PAGE, each, pages

NAMES_A_MODEL = "models:/"
"""How a source begins that is no place for files."""


class Registry(NamedTuple):
    """Registered models by name, and those of their versions that are half made. The experiments that versions come
    from are not filled in.
    """

    models: dict[str, RegisteredModel]
    half_made: list[HalfMade]


def read_registry(
    client: MlflowClient, at_once: int, located: Callable[[ModelVersion, RegisteredModel], bool] = lambda *_: True
) -> Registry:
    """The whole registry. Where their files lie is asked one by one, so many at a time, of the versions for which
    `located` says that somebody needs it. Of the others it is taken to be their source, and left empty where that only
    names a model.
    """
    found = {
        item.name: RegisteredModel(
            item.name,
            dict(item.tags),
            {alias: str(version) for alias, version in item.aliases.items()},
            (),
        )
        for item in pages(client.search_registered_models, max_results=PAGE)
        if IS_PROMPT not in item.tags
    }
    versions: dict[str, list[ModelVersion]] = defaultdict(list)
    half_made: dict[str, list[HalfMade]] = defaultdict(list)
    for item in pages(client.search_model_versions, max_results=PAGE):
        facts = ModelVersion(
            item.name,
            str(item.version),
            item.run_id or None,
            item.source or "",
            "" if (item.source or "").startswith(NAMES_A_MODEL) else item.source or "",
            item.status or "",
            item.current_stage or "None",
            dict(item.tags),
            run_link=item.run_link or "",
        )
        versions[item.name].append(facts)
        half_made[item.name] += half_made_version(facts, item)
    asked = [
        version
        for name, listed in versions.items()
        for version in listed
        if name in found and located(version, found[name])
    ]

    def place(version: ModelVersion) -> str:
        return client.get_model_version_download_uri(version.name, version.version) or ""

    places = {version.ref.place: at for version, at in zip(asked, each(place, asked, at_once), strict=True)}
    return Registry(
        {
            name: replace(
                item,
                versions=tuple(
                    replace(version, location=places.get(version.ref.place, version.location))
                    for version in sorted(versions[name], key=lambda version: int(version.version))
                ),
            )
            for name, item in found.items()
        },
        [version for name in found for version in half_made[name]],
    )


def placed(
    models: Mapping[str, RegisteredModel], homes: Mapping[str, str], external: Collection[str]
) -> dict[str, RegisteredModel]:
    """The same with what the rows that versions come from say of them: `homes` is run or model -> experiment."""
    return {
        name: replace(item, versions=tuple(_placed(version, homes, external) for version in item.versions))
        for name, item in models.items()
    }


def _placed(version: ModelVersion, homes: Mapping[str, str], external: Collection[str]) -> ModelVersion:
    return replace(
        version,
        experiment_id=home_of(version, homes),
        external=any(key in external for key in sources_of(version)),
    )
