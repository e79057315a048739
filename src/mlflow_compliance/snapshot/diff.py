"""Where one snapshot differs from another, in lines for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import Experiment, RegisteredModel, Run
from mlflow_compliance.snapshot.files import UNKNOWN_SIZE
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot

_SHOWN = 200


def is_same(one: Snapshot, other: Snapshot) -> bool:
    """Whether two readings of a store, files and all, surely saw the same: not only what it says, but the states of
    the files that rules and remedies look into.
    """
    if not one.artifacts or not other.artifacts or not one.artifacts.states:
        return False
    # What is computed from files when it is asked for follows from their states.
    as_the_one = replace(other, taken_at=one.taken_at, evidence=one.evidence, sources=one.sources)
    return (
        one.artifacts.states == other.artifacts.states
        and as_the_one == one
        and (one.row_facts, one.journals) == (other.row_facts, other.journals)
    )


def differences(expected: Snapshot, actual: Snapshot) -> list[str]:
    """Where a store that was read differs from what was planned: one line each, none when it is the same.

    The runs that were read in full are compared where the plan knows them; inodes are compared by which paths share
    one.
    """
    found = _unlike("experiment", expected.experiments, actual.experiments)
    found += _unlike("run", expected.runs, {key: run for key, run in actual.runs.items() if key in expected.runs})
    found += _unlike(
        "logged model",
        expected.logged_models,
        {key: item for key, item in actual.logged_models.items() if key in expected.logged_models},
    )
    found += _unlike("registered model", expected.registered_models, actual.registered_models)
    found += _unlike("metric file", expected.repeated_points, actual.repeated_points)
    if expected.artifacts and actual.artifacts:
        found += _unlike(
            "artifact", _files(expected.artifacts), _sized_as(expected.artifacts, _files(actual.artifacts))
        )
        found += _unlike(
            "ownerless folder", dict.fromkeys(expected.artifacts.ownerless), dict.fromkeys(actual.artifacts.ownerless)
        )
        found += _unlike(
            "in quarantine and owned:",
            dict.fromkeys(expected.artifacts.quarantined),
            dict.fromkeys(actual.artifacts.quarantined),
        )
        found += _unlike("prefix in [store.relocate]", expected.artifacts.relocated, actual.artifacts.relocated)
        found += _unlike(
            "note of this store in", dict.fromkeys(expected.artifacts.claimed), dict.fromkeys(actual.artifacts.claimed)
        )
        found += _unlike("pointer of", expected.artifacts.pointers, actual.artifacts.pointers)
        found += _unlike_contents(expected.artifacts, actual.artifacts)
    return found


def shows_the_same(before: Snapshot, after: Snapshot) -> bool:
    """Whether rules without files see the same rows in a store that was read a second time; of an earlier one that was
    not counted, as far as that one saw them.
    """
    if before.counted:
        return replace(after, taken_at=before.taken_at) == before
    experiments = {key: replace(item, runs={}) for key, item in before.experiments.items()}
    return (
        experiments == {key: _as_not_counted(item) for key, item in after.experiments.items()}
        and {key: _versions(item) for key, item in before.registered_models.items()}
        == {key: _versions(item) for key, item in after.registered_models.items()}
        and all(_searched(run) == _searched(after.runs.get(key)) for key, run in before.runs.items())
    )


def _as_not_counted(item: Experiment) -> Experiment:
    return Experiment(
        item.experiment_id,
        item.name,
        item.lifecycle,
        item.artifact_location,
        item.tags,
        {},
        created=item.created,
    )


def _versions(item: RegisteredModel) -> RegisteredModel:
    return replace(item, versions=tuple(replace(version, location="") for version in item.versions))


def _searched(run: Run | None) -> object:
    """A run as a search tells of it: with the latest of each metric, and without the models that it read."""
    return run and (replace(run, metrics={}, models=()), run.latest)


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
    return {key: value for key, value in found.items() if key not in same}, {
        key: value for key, value in planned.items() if key not in same
    }


def _short(value: object) -> str:
    """A run may have a million metric points, and a param 6000 characters."""
    text = without_secrets(str(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _unlike_contents(expected: Artifacts, actual: Artifacts) -> list[str]:
    """A file is read only while it may be a duplicate: one of several equal copies that was not read is equal to
    them no more.
    """
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
    return {
        path: (file.size, first[file.copy], file.owner and EntityRef(file.owner.kind, file.owner.key))
        for path, file in artifacts.files.items()
    }


def _sized_as(
    expected: Artifacts, actual: dict[str, tuple[int, str, EntityRef | None]]
) -> dict[str, tuple[int, str, EntityRef | None]]:
    """The files that were read, with the sizes that a plan could not know left out of the comparison."""
    unknown = {path for path, file in expected.files.items() if file.size == UNKNOWN_SIZE}
    return {path: (UNKNOWN_SIZE, *facts[1:]) if path in unknown else facts for path, facts in actual.items()}
