"""The vocabulary of changes, one module a noun."""

from mlflow_compliance.changes.artifacts import GiveBack, LinkDuplicate, MoveToQuarantine, PutAsideAgain, RestoreFromQuarantine, UnlinkDuplicate
from mlflow_compliance.changes.base import JOURNAL, NOW, Change, Writer, bind, copy_of, dump, holds_secrets, load
from mlflow_compliance.changes.experiments import DeleteExperiment, RenameExperiment, RestoreExperiment, SetExperimentTag
from mlflow_compliance.changes.locations import RewriteLocations, Rewriting
from mlflow_compliance.changes.metric_files import RemoveRepeatedPoints, RestoreMetricFile
from mlflow_compliance.changes.ownership import ClaimRoot, ReleaseRoot
from mlflow_compliance.changes.pointers import PointToCopy, RetractPointer
from mlflow_compliance.changes.production import LogProductionRun, RetractProductionRun
from mlflow_compliance.changes.registry import RegisterVersion, RetractVersion, SetAlias
from mlflow_compliance.changes.runs import CopyRun, EndRun, ReopenRun, RetractCopy
from mlflow_compliance.changes.tags import SetRunTag

__all__ = [
    "JOURNAL",
    "NOW",
    "Change",
    "ClaimRoot",
    "CopyRun",
    "DeleteExperiment",
    "EndRun",
    "GiveBack",
    "LinkDuplicate",
    "LogProductionRun",
    "MoveToQuarantine",
    "PointToCopy",
    "PutAsideAgain",
    "RegisterVersion",
    "ReleaseRoot",
    "RemoveRepeatedPoints",
    "RenameExperiment",
    "ReopenRun",
    "RestoreExperiment",
    "RestoreFromQuarantine",
    "RestoreMetricFile",
    "RetractCopy",
    "RetractPointer",
    "RetractProductionRun",
    "RetractVersion",
    "RewriteLocations",
    "Rewriting",
    "SetAlias",
    "SetExperimentTag",
    "SetRunTag",
    "UnlinkDuplicate",
    "Writer",
    "bind",
    "copy_of",
    "dump",
    "holds_secrets",
    "load",
]
