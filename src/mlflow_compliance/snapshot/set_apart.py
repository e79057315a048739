"""What repairs leave in a store for themselves: the journals that it keeps, set apart from all that rules judge."""

from __future__ import annotations

from dataclasses import replace

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.journals import Journals
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import BUILT_IN, COPIED_BY, RETIRED_IN


def named_journals(snapshot: Snapshot) -> set[str]:
    """The journals that tags name, which only repairs write: of experiments that were retired, of runs that were copied
    or built.
    """
    found = {item.tags.get(RETIRED_IN, "") for item in snapshot.experiments.values()}
    found |= {run.tags.get(tag, "") for run in snapshot.runs.values() for tag in (COPIED_BY, BUILT_IN)}
    return found - {""}


def set_apart(snapshot: Snapshot, journals: Journals) -> Snapshot:
    """A snapshot without the experiments that hold kept journals and nothing else: no rule judges them, no remedy
    changes them.
    """
    if not journals.apart:
        return replace(snapshot, journals=journals)
    return replace(
        snapshot,
        journals=journals,
        experiments={key: item for key, item in snapshot.experiments.items() if key not in journals.apart},
        runs={key: run for key, run in snapshot.runs.items() if run.experiment_id not in journals.apart},
    )


def without_files(artifacts: Artifacts, journals: Journals) -> Artifacts:
    """Artifacts without the files of the journals that were set apart, when their owners are known."""
    gone = {kept.path for kept in journals.kept if kept.experiment_id in journals.apart} & artifacts.files.keys()
    if not gone:
        return artifacts
    return replace(
        artifacts,
        files={path: file for path, file in artifacts.files.items() if path not in gone},
        hashes={path: digest for path, digest in artifacts.hashes.items() if path not in gone},
    )
