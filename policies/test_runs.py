"""Rules about runs."""

from __future__ import annotations

from datetime import datetime, timezone

from mlflow_compliance.api import Artifacts, Experiment, Settings, Severity, Snapshot, Violations, policy

HOUR = 3_600_000
"""Milliseconds."""


@policy("RUN001", "No run stuck in RUNNING", Severity.MEDIUM)
def test_no_run_is_stuck(experiment: Experiment, store: Snapshot, artifacts: Artifacts, settings: Settings, violations: Violations) -> None:
    """A run that crashed without a word looks like one that is still at work, and its numbers like preliminary ones."""
    limit = settings.runs.running_max_hours
    for run in store.runs_of(experiment.experiment_id):
        known = store.last_known_time(run)
        hours = (store.taken_at - known) / HOUR
        if run.status == "RUNNING" and hours > limit:
            since = datetime.fromtimestamp(known / 1000, timezone.utc)
            violations.add(
                "still RUNNING", entity=run.ref, observed=f"nothing logged since {since:%Y-%m-%d %H:%M} UTC", expected=f"ended within {limit:g} hours"
            )
