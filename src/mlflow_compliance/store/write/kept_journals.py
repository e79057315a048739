"""Keeps journals of repairs in the store itself: each the one file of a run in an experiment that is made for them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import Experiment
from mlflow_compliance.snapshot.files import in_folder
from mlflow_compliance.snapshot.journals import EXPERIMENT
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import COPY_STATE, KEPT_AS, KEPT_JOURNAL, KEPT_SHA256, RETRACTED, USER
from mlflow_compliance.store.backends.sql import SqlBackend
from mlflow_compliance.store.storage import files, journals
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.storages import is_remote, put, remote_path
from mlflow_compliance.store.write.bulk import tracking_store
from mlflow_compliance.store.write.effects import OpenStore
from mlflow_compliance.store.write.errors import one_sentence


@dataclass(frozen=True)
class JournalKeeper:
    """Writes the journals of one store into it. `snapshot` is the store as it was before the repair; `mark` is what its
    journals carry.
    """

    to: OpenStore
    snapshot: Snapshot
    mark: str

    def keep(self) -> str:
        """Keep every journal in the folder that was written for this store and that it does not keep yet: the one of
        this repair, and those of repairs that were killed. Returns the name of the experiment.
        """
        known = {kept.journal: kept for kept in self.snapshot.journals.kept}
        own = journals.in_folder(self.to.store.folder, self.to.store.info.uri).own
        waiting = [key for key in own if own[key] == self.mark and (key not in known or _begun(known[key].problem))]
        with one_sentence("it could not be written"):
            experiment = self._experiment()
            if not self._writable(experiment.artifact_location):
                raise ChangeError(f"{experiment.artifact_location} is no place that can be written to from here")
            for key in sorted(waiting):
                if key in known:
                    self._retract(known[key].run.key)
                self._keep(experiment, key)
        return f"experiment {experiment.name!r}"

    def _experiment(self) -> Any:
        client = self.to.client
        if self.snapshot.journals.home:
            return client.get_experiment(self.snapshot.journals.home)
        taken = {item.name for item in self.snapshot.experiments.values()}
        name = EXPERIMENT if EXPERIMENT not in taken else f"{EXPERIMENT}-{self.mark}"
        if not isinstance(self.to.store.backend, SqlBackend):
            return client.get_experiment(client.create_experiment(name, tags={KEPT_AS: self.mark}))
        store = tracking_store(client)
        # A client that opens the database itself would have the files of a new experiment in its working directory.
        own, store.artifact_root_uri = store.artifact_root_uri, self._root()
        try:
            return client.get_experiment(client.create_experiment(name, tags={KEPT_AS: self.mark}))
        finally:
            store.artifact_root_uri = own

    def _root(self) -> str:
        """Where the folders of most experiments lie, by their ids as MLflow places them, and can be written to."""
        counted = Counter(
            above for item in self.snapshot.experiments.values() if (above := _root_of(item)) and self._writable(above)
        )
        if not counted:
            raise ChangeError("none of the places that its experiments name can be written to from here")
        return counted.most_common(1)[0][0]

    def _writable(self, uri: str) -> bool:
        if is_remote(uri):
            return uri[:3].lower() == "s3:" or self.to.store.uri.startswith(("http:", "https:"))
        # What a server calls a folder may be one of its own machine: nothing is written where nothing was looked at.
        place = local_folder(f"{uri}/x", self.to.store.backend.home)
        artifacts = self.snapshot.artifacts
        return place is not None and in_folder(place) and artifacts is not None and artifacts.root_of(place) is not None

    def _keep(self, experiment: Any, journal: str) -> None:
        path = os.path.join(self.to.store.folder, f"{journal}.jsonl")
        with open(path, "rb") as file:
            content = file.read()
        header = json.loads(content.partition(b"\n")[0])
        tags = {
            KEPT_JOURNAL: journal,
            KEPT_SHA256: hashlib.sha256(content).hexdigest(),
            USER: str(header.get("user", "unknown")),
        }
        client = self.to.client
        run = client.create_run(experiment.experiment_id, start_time=_begin(header), run_name=journal, tags=tags)
        try:
            self._write(run.info.artifact_uri, f"{journal}.jsonl", content)
            client.set_terminated(run.info.run_id, status="FINISHED", end_time=int(time.time() * 1000))
        except BaseException:
            with suppress(MlflowException):
                self._retract(run.info.run_id)
            raise

    def _write(self, uri: str, name: str, content: bytes) -> None:
        if is_remote(uri):
            put(self.to.store.places, f"{remote_path(uri)}/{name}", content)
            return
        folder = local_folder(uri, self.to.store.backend.home)
        assert folder is not None
        files.write_new(os.path.join(folder, name), content)

    def _retract(self, run_id: str) -> None:
        self.to.client.set_tag(run_id, COPY_STATE, RETRACTED)
        self.to.client.delete_run(run_id)


def _begun(problem: str) -> bool:
    return problem.startswith(journals.BROKEN_OFF)


def _root_of(experiment: Experiment) -> str:
    above, _, name = experiment.artifact_location.rstrip("/").rpartition("/")
    return above if experiment.active and name == experiment.experiment_id else ""


def _begin(header: Mapping[str, Any]) -> int:
    """When a repair began, in milliseconds."""
    return int(datetime.fromisoformat(header["at"]).timestamp() * 1000)
