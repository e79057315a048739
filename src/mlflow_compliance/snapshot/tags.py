"""The names of tags that MLflow and this program give a meaning to, each spelled once."""

from __future__ import annotations

EXTERNAL = "mlflow.model.isExternal"
"""Tag, 'true', of a logged model that is hosted elsewhere: it says READY and has no files."""

MADE_BY_US = ("compliance.source_run_id", "compliance.built_for")
"""Tags of the runs that a repair made: copies and production runs, whole ones and those that were broken off."""
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
SUPERSEDED = "compliance.superseded."
"""Before the key of a tag that a repair replaced: what it said before."""
SOURCE_DATASETS = "compliance.source_datasets"
"""Tag of a copy: what its source recorded of datasets that the experiment knows under the same name and digest, where that differs. JSON."""

PARENT = "mlflow.parentRunId"
"""Tag of a run that another one started."""

BUILT_FOR = "compliance.built_for"
"""Tag of a run that --fix built: the product."""
BUILT_IN = "compliance.built_in"
"""The journal of the repair that built it."""
BUILD = "compliance.build"
"""'complete', or 'incomplete' while it is being logged."""
COMPLETE_BUILD = "complete"
