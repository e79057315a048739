"""The store as it must be after a repair, with the ids that MLflow gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mlflow_compliance.changes import Change, bind
from mlflow_compliance.repair.plan import fold
from mlflow_compliance.snapshot.entities import RegisteredModel
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


def expected_after(start: Snapshot, applied: list[Change], binding: Mapping[str, str]) -> Snapshot:
    """What the store must be after the changes that were carried out, with symbols bound."""
    return bound(fold(applied, start), binding)


def bound(snapshot: Snapshot, binding: Mapping[str, str]) -> Snapshot:
    """A folded snapshot with the ids and times that the writing brought."""

    def own(text: str) -> str:
        return bind(text, binding)

    def ref(item: EntityRef | None) -> EntityRef | None:
        return item and EntityRef(item.kind, own(item.key), item.label)

    experiments = {
        key: replace(item, tags={tag: own(value) for tag, value in item.tags.items()})
        for key, item in snapshot.experiments.items()
    }
    runs = {
        own(key): replace(
            run,
            run_id=own(run.run_id),
            user=own(run.user),
            artifact_uri=own(run.artifact_uri),
            tags={tag: own(value) for tag, value in run.tags.items()},
            models=tuple(sorted(link._replace(model_id=own(link.model_id)) for link in run.models)),
        )
        for key, run in snapshot.runs.items()
    }
    models = {
        own(key): replace(
            model,
            model_id=own(model.model_id),
            source_run_id=own(model.source_run_id) if model.source_run_id else None,
            artifact_location=own(model.artifact_location),
            tags={tag: own(value) for tag, value in model.tags.items()},
        )
        for key, model in snapshot.logged_models.items()
    }
    registered = {name: _bound_model(model, own) for name, model in snapshot.registered_models.items()}
    artifacts = snapshot.artifacts
    if artifacts is not None:
        artifacts = replace(
            artifacts,
            files={
                own(path): file._replace(copy=own(file.copy), owner=ref(file.owner))
                for path, file in artifacts.files.items()
            },
            hashes={own(path): digest for path, digest in artifacts.hashes.items()},
            locations={(kind, own(key)): own(path) for (kind, key), path in artifacts.locations.items()},
            pointers={
                own(path): pointer._replace(
                    kept=own(pointer.kept), quarantined=own(pointer.quarantined), journal=own(pointer.journal)
                )
                for path, pointer in artifacts.pointers.items()
            },
            models={
                own(path): model._replace(
                    path=own(path), owner=ref(model.owner), artifact_path=own(model.artifact_path)
                )
                for path, model in artifacts.models.items()
            },
        )
    return replace(
        snapshot,
        experiments=experiments,
        runs=runs,
        logged_models=models,
        registered_models=registered,
        artifacts=artifacts,
    )


def _bound_model(model: RegisteredModel, own: Callable[[str], str]) -> RegisteredModel:
    versions = tuple(
        replace(
            version,
            version=own(version.version),
            tags={tag: own(value) for tag, value in version.tags.items()},
            run_id=own(version.run_id) if version.run_id else None,
            source=own(version.source),
            location=own(version.location),
        )
        for version in model.versions
    )
    return replace(model, versions=versions, aliases={alias: own(version) for alias, version in model.aliases.items()})
