"""Rules about artifact files: stored once, owned, reachable, unchanged, complete."""

from __future__ import annotations

import os
from collections import Counter, defaultdict

from mlflow_compliance.api import (
    NOT_SIGNED,
    ArtifactRoot,
    Artifacts,
    Context,
    EntityRef,
    Evidence,
    Experiment,
    Moved,
    Settings,
    Severity,
    Signed,
    Snapshot,
    Violations,
    bundle_of,
    first_of,
    in_folder,
    models_in_production,
    policy,
    quoted,
    upwards,
)

MOST = 5
"""Experiments named in one line."""


@policy("ART001", "No duplicate artifacts", Severity.MEDIUM)
def test_every_artifact_is_stored_once(
    artifact_root: ArtifactRoot, artifacts: Artifacts, settings: Settings, violations: Violations
) -> None:
    """The same bytes stored again and again cost space and hide which of them somebody relies on."""
    expected = (
        f"1 copy of what has {settings.duplicates.min_size} bytes or more ({settings.origin('duplicates.min_size')})"
    )
    for group in artifacts.duplicates(artifact_root.key):
        extra = artifacts.extras(group)
        first = artifacts.relative(group.paths[0])
        violations.add(
            "duplicate",
            f"stored {len(extra) + 1} times",
            entity=EntityRef("artifact", group.sha256, first),
            observed=f"{group.size * len(extra)} bytes too many",
            expected=expected,
        )
    pointers = sum(artifacts.root_of(path) == artifact_root for path in artifacts.pointers)
    if pointers:
        violations.note(
            f"{pointers} object{'s' * (pointers != 1)} point{'s' * (pointers == 1)} to another copy; each stays "
            "as it is"
        )
    for path, reason in sorted(artifacts.unread.items()):
        if artifacts.root_of(path) == artifact_root:
            violations.add(
                "not-compared",
                "could not be compared",
                entity=EntityRef("unread", path, artifacts.relative(path)),
                observed=reason,
                expected="a readable file",
            )
    for equal_archives in artifacts.equal_archives:
        if artifacts.root_of(equal_archives[0]) == artifact_root:
            first = artifacts.relative(equal_archives[0])
            if settings.duplicates.zip_members:
                entity = EntityRef("archive", equal_archives[0], first)
                violations.add(
                    "equal-archives",
                    f"{len(equal_archives)} archives with the same members",
                    entity=entity,
                    observed="bytes differ in time stamps only",
                    expected="1 archive",
                )
            else:
                violations.note(
                    f"{len(equal_archives)} archives hold the same members as {first}; their bytes differ, so "
                    "they are left alone"
                )


@policy("ART002", "No file that no row owns", Severity.MEDIUM)
def test_every_artifact_has_an_owner(artifact_root: ArtifactRoot, artifacts: Artifacts, violations: Violations) -> None:
    """What no run or model owns is found by nobody, backed up for ever, and was perhaps somebody's evidence."""
    for path, item in sorted(artifacts.ownerless.items()):
        if artifacts.root_of(path) == artifact_root:
            doubt = artifacts.doubt(path)
            if doubt and not doubt.way and not in_folder(path):
                doubt = None  # of what lies in a bucket it is known, but nothing is moved there
            violations.add(
                "unknown-owner" if doubt else "ownerless",
                f"unknown owner ({doubt.reason})" if doubt else "no run, model or experiment owns it",
                entity=EntityRef("artifact", path, artifacts.relative(path)),
                observed=f"{item.files} file{'s' * (item.files != 1)}, {item.size} bytes",
                expected="an owner in the store",
            )
    emptied = artifacts.emptied.get(artifact_root.path, 0)
    if emptied:
        violations.note(
            f"{emptied} empty folder{'s' * (emptied != 1)} in {artifact_root.path} that no row owns, as `mlflow "
            "gc` leaves them, stay"
        )


@policy("ART003", "Every row's artifacts can be reached", Severity.HIGH)
def test_artifacts_can_be_reached(
    store: Snapshot, artifacts: Artifacts, settings: Settings, violations: Violations
) -> None:
    """A row that points to another machine's drive is evidence that nobody can open."""
    _tell_what_is_mapped(artifacts, settings, violations)
    for item in artifacts.unreachable:
        subject = item.example if item.rows == 1 else EntityRef("place", item.place, item.place)
        named = [_called(store.experiments[key]) for key in item.experiments if key in store.experiments]
        shown = f" of {first_of(named, MOST)}" if named else ""
        rows = f"{item.rows} row{'s' * (item.rows != 1)}{shown} below {item.place}"
        aside = artifacts.aside(item.example.place)
        where = f"; what it misses lies in {aside.path}, see ART006" if aside else ""
        moved = artifacts.moved_from(item.place)
        toml = "\n".join(
            [
                "[store.relocate]",
                *(f"{quoted(found.prefix)} = {quoted(found.folder)}" for found in moved if found.folder),
            ]
        )
        violations.add(
            "unreachable",
            f"its artifacts cannot be reached: {item.reason}{where}",
            entity=subject,
            observed="; ".join([rows, *map(_found, moved)]),
            toml=toml if any(found.folder for found in moved) else "",
        )


def _found(moved: Moved) -> str:
    """What is known of where the files of moved rows are."""
    shown = moved.folder or f"each of {' and '.join(moved.folders)}, which are not told apart"
    return f"the ids of {moved.rows} of {moved.of} of them are in {shown}"


def _tell_what_is_mapped(artifacts: Artifacts, settings: Settings, violations: Violations) -> None:
    """What `[store.relocate]` is needed for, and what not."""
    places = Counter(item.prefix for item in artifacts.elsewhere)
    for prefix, number in sorted(places.items()):
        words = (
            f"{number} places in rows begin with {prefix}" if number != 1 else f"1 place in a row begins with {prefix}"
        )
        once = "once all files that they speak of are there"
        violations.offer(
            "relocated",
            f"{words} and are read elsewhere: --fix rewrites them {once}",
            entity=EntityRef("place", prefix, prefix),
        )
    for prefix in sorted(settings.store.relocate):
        if not places[prefix] and artifacts.relocated.get(prefix):
            violations.note(
                f"what begins with {prefix} is read elsewhere and stays as it is in the rows: whoever reads "
                "through it goes on to"
            )
        elif not places[prefix]:
            violations.note(f"no row begins with {prefix}: its line in [store.relocate] is not needed")


def _called(experiment: Experiment) -> str:
    """An experiment as a list of them names it."""
    return f"{experiment.name!r}{'' if experiment.active else ' (deleted)'}"


@policy("ART004", "Recorded hashes still hold", Severity.HIGH)
def test_recorded_hashes_hold(
    artifact_root: ArtifactRoot, artifacts: Artifacts, evidence: Evidence, context: Context, violations: Violations
) -> None:
    """Paths that share a physical copy change together when one is written in place; the hash on record tells. So does
    the bundle beside a signed model, where the settings name a key.
    """
    judged = _tell_signatures(artifact_root, artifacts, evidence, context, violations) if evidence.judged_by else ()
    closed = tuple(place.rstrip("/") + "/" for place in {item.place for item in artifacts.unknown.values()} if place)
    owned = frozenset(place for (kind, _), place in artifacts.locations.items() if kind != "experiment")
    elsewhere = 0
    for path, digest in sorted(artifacts.recorded.items()):
        root, found = artifacts.root_of(path), artifacts.hashes.get(path)
        elsewhere += root is None
        if root != artifact_root or path in judged:
            continue
        entity = EntityRef("artifact", path, artifacts.relative(path))
        if path.startswith(closed):
            violations.not_evaluated(
                "not-looked-at", "the place that it lies in could not be looked at: see ART003", entity=entity
            )
            continue
        if found is not None and found != digest:
            violations.add(
                "changed",
                "its bytes changed since they went on record",
                entity=entity,
                observed=f"sha256 {found[:16]}…",
                expected=f"sha256 {digest[:16]}…",
            )
        elif path in artifacts.unread:
            violations.add(
                "unreadable",
                "cannot be read, so nobody knows whether its bytes are those on record",
                entity=entity,
                observed=artifacts.unread[path],
            )
        elif path not in artifacts.files and _has_a_row(path, owned):
            violations.add(
                "gone",
                "is gone since its bytes went on record",
                entity=entity,
                expected=f"a file with sha256 {digest[:16]}…",
            )
    if elsewhere and artifact_root == artifacts.roots[0]:
        violations.note(
            f"{elsewhere} hashes on record are of paths outside every artifact root (a store that was moved?): "
            "they were not compared"
        )


def _tell_signatures(
    root: ArtifactRoot, artifacts: Artifacts, evidence: Evidence, context: Context, violations: Violations
) -> set[str]:
    """What the bundles say of the models in production; the paths of the bundles."""
    folders = [folder for product in context.settings.products for folder in models_in_production(product, context)]
    bundles = set()
    for folder in dict.fromkeys(folders):
        if artifacts.root_of(folder) != root:
            continue
        entity = EntityRef("model_folder", folder, artifacts.relative(folder))
        # One that is only planned has no bundle yet.
        found = evidence.signatures.get(folder) or Signed(bundle_of(folder), NOT_SIGNED)
        bundles.add(found.path)
        if found.unknown:
            violations.not_evaluated("not-looked-at", found.unknown, entity=entity)
        for problem in found.problems:
            violations.add(
                problem.code,
                problem.text,
                entity=entity,
                observed=artifacts.relative(found.path),
                expected=f"a bundle of all its files, with the key {evidence.judged_by[:16]}",
                severity=Severity.CRITICAL,
            )
    return bundles


def _has_a_row(path: str, owned: frozenset[str]) -> bool:
    """Whether a run or model has its folder above a path; what `mlflow gc` took with its row is nobody's loss."""
    return any(above in owned for above in upwards(os.path.dirname(path)))


@policy(
    "ART005",
    "Every model folder is complete",
    Severity.HIGH,
    advice="put the missing file back, or log the model again and retire this run",
)
def test_model_folders_are_complete(artifact_root: ArtifactRoot, artifacts: Artifacts, violations: Violations) -> None:
    """MLmodel names the files that loading needs; a row that says READY does not look at them."""
    elsewhere = 0
    versions: dict[str, list[str]] = defaultdict(list)
    for (kind, key), place in sorted(artifacts.locations.items()):
        if kind == "model_version":
            versions[place].append(key)
    for path, model in sorted(artifacts.models.items()):
        if artifacts.root_of(path) != artifact_root:
            continue
        if model.error or model.missing or model.empty:
            entity = EntityRef("model_folder", path, artifacts.relative(path))
            used = versions.get(path)
            what = f"an incomplete model, registered as {', '.join(used)}" if used else "an incomplete model"
            violations.add(
                "incomplete",
                what,
                entity=entity,
                observed=model.problem,
                expected="every file that MLmodel names, none empty",
            )
        elsewhere += _names_another_place(model.artifact_path, path)
    if elsewhere:
        violations.note(
            f"{elsewhere} MLmodel files name an artifact_path that is not where they lie (written on another "
            "machine, or copied)"
        )


def _names_another_place(artifact_path: str, folder: str) -> bool:
    """Whether an absolute location in MLmodel ends otherwise than the folder that it lies in."""
    text = artifact_path.replace("\\", "/")
    absolute = text.startswith(("/", "file:")) or text[1:3] == ":/"
    return absolute and not text.endswith(folder) and os.path.isabs(folder)


@policy("ART006", "Nothing that a row owns lies in quarantine", Severity.HIGH)
def test_nothing_owned_lies_in_quarantine(
    artifact_root: ArtifactRoot, artifacts: Artifacts, violations: Violations
) -> None:
    """What was put aside as nobody's is missed by its owner when the right database is back."""
    for path, item in sorted(artifacts.quarantined.items()):
        if item.root == artifact_root.path:
            number = len(item.files)
            violations.add(
                "owned",
                f"it lies in quarantine and {item.owner} owns it",
                entity=EntityRef("artifact", path, artifacts.relative(path)),
                observed=f"{number} file{'s' * (number != 1)}, {item.size} bytes",
                expected=f"at {artifacts.relative(item.former)}",
            )
    for path, reason in sorted(artifacts.illegible.items()):
        if artifacts.root_of(path) == artifact_root:
            violations.add(
                "manifest",
                f"the manifest of a quarantine cannot be understood: {reason}",
                entity=EntityRef("artifact", path, artifacts.relative(path)),
                expected="one line for each thing that was put aside, as it was written",
                severity=Severity.MEDIUM,
            )
