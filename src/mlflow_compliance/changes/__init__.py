"""The vocabulary of changes, one module a noun."""

from mlflow_compliance.changes.artifacts import LinkDuplicate, MoveToQuarantine, RestoreFromQuarantine, UnlinkDuplicate
from mlflow_compliance.changes.base import JOURNAL, NOW, Change, Writer, bind, copy_of, dump, load
from mlflow_compliance.changes.experiments import DeleteExperiment, RenameExperiment, RestoreExperiment, SetExperimentTag
from mlflow_compliance.changes.runs import CopyRun, EndRun, ReopenRun, RetractCopy

__all__ = [
    "JOURNAL",
    "NOW",
    "Change",
    "CopyRun",
    "DeleteExperiment",
    "EndRun",
    "LinkDuplicate",
    "MoveToQuarantine",
    "RenameExperiment",
    "ReopenRun",
    "RestoreExperiment",
    "RestoreFromQuarantine",
    "RetractCopy",
    "SetExperimentTag",
    "UnlinkDuplicate",
    "Writer",
    "bind",
    "copy_of",
    "dump",
    "load",
]
