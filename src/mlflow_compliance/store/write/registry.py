"""The effects of changes on the model registry: a version, an alias."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from mlflow_compliance.changes import JOURNAL, PutAliasBack, RegisterVersion, RetractVersion, SetAlias
from mlflow_compliance.changes.base import still
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.tags import BUILT_IN
from mlflow_compliance.store.backends.listing import get_or_none, pages
from mlflow_compliance.store.write.bulk import add_alias, one_transaction, registry_store
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """MLflow looks up the source of a version in the store of the process, whatever the client's is."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        # It takes the variable away where no URI had been set by a call.
        if named is not None:
            os.environ["MLFLOW_TRACKING_URI"] = named


@write.register(RegisterVersion)
def register_version(change: RegisterVersion, to: OpenStore) -> None:
    with one_sentence(f"a version of registered model {change.name!r} could not be made"):
        if change.makes_model:
            to.client.create_registered_model(change.name)
        with default_store(to.store.uri):
            made = to.client.create_model_version(
                change.name,
                f"models:/{to.bind(change.model_id)}",
                run_id=to.bind(change.run_id),
                tags={BUILT_IN: to.bind(JOURNAL)},
            )
        to.binding[change.version] = str(made.version)


@inverse.register(RegisterVersion)
def undo_register_version(change: RegisterVersion, to: OpenStore) -> RetractVersion:
    # Its number is known once it is written: it is found again by what it was made of and by its tag.
    return RetractVersion(change.name, to.bind(change.model_id), change.makes_model, to.bind(JOURNAL))


@write.register(RetractVersion)
def retract_version(change: RetractVersion, to: OpenStore) -> None:
    name, what = change.name, f"the version of registered model {change.name!r} that was made of {change.model_id}"
    with one_sentence(f"{what} could not be taken back"):
        registered = get_or_none(to.client.get_registered_model, name)
        if registered is None:
            return
        versions = list(pages(to.client.search_model_versions, filter_string=f"name = {_quoted(name)}"))
        made = [version for version in versions if change.made(version.source, version.tags)]
        if change.journal and not made and any(version.source == f"models:/{change.model_id}" for version in versions):
            raise ChangeError(f"{what} does not say any more that {change.journal} made it: it is left as it is")
        if len(made) > 1 and not change.journal:
            raise ChangeError(f"{what} is there {len(made)} times, and which one a repair made is not known: they stay")
        for version in made:
            _refuse_changed(version, registered, what, change.journal)
        removed = change.removes_model and len(made) == len(versions)
        if removed and (registered.description or registered.tags or registered.aliases):
            raise ChangeError(
                f"registered model {name!r} got a description, tags or aliases since a repair made it: it is left as "
                "it is, with its version"
            )
        for version in made:
            to.client.delete_model_version(name, version.version)
        if removed:
            to.client.delete_registered_model(name)


def _refuse_changed(version: Any, registered: Any, what: str, journal: str) -> None:
    """Raise ChangeError where somebody gave a version something since a repair made it."""
    number = str(version.version)
    aliases = sorted(alias for alias, other in registered.aliases.items() if str(other) == number)
    given = [f"the alias {alias!r}" for alias in aliases]
    given += [f"the tag {key!r}" for key in sorted(version.tags) if (key, version.tags[key]) != (BUILT_IN, journal)]
    given += ["a description"] if version.description else []
    given += [f"the stage {version.current_stage}"] if version.current_stage not in (None, "", "None") else []
    if given:
        raise ChangeError(f"{what}, version {number}, got {', '.join(given)} since: it is left as it is")


def _quoted(name: str) -> str:
    """A name as MLflow's filters take it."""
    return f'"{name}"' if "'" in name else f"'{name}'"


@inverse.register(RetractVersion)
def undo_retract_version(change: RetractVersion, to: OpenStore) -> None:
    """What it was made of is still there and can be registered again."""


@write.register(SetAlias)
def set_alias(change: SetAlias, to: OpenStore) -> None:
    with one_sentence(f"registered model {change.name!r} could not be read"):
        aliases = {
            alias: str(version) for alias, version in to.client.get_registered_model(change.name).aliases.items()
        }
    still(aliases.get(change.alias), change.before, f"alias {change.alias} of registered model {change.name}")
    with to.naming(
        f"alias {change.alias!r} of registered model {change.name!r} could not be changed", change.alias, aliases
    ):
        if change.version is None:
            to.client.delete_registered_model_alias(change.name, change.alias)
        else:
            to.client.set_registered_model_alias(change.name, change.alias, to.bind(change.version))


@inverse.register(SetAlias)
def undo_set_alias(change: SetAlias, to: OpenStore) -> SetAlias | PutAliasBack:
    if change.version is None and change.before is not None and not _is_there(to, change.name, change.before):
        return PutAliasBack(change.name, change.alias, change.before)
    return SetAlias(
        change.name, change.alias, change.before, None if change.version is None else to.bind(change.version)
    )


def _is_there(to: OpenStore, name: str, version: str) -> bool:
    with one_sentence(f"version {version} of registered model {name!r} could not be read"):
        return get_or_none(lambda key: to.client.get_model_version(name, key), version) is not None


@write.register(PutAliasBack)
def put_alias_back(change: PutAliasBack, to: OpenStore) -> None:
    name, alias = change.name, change.alias
    what = f"alias {alias!r} of registered model {name!r} could not be put back"
    if not to.in_tables:
        raise ChangeError(
            f"{what}: a tracking server lets no alias name a version that is not there, as version {change.version}"
        )
    with one_sentence(what):
        aliases = to.client.get_registered_model(name).aliases
        if alias in aliases:
            raise ChangeError(f"{what}: it names version {aliases[alias]} by now")
        store = registry_store(to.client)
        with to.naming(what, alias, aliases), one_transaction(store) as session:
            add_alias(session, store, name, alias, int(change.version))


@inverse.register(PutAliasBack)
def undo_put_alias_back(change: PutAliasBack, to: OpenStore) -> SetAlias:
    return SetAlias(change.name, change.alias, None, change.version)
