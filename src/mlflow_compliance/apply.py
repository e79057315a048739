"""Carries out a plan: journalled change by change, then the store is read anew and compared with what was planned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime, timezone

from mlflow_compliance.artifacts import Artifacts
from mlflow_compliance.changes import JOURNAL, NOW, Change, CopyRun, Writer, bind
from mlflow_compliance.changes.runs import UNKNOWN_SIZE
from mlflow_compliance.entities import EntityRef, RegisteredModel, Snapshot
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.journal import Journal
from mlflow_compliance.plan import Plan, Step, batches, fold
from mlflow_compliance.uris import without_secrets

TOGETHER = 50
"""Runs that are copied together: they share the transactions, and a program that is killed has so many to copy again at most."""
_SHOWN = 200


@dataclass
class Outcome:
    """What was done: the changes that were carried out, and per finding the change that failed and why."""

    applied: list[Change] = field(default_factory=list)
    failed: list[tuple[Step, str]] = field(default_factory=list)
    done: dict[str, list[str]] = field(default_factory=dict)
    """Fingerprint of a finding -> what was done about it, in lines for people."""


def apply_plan(plan: Plan, writer: Writer, binding: dict[str, str], journal: Journal, store: str, progress: Callable[[], None]) -> Outcome:
    """Carry out every step. A change that fails ends its own step, since the rest of it builds on it; the other steps go on."""
    at = datetime.now(timezone.utc)
    binding[JOURNAL] = journal.id
    binding[NOW] = at.isoformat(timespec="seconds")
    journal.header(store, at, len(plan.changes))
    outcome, number, lost = Outcome(), 0, set[EntityRef]()
    for step in plan.steps:
        for alike in batches(step.changes, TOGETHER):
            numbers = range(number + 1, number + 1 + len(alike))
            bound: list[dict[str, str]] = []
            failure: ChangeError | None = None
            for _ in alike:
                progress()
            try:
                for change in alike:
                    _refuse_after_failure(change, lost)
                journal.begin_all(step.finding.policy, [(n, change, change.inverse(writer)) for n, change in zip(numbers, alike, strict=True)])
                number = numbers[-1]
                bound, failure = _write(alike, writer, binding)
            except ChangeError as error:
                # Nothing of it was begun.
                number, failure = numbers[0], error
            journal.done_all(list(zip(numbers, bound, strict=False)))
            done = alike[: len(bound)]
            outcome.applied += done
            outcome.done.setdefault(step.finding.fingerprint, []).extend(bind(change.says(), binding) for change in done)
            if failure is not None:
                first = numbers[len(bound)]
                journal.failed(first, str(failure))
                for later in range(first + 1, number + 1):
                    journal.failed(later, f"change {first} failed before it")
                outcome.failed.append((step, f"{alike[len(bound)].says()}: {failure}"))
                lost.update(_key(other) for other in step.changes)
                _refuse_to_go_on_without(writer, journal, len(outcome.applied), len(plan.changes))
                break
    journal.close(len(outcome.applied), len(outcome.failed))
    return outcome


def _refuse_to_go_on_without(writer: Writer, journal: Journal, made: int, planned: int) -> None:
    """A change may have failed because its store went away: every other one would fail too."""
    try:
        writer.reach()
    except StoreError as gone:
        done = f"{made} of {planned} changes were made, journal: {journal.path}"
        raise StoreError(f"the store went away during the repair ({done}): bring it back, then run --fix again to finish; {gone}") from gone


def _write(alike: Sequence[Change], writer: Writer, binding: Mapping[str, str]) -> tuple[list[dict[str, str]], ChangeError | None]:
    """Make changes in order: the symbols that each one bound, and what stopped the first that could not be made."""
    copies = [change for change in alike if isinstance(change, CopyRun)]
    if len(copies) == len(alike) > 1:
        # Where that fails nothing of it is left, and one by one shows which of them it was.
        with suppress(ChangeError):
            return writer.copy_runs(copies), None
    bound: list[dict[str, str]] = []
    for change in alike:
        known = set(binding)
        try:
            change.write(writer)
        except ChangeError as error:
            return bound, error
        bound.append({symbol: value for symbol, value in binding.items() if symbol not in known})
    return bound, None


def _refuse_after_failure(change: Change, lost: set[EntityRef]) -> None:
    if _key(change) in lost:
        raise ChangeError(f"an earlier change of {change.entity} failed")


def _key(change: Change) -> EntityRef:
    return EntityRef(change.entity.kind, change.entity.key)


def expected_after(start: Snapshot, applied: list[Change], binding: Mapping[str, str]) -> Snapshot:
    """What the store must be after the changes that were carried out, with symbols bound."""
    return bound(fold(applied, start), binding)


def bound(snapshot: Snapshot, binding: Mapping[str, str]) -> Snapshot:
    """A folded snapshot with the ids and times that the writing brought."""

    def own(text: str) -> str:
        return bind(text, binding)

    def ref(item: EntityRef | None) -> EntityRef | None:
        return item and EntityRef(item.kind, own(item.key), item.label)

    experiments = {key: replace(item, tags={tag: own(value) for tag, value in item.tags.items()}) for key, item in snapshot.experiments.items()}
    runs = {
        own(key): replace(
            run,
            run_id=own(run.run_id),
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
            files={own(path): file._replace(copy=own(file.copy), owner=ref(file.owner)) for path, file in artifacts.files.items()},
            hashes={own(path): digest for path, digest in artifacts.hashes.items()},
            locations={(kind, own(key)): own(path) for (kind, key), path in artifacts.locations.items()},
            pointers={
                own(path): pointer._replace(kept=own(pointer.kept), quarantined=own(pointer.quarantined), journal=own(pointer.journal))
                for path, pointer in artifacts.pointers.items()
            },
            models={
                own(path): model._replace(path=own(path), owner=ref(model.owner), artifact_path=own(model.artifact_path))
                for path, model in artifacts.models.items()
            },
        )
    return replace(snapshot, experiments=experiments, runs=runs, logged_models=models, registered_models=registered, artifacts=artifacts)


def _bound_model(model: RegisteredModel, own: Callable[[str], str]) -> RegisteredModel:
    versions = tuple(
        replace(
            version,
            version=own(version.version),
            run_id=own(version.run_id) if version.run_id else None,
            source=own(version.source),
            location=own(version.location),
        )
        for version in model.versions
    )
    return replace(model, versions=versions, aliases={alias: own(version) for alias, version in model.aliases.items()})


def differences(expected: Snapshot, actual: Snapshot) -> list[str]:
    """Where a store that was read differs from what was planned: one line each, none when it is the same.

    The runs that were read in full are compared where the plan knows them; inodes are compared by which paths share one.
    """
    found = _unlike("experiment", expected.experiments, actual.experiments)
    found += _unlike("run", expected.runs, {key: run for key, run in actual.runs.items() if key in expected.runs})
    found += _unlike(
        "logged model", expected.logged_models, {key: item for key, item in actual.logged_models.items() if key in expected.logged_models}
    )
    found += _unlike("registered model", expected.registered_models, actual.registered_models)
    found += _unlike("metric file", expected.repeated_points, actual.repeated_points)
    if expected.artifacts and actual.artifacts:
        found += _unlike("artifact", _files(expected.artifacts), _sized_as(expected.artifacts, _files(actual.artifacts)))
        found += _unlike("ownerless folder", dict.fromkeys(expected.artifacts.ownerless), dict.fromkeys(actual.artifacts.ownerless))
        found += _unlike("in quarantine and owned:", dict.fromkeys(expected.artifacts.quarantined), dict.fromkeys(actual.artifacts.quarantined))
        found += _unlike("prefix in [store.relocate]", expected.artifacts.relocated, actual.artifacts.relocated)
        found += _unlike("note of this store in", dict.fromkeys(expected.artifacts.claimed), dict.fromkeys(actual.artifacts.claimed))
        found += _unlike("pointer of", expected.artifacts.pointers, actual.artifacts.pointers)
        found += _unlike_contents(expected.artifacts, actual.artifacts)
    return found


def _unlike(kind: str, expected: Mapping[str, object], actual: Mapping[str, object]) -> list[str]:
    lines = [f"{kind} {key} is missing" for key in sorted(expected.keys() - actual.keys())]
    lines += [f"{kind} {key} was not planned" for key in sorted(actual.keys() - expected.keys())]
    both = sorted(key for key in expected.keys() & actual.keys() if expected[key] != actual[key])
    return lines + [f"{kind} {key} {_difference(expected[key], actual[key])}" for key in both]


def _difference(expected: object, actual: object) -> str:
    """What differs, field by field where there are fields."""
    if not is_dataclass(expected) or not is_dataclass(actual):
        return f"is {actual} and not {expected}"
    pairs = [(item.name, getattr(actual, item.name), getattr(expected, item.name)) for item in fields(expected)]
    differing = [(name, *_only_where_unlike(found, planned)) for name, found, planned in pairs if found != planned]
    return "; ".join(f"has {name} {_short(found)} and not {_short(planned)}" for name, found, planned in differing)


def _only_where_unlike(found: object, planned: object) -> tuple[object, object]:
    if not isinstance(found, Mapping) or not isinstance(planned, Mapping):
        return found, planned
    same = {key for key, value in found.items() if key in planned and planned[key] == value}
    return {key: value for key, value in found.items() if key not in same}, {key: value for key, value in planned.items() if key not in same}


def _short(value: object) -> str:
    """A run may have a million metric points, and a param 6000 characters."""
    text = without_secrets(str(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _unlike_contents(expected: Artifacts, actual: Artifacts) -> list[str]:
    """A file is read only while it may be a duplicate: one of several equal copies that was not read is equal to them no more."""
    copies: dict[str, set[str]] = defaultdict(set)
    for path, digest in expected.hashes.items():
        copies[digest].add(expected.files[path].copy)
    return [
        f"artifact {path} holds {actual.hashes.get(path, 'something else')} and not {digest}"
        for path, digest in sorted(expected.hashes.items())
        if path in actual.files and actual.hashes.get(path, digest if len(copies[digest]) == 1 else "") != digest
    ]


def _files(artifacts: Artifacts) -> dict[str, tuple[int, str, EntityRef | None]]:
    """Path -> size, the first path that shares its physical copy, owner (by id)."""
    first: dict[str, str] = {}
    for path in sorted(artifacts.files):
        first.setdefault(artifacts.files[path].copy, path)
    return {path: (file.size, first[file.copy], file.owner and EntityRef(file.owner.kind, file.owner.key)) for path, file in artifacts.files.items()}


def _sized_as(expected: Artifacts, actual: dict[str, tuple[int, str, EntityRef | None]]) -> dict[str, tuple[int, str, EntityRef | None]]:
    """The files that were read, with the sizes that a plan could not know left out of the comparison."""
    unknown = {path for path, file in expected.files.items() if file.size == UNKNOWN_SIZE}
    return {path: (UNKNOWN_SIZE, *facts[1:]) if path in unknown else facts for path, facts in actual.items()}
