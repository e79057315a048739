"""Rules about artifact files: stored once, owned, reachable, unchanged, complete."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from mlflow_compliance.api import (
    JOURNAL,
    KEPT_JOURNAL,
    KEPT_SHA256,
    METADATA,
    METADATA_HASH,
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
    Unreachable,
    Violations,
    bundle_of,
    first_of,
    hashes_on_record,
    held,
    in_folder,
    models_in_production,
    named_journals,
    policy,
    relocations,
    runs_on_record,
    upwards,
    without_hash,
)

MOST = 5
"""Experiments named in one line."""
FEW = 2
"""Long paths named in one line."""


@policy(
    "ART001",
    "No duplicate artifacts",
    Severity.MEDIUM,
    advice="log large inputs once and refer to them: `mlflow.log_input(mlflow.data.from_pandas(frame, "
    'source="s3://bucket/train.parquet"))`',
)
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
    unread = sorted(path for path in artifacts.unread if artifacts.root_of(path) == artifact_root)
    for path in unread if len(unread) <= MOST else ():
        violations.add(
            "not-compared",
            "could not be compared",
            entity=EntityRef("unread", path, artifacts.relative(path)),
            observed=artifacts.unread[path],
            expected="a readable file",
        )
    if len(unread) > MOST:
        reasons = Counter(artifacts.unread[path] for path in unread)
        violations.add(
            "not-compared",
            f"{len(unread)} files or folders could not be compared",
            entity=EntityRef("unread", artifact_root.path, artifact_root.path),
            observed=f"{'; '.join(f'{number} {reason}' for reason, number in reasons.most_common(MOST))}; such as "
            f"{first_of([artifacts.relative(path) for path in unread], FEW)}",
            expected="readable files",
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


@policy(
    "ART002",
    "No file that no row owns",
    Severity.MEDIUM,
    advice='if it is to stay, write `ignore = ["its/path/*"]` under [store] in compliance.toml; else '
    "move it out of the artifact root",
)
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


@policy(
    "ART003",
    "Every row's artifacts can be reached",
    Severity.HIGH,
    advice="bring the files back to where the rows say; or map the place under [store.relocate] in "
    'compliance.toml: `"file:///D:/code/mlruns" = "mlruns"`',
)
def test_artifacts_can_be_reached(
    store: Snapshot, artifacts: Artifacts, settings: Settings, violations: Violations
) -> None:
    """A row that points to another machine's drive is evidence that nobody can open."""
    _tell_what_is_mapped(artifacts, settings, violations)
    absent: dict[str, list[Unreachable]] = defaultdict(list)
    for item in artifacts.unreachable:
        absent[item.root].append(item)
    for root, items in absent.items():
        if root and len(items) > 1:
            _tell_what_is_absent(root, items, store, artifacts, violations)
    for item in artifacts.unreachable:
        if item.root and len(absent[item.root]) > 1:
            continue
        subject = item.example if item.rows == 1 else EntityRef("place", item.place, item.place)
        rows = f"{item.rows} row{'s' * (item.rows != 1)}{_of_which(item.experiments, store)} below {item.place}"
        aside = artifacts.aside(item.example.place)
        where = f"; what it misses lies in {aside.path}, see ART006" if aside else ""
        moved = artifacts.moved_from(item.place)
        lines = list(relocations(moved))
        violations.add(
            "unreachable",
            f"its artifacts cannot be reached: {item.reason}{where}",
            entity=subject,
            observed="; ".join([rows, *map(_found, moved)]),
            toml="\n".join(["[store.relocate]", *lines]) if lines else "",
        )


def _tell_what_is_absent(
    root: str, items: Sequence[Unreachable], store: Snapshot, artifacts: Artifacts, violations: Violations
) -> None:
    """Folders of one root that are not there, in one line: which version or run that harms, other rules say."""
    aside = dict.fromkeys(found.path for item in items if (found := artifacts.aside(item.example.place)))
    where = f"; what some of their rows miss lies in {first_of(list(aside), MOST)}, see ART006" if aside else ""
    rows, homes = sum(item.rows for item in items), sorted({key for item in items for key in item.experiments})
    named = first_of([item.place for item in items], FEW)
    violations.add(
        "unreachable",
        f"{len(items)} folders that rows name are not there{where}",
        entity=EntityRef("place", root, root),
        observed=f"{rows} rows{_of_which(homes, store)}: {named}",
        expected="a folder for each",
    )


def _of_which(experiments: Iterable[str], store: Snapshot) -> str:
    """The experiments that rows are of, as a line names them after the rows."""
    named = [_called(store.experiments[key]) for key in experiments if key in store.experiments]
    return f" of {first_of(named, MOST)}" if named else ""


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


@policy(
    "ART004",
    "Recorded hashes still hold",
    Severity.HIGH,
    advice="bring the file back from a backup whose `sha256sum` is the one on record; if the change "
    "was meant, log a new run with it",
)
def test_recorded_hashes_hold(
    artifact_root: ArtifactRoot,
    store: Snapshot,
    artifacts: Artifacts,
    evidence: Evidence,
    context: Context,
    violations: Violations,
) -> None:
    """What decides about people, and what explains it, must hold the bytes that it had when it was looked at; paths
    that share a physical copy change together when one is written in place. A signed model is held to its bundle.
    """
    if artifact_root == artifacts.roots[0]:
        _tell_of_journals(store, violations)
        _tell_of_metadata(store, evidence, context, violations)
    judged = _tell_signatures(artifact_root, artifacts, evidence, context, violations) if evidence.judged_by else ()
    closed = tuple(place.rstrip("/") + "/" for place in {item.place for item in artifacts.unknown.values()} if place)
    owned = frozenset(place for (kind, _), place in artifacts.locations.items() if kind != "experiment")
    elsewhere = 0
    for path, records in hashes_on_record(context).items():
        root = artifacts.root_of(path)
        elsewhere += root is None
        if root != artifact_root or path in judged:
            continue
        found, wrong = held(path, store), [item for item in records if item.sha256 is not None]
        if found is not None and found.sha256:
            wrong = [item for item in wrong if item.sha256 != found.sha256]
        on_record = "; ".join(f"sha256 {(item.sha256 or '')[:16]}… ({item.where})" for item in wrong)
        entity = EntityRef("artifact", path, artifacts.relative(path))
        if path.startswith(closed):
            violations.not_evaluated(
                "not-looked-at", "the place that it lies in could not be looked at: see ART003", entity=entity
            )
            continue
        unread = artifacts.unread.get(path) or (found.problem if found else "")
        if found is not None and found.sha256 and wrong:
            violations.add(
                "changed",
                "its bytes changed since they went on record",
                entity=entity,
                observed=f"sha256 {found.sha256[:16]}…",
                expected=on_record,
            )
        elif unread:
            violations.add(
                "unreadable",
                "cannot be read, so nobody knows whether its bytes are those on record",
                entity=entity,
                observed=unread,
            )
        elif path not in artifacts.files and _has_a_row(path, owned):
            where = f"a file with {on_record}" if on_record else f"a file, by {records[0].where}"
            violations.add("gone", "is gone since its bytes went on record", entity=entity, expected=where)
    if elsewhere and artifact_root == artifacts.roots[0]:
        violations.note(
            f"{elsewhere} hashes on record are of paths outside every artifact root (a store that was moved?): "
            "they were not compared"
        )


def _tell_of_journals(store: Snapshot, violations: Violations) -> None:
    """The records that are missing, and the journals kept in the store that are not what a repair wrote."""
    journals = store.journals
    missing = journals.missing(named_journals(store) - {JOURNAL})
    if journals.unreadable:
        violations.not_evaluated("no-record", f"what repairs put on record is not known: {journals.unreadable}")
    elif missing:
        named = f"{len(missing)} repairs" if len(missing) > 1 else "repair"
        violations.not_evaluated(
            "no-record",
            f"tags name {named} {first_of(missing, MOST)}, and no journal of it was found in {journals.folder} or in "
            "the store: name the folder that it was written to with [journal] folder",
        )
    elif journals.lost and not journals.hashes:
        violations.not_evaluated(
            "no-record",
            f"repair {journals.lost} put hashes on record, and hashes.jsonl is not in {journals.folder} any more: "
            "restore it from a backup",
        )
    for experiment, number in journals.others.items():
        violations.add(
            "kept-journal-differs",
            "keeps the journals of repairs, and runs of others are in it",
            entity=experiment,
            observed=f"{number} run{'s' * (number != 1)} without the tag {KEPT_JOURNAL}",
            expected="kept journals, and nothing else",
        )
    for kept in journals.kept:
        if kept.problem:
            violations.add(
                "kept-journal-differs",
                f"is no journal that a repair wrote here: {kept.problem}",
                entity=kept.run,
                expected=f"one file with the hash in its tag {KEPT_SHA256}, and nothing else",
            )
        elif kept.unknown and kept.journal not in journals.here:
            violations.not_evaluated("journal-not-read", kept.unknown, entity=kept.run)


def _tell_of_metadata(store: Snapshot, evidence: Evidence, context: Context, violations: Violations) -> None:
    """Of each production run: whether its files could be looked at, and whether the hash of its metadata, which holds
    all others, is on record.
    """
    for run in runs_on_record(context):
        unknown = store.unknown_files(run)
        if unknown:
            violations.not_evaluated("not-looked-at", unknown.reason, entity=run.ref)
        elif without_hash(run, store) and run.run_id in evidence.metadata:  # a planned copy was not read
            said = evidence.journalled.get(run.run_id)
            message = f"{METADATA} of {run.ref} lists the hashes of its files, and no tag holds its own"
            if said is not None and said.sha256 and not said.tagged:
                violations.offer("no-hash", f"{message}: --fix adds it", entity=run.ref)
            else:
                violations.add("no-hash", message, entity=run.ref, expected=f"the tag {METADATA_HASH}")


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
    advice="put the missing file back; or log the model again, `mlflow.sklearn.log_model(model, "
    'name="model")`, and delete this run once nothing leads to it: `mlflow runs delete --run-id RUN_ID`',
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


@policy(
    "ART006",
    "Nothing that a row owns lies in quarantine",
    Severity.HIGH,
    advice="move it back to where it is expected: `mv -n PATH FORMER_PLACE`",
)
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
