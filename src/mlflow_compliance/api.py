"""The names that rules and remedies are written with, from one place."""

from mlflow_compliance.changes import (
    JOURNAL,
    NOW,
    Change,
    ClaimRoot,
    CopyRun,
    DeleteExperiment,
    EndRun,
    GiveBack,
    LinkDuplicate,
    LogProductionRun,
    MoveToQuarantine,
    PointToCopy,
    RegisterVersion,
    RemoveRepeatedPoints,
    RenameExperiment,
    RetractCopy,
    RetractProductionRun,
    RewriteLocations,
    Rewriting,
    SetAlias,
    SetExperimentTag,
    SetRunTag,
    copy_of,
)
from mlflow_compliance.changes.copies import left_behind, own_datasets
from mlflow_compliance.changes.registry import version_of
from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.candidates import as_toml, candidates, counted
from mlflow_compliance.production.claims import (
    By,
    claimed_by,
    claims_in,
    current_run,
    guessed_by,
    is_archived,
    primary_of,
    production_models,
    production_runs,
    standing,
)
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.facts import FactValue, fact_values, in_run, number
from mlflow_compliance.production.marks import said_in, unseen_aliases, unseen_marks
from mlflow_compliance.production.metadata import as_text as metadata_text
from mlflow_compliance.production.metadata import differing_files, recorded_files
from mlflow_compliance.production.metadata import document as metadata_document
from mlflow_compliance.production.metrics import agree, differs
from mlflow_compliance.production.reachability import Kept, Sign, kept_by, last_sign, last_written
from mlflow_compliance.production.resolution import Resolution, SnapshotLookup, resolve
from mlflow_compliance.repair.journal import user_name
from mlflow_compliance.rules.finding import Finding, Severity, Violations
from mlflow_compliance.rules.fixer import Unfixable, fixer
from mlflow_compliance.rules.policy import Requirement, policy, without_any
from mlflow_compliance.safe_text import first_of
from mlflow_compliance.settings.schema import Product, Settings, folded
from mlflow_compliance.settings.toml import quoted
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.damage import DamagedFile
from mlflow_compliance.snapshot.entities import (
    TERMINAL_STATUSES,
    DatasetInput,
    Experiment,
    LoggedModel,
    ModelVersion,
    RegisteredModel,
    Run,
)
from mlflow_compliance.snapshot.evidence import Bundle, Evidence, Scan
from mlflow_compliance.snapshot.files import (
    LINK,
    METADATA,
    MLMODEL,
    SERVED,
    ArtifactRoot,
    DuplicateGroup,
    Quarantined,
    in_folder,
    upwards,
)
from mlflow_compliance.snapshot.moved import HISTORY, Moved, PlaceInRow
from mlflow_compliance.snapshot.ownership import Doubt, Outdated, as_time
from mlflow_compliance.snapshot.presence import Presence, Unknown, Why
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.schema import LostRows, Schema, SchemaState
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import (
    BUILD,
    BUILT_FOR,
    BUILT_IN,
    COMPLETE,
    COMPLETE_BUILD,
    COPIED_BY,
    COPY_STATE,
    DATA_CONTEXT,
    NOTE,
    OVERRULED,
    PARENT,
    SHA256,
    SOURCE_RUN,
    SUPERSEDED,
    SUPERSEDED_BY,
)
from mlflow_compliance.snapshot.ties import How, Tie

__all__ = [
    "BUILD",
    "BUILT_FOR",
    "BUILT_IN",
    "COMPLETE",
    "COMPLETE_BUILD",
    "COPIED_BY",
    "COPY_STATE",
    "DATA_CONTEXT",
    "HISTORY",
    "JOURNAL",
    "LINK",
    "METADATA",
    "MLMODEL",
    "NOTE",
    "NOW",
    "OVERRULED",
    "PARENT",
    "SERVED",
    "SHA256",
    "SOURCE_RUN",
    "SUPERSEDED",
    "SUPERSEDED_BY",
    "TERMINAL_STATUSES",
    "ArtifactRoot",
    "Artifacts",
    "Bundle",
    "By",
    "CannotFix",
    "Change",
    "ClaimRoot",
    "ComplianceError",
    "Context",
    "CopyRun",
    "DamagedFile",
    "DatasetInput",
    "DeleteExperiment",
    "Doubt",
    "DuplicateGroup",
    "EndRun",
    "EntityRef",
    "Evidence",
    "Experiment",
    "FactValue",
    "Finding",
    "GiveBack",
    "How",
    "Kept",
    "LinkDuplicate",
    "LogProductionRun",
    "LoggedModel",
    "LostRows",
    "ModelVersion",
    "MoveToQuarantine",
    "Moved",
    "Outdated",
    "PlaceInRow",
    "PointToCopy",
    "Presence",
    "Product",
    "Quarantined",
    "RegisterVersion",
    "RegisteredModel",
    "RemoveRepeatedPoints",
    "RenameExperiment",
    "Requirement",
    "Resolution",
    "RetractCopy",
    "RetractProductionRun",
    "RewriteLocations",
    "Rewriting",
    "Run",
    "Scan",
    "Schema",
    "SchemaState",
    "SetAlias",
    "SetExperimentTag",
    "SetRunTag",
    "Settings",
    "Severity",
    "Sign",
    "Snapshot",
    "SnapshotLookup",
    "Tie",
    "Unfixable",
    "Unknown",
    "Violations",
    "Why",
    "agree",
    "as_time",
    "as_toml",
    "candidates",
    "claimed_by",
    "claims_in",
    "copy_of",
    "counted",
    "current_run",
    "differing_files",
    "differs",
    "fact_values",
    "first_of",
    "fixer",
    "folded",
    "guessed_by",
    "in_folder",
    "in_run",
    "is_archived",
    "kept_by",
    "last_sign",
    "last_written",
    "left_behind",
    "metadata_document",
    "metadata_text",
    "number",
    "own_datasets",
    "policy",
    "primary_of",
    "production_models",
    "production_runs",
    "quoted",
    "recorded_files",
    "resolve",
    "said_in",
    "standing",
    "unseen_aliases",
    "unseen_marks",
    "upwards",
    "user_name",
    "version_of",
    "without_any",
]

CannotFix = Unfixable
"""The former name."""
