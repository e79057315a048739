"""What the runs of an experiment got after they were copied into another one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence

from mlflow_compliance.changes.copies import left_behind
from mlflow_compliance.snapshot.entities import LoggedModel, Run
from mlflow_compliance.snapshot.files import MLMODEL
from mlflow_compliance.snapshot.tags import COMPLETE, COPY_STATE, SOURCE_EXPERIMENT, SOURCE_MODEL, SOURCE_RUN
from mlflow_compliance.store.backends.listing import pages
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.safe_io import raise_it
from mlflow_compliance.store.storage.storages import is_remote
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.effects import OpenStore
from mlflow_compliance.store.write.errors import one_sentence

COMPARED_AT_ONCE = 200
"""Runs that are compared with their copies at a time."""


def written_since_copied(to: OpenStore, experiment_id: str, into: str) -> str:
    """What a run of the one experiment holds that its copy in the other does not, in one sentence; '' where all is
    there.
    """
    where = f"tags.`{SOURCE_EXPERIMENT}` = '{experiment_id}' AND tags.`{COPY_STATE}` = '{COMPLETE}'"
    with one_sentence(f"the runs of experiment {experiment_id} could not be compared with their copies"):
        found = pages(to.client.search_runs, experiment_ids=[into], filter_string=where, max_results=1000)
        copies = sorted((run.data.tags[SOURCE_RUN], run.info.run_id) for run in found)
        for start in range(0, len(copies), COMPARED_AT_ONCE):
            some = copies[start : start + COMPARED_AT_ONCE]
            runs, models = to.store.details([key for pair in some for key in pair])
            written: dict[str | None, list[LoggedModel]] = defaultdict(list)
            for model in models.values():
                written[model.source_run_id].append(model)
            for source, copy in some:
                if (
                    source in runs
                    and copy in runs
                    and (more := _got_since(to.store, runs[source], runs[copy], written[source], written[copy]))
                ):
                    return f"run {source} got other {', '.join(more)} after it was copied to run {copy}"
    return ""


def _got_since(
    store: Store, source: Run, copy: Run, models: Sequence[LoggedModel], copied: Sequence[LoggedModel]
) -> list[str]:
    """What a run and its logged models got after they were copied, in a word each."""
    more = left_behind(source, copy, models, copied)
    made = {model.tags.get(SOURCE_MODEL): model.artifact_location for model in copied}
    places = [(model.artifact_location, made[model.model_id]) for model in models if model.model_id in made]
    if any(got_files_since(store, *uris) for uris in ((source.artifact_uri, copy.artifact_uri), *places)):
        more.append("artifacts")
    return more


def got_files_since(store: Store, old_uri: str, new_uri: str) -> bool:
    """Whether a file came to a folder, or was written anew, after it was copied. Not told of what lies in object
    stores.
    """
    old, target = (None if is_remote(uri) else local_folder(uri, store.backend.home) for uri in (old_uri, new_uri))
    if old is None or target is None or not os.path.isdir(old):
        return False
    for folder, _, filenames in os.walk(old, onerror=raise_it):
        for filename in filenames:
            path = os.path.join(folder, filename)
            now = os.lstat(path)
            try:
                then = os.lstat(os.path.join(target, os.path.relpath(path, old)))
            except FileNotFoundError:
                return True
            # A copy has the times of what it was made from. That of an MLmodel has other ids in it: its size says
            # nothing.
            if now.st_ino != then.st_ino and (
                now.st_mtime_ns > then.st_mtime_ns or (now.st_size != then.st_size and filename != MLMODEL)
            ):
                return True
    return False
