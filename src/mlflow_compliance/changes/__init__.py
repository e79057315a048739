"""The vocabulary of changes, one module a noun."""

from mlflow_compliance.changes.artifacts import (
    GiveBack,
    LinkDuplicate,
    MoveToQuarantine,
    PointToCopy,
    PutAsideAgain,
    RestoreFromQuarantine,
    RetractPointer,
    UnlinkDuplicate,
)
from mlflow_compliance.changes.base import Applicability, Change, dump, holds_secrets, load
from mlflow_compliance.changes.copies import CopyRun, RetractCopy
from mlflow_compliance.changes.experiments import (
    DeleteExperiment,
    RenameDeletedExperiment,
    RenameExperiment,
    RestoreExperiment,
    SetExperimentTag,
)
from mlflow_compliance.changes.locations import RewriteLocations, Rewriting
from mlflow_compliance.changes.metric_files import RemoveRepeatedPoints, RestoreMetricFile
from mlflow_compliance.changes.owner_notes import ClaimRoot, ReleaseRoot
from mlflow_compliance.changes.production import LogProductionRun, RetractProductionRun
from mlflow_compliance.changes.registry import PutAliasBack, RegisterVersion, RetractVersion, SetAlias
from mlflow_compliance.changes.runs import DeleteRun, EndRun, ReopenRun, RestoreRun, SetRunTag
from mlflow_compliance.changes.signatures import RetractSignature, SignModel
from mlflow_compliance.changes.symbols import JOURNAL, NOW, WHO, bind, copy_of

__all__ = [
    "JOURNAL",
    "NOW",
    "WHO",
    "Applicability",
    "Change",
    "ClaimRoot",
    "CopyRun",
    "DeleteExperiment",
    "DeleteRun",
    "EndRun",
    "GiveBack",
    "LinkDuplicate",
    "LogProductionRun",
    "MoveToQuarantine",
    "PointToCopy",
    "PutAliasBack",
    "PutAsideAgain",
    "RegisterVersion",
    "ReleaseRoot",
    "RemoveRepeatedPoints",
    "RenameDeletedExperiment",
    "RenameExperiment",
    "ReopenRun",
    "RestoreExperiment",
    "RestoreFromQuarantine",
    "RestoreMetricFile",
    "RestoreRun",
    "RetractCopy",
    "RetractPointer",
    "RetractProductionRun",
    "RetractSignature",
    "RetractVersion",
    "RewriteLocations",
    "Rewriting",
    "SetAlias",
    "SetExperimentTag",
    "SetRunTag",
    "SignModel",
    "UnlinkDuplicate",
    "bind",
    "copy_of",
    "dump",
    "holds_secrets",
    "load",
]
