"""Remedies for artifact files: one physical copy, quarantine; advice where a change would be a guess."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mlflow_compliance.api import (
    METADATA,
    METADATA_HASH,
    RULE_ADVICE,
    TERMINAL_STATUSES,
    Artifacts,
    Change,
    Context,
    DuplicateGroup,
    EntityRef,
    Finding,
    GiveBack,
    LinkDuplicate,
    MoveToQuarantine,
    PointToCopy,
    SetRunTag,
    Snapshot,
    Unfixable,
    fixer,
    hashes_on_record,
    held,
    in_folder,
    upwards,
    without_hash,
)

from .claiming import claim_roots
from .signing import sign

UNREAD = "what cannot be read is not judged"
READ = "see to what is said of it (its permissions, `chmod u+r FILE`, the link, whoever writes to it), then run again"
"""The way out where a file cannot be read."""
MEANT = 'if the change was meant, add the line `{"path": "its path", "sha256": ""}` to hashes.jsonl beside the journals'
"""The way out where a file that is on record was changed on purpose."""
ONCE = 'log large inputs once and refer to them: `mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://..."))`'


@fixer("ART001", reads_files=True)
def share(finding: Finding, context: Context) -> Iterator[Change]:
    """Give equal files one physical copy; every path and its bytes stay."""
    if finding.entity.kind == "unread":
        raise Unfixable(UNREAD, advice=READ)
    if finding.entity.kind == "archive":
        raise Unfixable(
            "their bytes differ, so sharing one copy would change evidence",
            advice="delete the run that is not needed: `mlflow runs delete --run-id RUN_ID`",
        )
    artifacts = context.snapshot.artifacts
    group = artifacts.duplicate(finding.entity.key) if artifacts else None
    if artifacts is None or group is None:
        return
    if context.settings.duplicates.pointers and all(path.startswith("s3://") for path in group.paths):
        yield from _pointed(group, artifacts, context.snapshot)
        return
    if not all(map(in_folder, group.paths)):
        raise Unfixable("objects in a bucket cannot share bytes, and nothing is ever deleted there", advice=ONCE)
    doubts = {path: doubt for path in group.paths if (doubt := artifacts.doubt(path))}
    paths = [path for path in group.paths if path not in doubts]
    if doubts and len({artifacts.files[path].copy for path in paths}) < 2:
        doubt = next(iter(doubts.values()))
        raise Unfixable(doubt.reason, advice=doubt.way)
    for path in paths:
        file = artifacts.files[path]
        if file.copy in artifacts.linked_outside:
            raise Unfixable(
                f"{artifacts.relative(path)} has a hard link outside the artifact roots, which would change with it",
                advice="part them first: `cp -p FILE FILE.new && mv FILE.new FILE`",
            )
        _refuse_while_written(file.owner, path, context.snapshot)
    kept = paths[0]
    extras = [path for path in paths if artifacts.files[path].copy != artifacts.files[kept].copy]
    if any(artifacts.device(path) != artifacts.device(kept) for path in extras):
        raise Unfixable("its copies lie on different file systems, which cannot share bytes", advice=RULE_ADVICE)
    yield from claim_roots(artifacts, (kept, *extras))
    for path in extras:
        mates = tuple(
            other
            for other in group.paths
            if artifacts.files[other].copy == artifacts.files[path].copy and other != path
        )
        yield LinkDuplicate(path, kept, group.sha256, group.size, mates)


def _pointed(group: DuplicateGroup, artifacts: Artifacts, snapshot: Snapshot) -> Iterator[Change]:
    """A pointer beside every copy but one; the objects stay where they are."""
    folders = [
        path for path in group.paths if any(above in artifacts.models for above in upwards(os.path.dirname(path)))
    ]
    if len(folders) > 1:
        raise Unfixable("several of its copies lie in model folders, into which nothing is written", advice=ONCE)
    kept = (folders or group.paths)[0]
    for path in group.paths:
        owner, root = artifacts.files[path].owner, artifacts.root_of(path)
        _refuse_while_written(owner, path, snapshot)
        if path != kept and root is not None:
            yield PointToCopy(path, root.path, kept, group.sha256, group.size)


def _refuse_while_written(owner: EntityRef | None, path: str, snapshot: Snapshot) -> None:
    assert snapshot.artifacts is not None
    if _is_being_written(owner, snapshot):
        raise Unfixable(
            f"{owner} has not ended and may still write to {snapshot.artifacts.relative(path)}",
            advice='let its run end, or end it: `MlflowClient().set_terminated("RUN_ID", "KILLED")`',
        )


def _is_being_written(owner: EntityRef | None, snapshot: Snapshot) -> bool:
    """Whether the run behind a file is still at work; the snapshot holds every RUNNING run."""
    if owner is None or owner.kind not in ("run", "logged_model"):
        return False
    model = snapshot.logged_models.get(owner.key)
    run = snapshot.runs.get(model.source_run_id or "" if model else owner.key)
    return run is not None and run.active and run.status not in TERMINAL_STATUSES


@fixer("ART002", reads_files=True)
def quarantine(finding: Finding, context: Context) -> Iterator[Change]:
    """Move it aside under the same root; nothing is deleted."""
    artifacts = context.snapshot.artifacts
    item = artifacts.ownerless.get(finding.entity.key) if artifacts else None
    root = artifacts.root_of(finding.entity.key) if artifacts else None
    if artifacts is None or item is None or root is None:
        return
    doubt = artifacts.doubt(item.path)
    if doubt:
        raise Unfixable(doubt.reason, advice=doubt.way)
    yield from claim_roots(artifacts, [item.path])
    yield MoveToQuarantine(item.path, root.path, item.files, item.size)


@fixer("ART004", reads_files=True, last=True)
def put_hash_on_record(finding: Finding, context: Context) -> Iterator[Change]:
    """Put the hash of model_metadata.json on its run, where the journal that built the run proves it; sign the model
    in production where the settings name a key; for bytes that changed, advice.
    """
    if finding.entity.kind == "model_folder":
        yield from sign(finding, context)
        return
    if finding.code == "kept-journal-differs":
        raise Unfixable(
            "a journal is not rewritten",
            advice="restore it from a backup, or move by hand what else is there; where that cannot be done delete the "
            "run, `mlflow runs delete --run-id RUN_ID`: the next --fix keeps the journal anew from the folder that it "
            "was written to",
        )
    artifacts, records = context.snapshot.artifacts, hashes_on_record(context).get(finding.entity.key, [])
    if finding.code == "no-hash":
        yield _hash_of_metadata(finding.entity.key, context)
        return
    if artifacts and finding.entity.key in artifacts.unread:
        raise Unfixable(UNREAD, advice=READ)
    digest = next((item.sha256 for item in records), None)
    same = next((path for path, found in sorted(artifacts.hashes.items()) if found == digest), "") if artifacts else ""
    copied = f"copy {same} there, which holds the same bytes" if same else ""
    if any(item.of_production for item in records):
        way = copied or "restore what is on record from a backup"
        raise Unfixable(
            "what is on record is not rewritten", advice=f"{way}; if the change was meant, log a new production run"
        )
    raise Unfixable("a file is not written over", advice=f"{copied or 'restore the file from a backup'}; {MEANT}")


def _hash_of_metadata(run_id: str, context: Context) -> SetRunTag:
    """The tag, where a record that nobody could write with the file alone says the same as the file."""
    snapshot = context.snapshot
    run = snapshot.runs[run_id]
    path = without_hash(run, snapshot)
    found = held(path, snapshot)
    said = snapshot.evidence.journalled.get(run_id) if snapshot.evidence else None
    if said is None or not said.sha256:
        digest = found.sha256 if found else "its SHA-256"
        raise Unfixable(
            f"the journal of the repair that built it is not here, so nothing proves what {METADATA} held",
            advice="run --fix where the journals lie ([journal] folder), or see that it is the file of that time (a "
            f'backup) and set the tag: `MlflowClient().set_tag("RUN_ID", "{METADATA_HASH}", "{digest}")`',
        )
    if found is None or found.sha256 != said.sha256:
        raise Unfixable(
            f"{METADATA} is not what the journal {said.journal} says",
            advice="restore it from a backup, `mlflow artifacts log-artifact --run-id RUN_ID --local-file "
            f"backup/{METADATA}`, then run --fix",
        )
    return SetRunTag(run_id, METADATA_HASH, found.sha256, None)


@fixer("ART006", reads_files=True)
def give_back(finding: Finding, context: Context) -> Iterator[Change]:
    """Move it back to its former place; where something lies there now, both stay."""
    artifacts = context.snapshot.artifacts
    if finding.code == "manifest":
        raise Unfixable(
            "nothing of it is given back by this program",
            advice="restore the manifest from a backup, or move what lies beside it back by hand: `mv -n PATH "
            "FORMER_PLACE`",
        )
    item = artifacts.quarantined.get(finding.entity.key) if artifacts else None
    if artifacts is None or item is None:
        return
    reason = item.problem or str(artifacts.doubt(item.former) or "")
    if reason:
        raise Unfixable(reason, advice=RULE_ADVICE)
    yield GiveBack(item.former, item.path, item.root, len(item.files), item.size)
