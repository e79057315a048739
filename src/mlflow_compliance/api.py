"""The names that rules and remedies are written with, from one place."""

from mlflow_compliance.artifacts import LINK, ArtifactRoot, Artifacts
from mlflow_compliance.changes import (
    JOURNAL,
    NOW,
    Change,
    CopyRun,
    DeleteExperiment,
    EndRun,
    LinkDuplicate,
    MoveToQuarantine,
    RenameExperiment,
    RetractCopy,
    SetExperimentTag,
    copy_of,
)
from mlflow_compliance.changes.runs import COMPLETE, COPIED_BY, COPY_STATE, PARENT, SOURCE_RUN
from mlflow_compliance.entities import TERMINAL_STATUSES, EntityRef, Experiment, LoggedModel, ModelVersion, RegisteredModel, Run, Snapshot
from mlflow_compliance.findings import Finding, Severity, Violations
from mlflow_compliance.journal import user_name
from mlflow_compliance.remedies import CannotFix, fixer
from mlflow_compliance.rules import policy
from mlflow_compliance.scope import claimed_by, claims_in, is_archived, primary_of, production_runs
from mlflow_compliance.settings import Product, Settings

__all__ = [
    "COMPLETE",
    "COPIED_BY",
    "COPY_STATE",
    "JOURNAL",
    "LINK",
    "NOW",
    "PARENT",
    "SOURCE_RUN",
    "TERMINAL_STATUSES",
    "ArtifactRoot",
    "Artifacts",
    "CannotFix",
    "Change",
    "CopyRun",
    "DeleteExperiment",
    "EndRun",
    "EntityRef",
    "Experiment",
    "Finding",
    "LinkDuplicate",
    "LoggedModel",
    "ModelVersion",
    "MoveToQuarantine",
    "Product",
    "RegisteredModel",
    "RenameExperiment",
    "RetractCopy",
    "Run",
    "SetExperimentTag",
    "Settings",
    "Severity",
    "Snapshot",
    "Violations",
    "claimed_by",
    "claims_in",
    "copy_of",
    "fixer",
    "is_archived",
    "policy",
    "primary_of",
    "production_runs",
    "user_name",
]
