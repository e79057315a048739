"""Takes repairs back and makes them again: by the program, and from what their journals say without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stores import Lab

from mlflow_compliance.audit.audit import Audit, Options
from mlflow_compliance.audit.undo import take_back as of_audit
from mlflow_compliance.changes import JOURNAL, NOW, dump, load
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.progress import Silent
from mlflow_compliance.repair.undo import Undo
from mlflow_compliance.store.write.writer import StoreWriter

Line = Mapping[str, Any]


def undo(lab: Lab, lines: Sequence[Line]) -> list[str]:
    """Apply the inverses of what a journal says was done, backwards; what was left, in a sentence each."""
    done = {line["change"] for line in lines if line.get("state") == "done"}
    writer, left = StoreWriter(lab.store, {}), []
    for line in reversed(lines):
        if line.get("state") == "begin" and line["change"] in done and line["undo"]:
            try:
                writer.write(load(line["undo"]))
            except ChangeError as told:
                left.append(str(told))
    return left


def take_back(lab: Lab, name: str = "last") -> Undo:
    """What --fix-undo does with a journal of a store."""
    audit = Audit(Options(rootdir=lab.folder, workdir=lab.folder, undo=name), Silent)
    audit._settings, audit._store = lab.settings, lab.store
    return of_audit(audit, name, lambda _plan: None, dry_run=False)


def redo(lab: Lab, lines: Sequence[Line], journal: str = "20250602T000000Z-abcdef") -> list[dict[str, Any]]:
    """Carry out again what a journal says was done, under another journal; its lines, with the inverses of now."""
    done = {line["change"] for line in lines if line.get("state") == "done"}
    writer = StoreWriter(lab.store, {JOURNAL: journal, NOW: "2025-06-02T00:00:00+00:00"})
    found: list[dict[str, Any]] = []
    for line in lines:
        if line.get("state") == "begin" and line["change"] in done:
            change = load(line["do"])
            inverse = writer.inverse(change)
            writer.write(change)
            found += [{**line, "undo": inverse and dump(inverse)}, {"change": line["change"], "state": "done"}]
    return found


def taken_back(lab: Lab) -> list[str]:
    """Ids of the runs that were made and taken back, as MLflow lists them."""
    ids = [item.experiment_id for item in lab.client.search_experiments(view_type=3)]
    where = "tags.`compliance.copy` = 'retracted'"
    found = lab.client.search_runs(ids, filter_string=where, run_view_type=2, max_results=1000)
    return sorted(run.info.run_id for run in found)
