"""The names of tags that MLflow and this program give a meaning to, each spelled once."""

from __future__ import annotations

EXTERNAL = "mlflow.model.isExternal"
"""Tag, 'true', of a logged model that is hosted elsewhere: it says READY and has no files."""

RETRACTED = "retracted"
"""Value of the tag `compliance.copy` on a copy that was taken back: readers pass it over once it is deleted."""


SUPERSEDED_BY = "compliance.superseded_by"
"""Tag of a run whose place another one has taken: its values are history and contradict nothing."""

SOURCE_RUN = "compliance.source_run_id"
SOURCE_EXPERIMENT = "compliance.source_experiment_id"
SOURCE_NAME = "compliance.source_experiment_name"
SOURCE_USER = "compliance.source_user"
SOURCE_MODEL = "compliance.source_model_id"
COPIED_BY = "compliance.copied_by"
COPIED_AT = "compliance.copied_at"
COPY_STATE = "compliance.copy"
COMPLETE = "complete"
INCOMPLETE = "incomplete"
SUPERSEDED = "compliance.superseded."
"""Before the key of a tag that a repair replaced: what it said before."""
SOURCE_DATASETS = "compliance.source_datasets"
"""Tag of a copy: what its source recorded of datasets that the experiment knows under the same name and digest,
where that differs. JSON.
"""

NOTE = "mlflow.note.content"
"""The description that the MLflow UI shows."""
RUN_NAME = "mlflow.runName"
USER = "mlflow.user"
"""Who started a run."""
GIT_COMMIT = "mlflow.source.git.commit"
DATA_CONTEXT = "mlflow.data.context"
"""Tag of a dataset that a run read: what for, such as 'evaluation'."""
ASSESSED_RUN = "mlflow.assessment.sourceRunId"
"""In the metadata of an assessment: the run that it came from."""
TRACE_ARCHIVE = "mlflow.trace.archiveLocation"
"""Tag of a trace whose spans lie in a file."""
PARENT = "mlflow.parentRunId"
"""Tag of a run that another one started."""

BUILT_FOR = "compliance.built_for"
"""Tag of a run that --fix built: the product."""
BUILT_IN = "compliance.built_in"
"""The journal of the repair that built it."""
BUILD = "compliance.build"
"""'complete', or 'incomplete' while it is being logged."""
COMPLETE_BUILD = "complete"

OVERRULED = "compliance.overruled."
"""Before the name of a fact on a run that holds another value of it than was decided: the one that counts."""
SHA256 = "compliance.sha256."
"""Before the role of a file that a production run was built from (model, predictions): its hash."""
METADATA_HASH = f"{SHA256}model_metadata"
"""Tag of a run that --fix built: the hash of its model_metadata.json, which holds those of all its other files."""
RETIRED_IN = "compliance.retired_in"
"""Tag of an experiment that a repair retired: the journal of that repair."""

KEPT_AS = "compliance.journals"
"""Tag of an experiment that a repair made to keep journals in: a mark, which the journals of this store carry too."""
KEPT_JOURNAL = "compliance.journal"
"""Tag of a run that keeps a journal: which one."""
KEPT_SHA256 = "compliance.journal_sha256"
"""Tag of such a run: the hash of the journal's file."""

MADE_BY_US = (SOURCE_RUN, BUILT_FOR, KEPT_JOURNAL)
"""Tags of the runs that a repair made: copies and production runs, whole ones and those that were broken off, and
journals that are kept.
"""
