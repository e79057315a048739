"""Remedies for runs."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import PARENT, Change, Context, EndRun, Finding, Unfixable, fixer, last_sign

from .restoring import restore


@fixer("RUN001", reads_files=True)
def end(finding: Finding, context: Context) -> Iterator[Change]:
    """Set it KILLED, ended at the last sign of life that rows show: its real end is not known and none is invented."""
    run = context.snapshot.runs[finding.entity.key]
    known = last_sign(context, run).at
    if not known:
        raise Unfixable(
            "nothing about it is dated, so no end can be given",
            advice='end it by hand: `MlflowClient().set_terminated("RUN_ID", "KILLED")`',
        )
    yield EndRun(run.run_id, run.experiment_id, "KILLED", known)


@fixer("RUN003")
def restore_parent(finding: Finding, context: Context) -> Iterator[Change]:
    """Restore the parent, and no other run."""
    if finding.code == "parent-gone":
        raise Unfixable(
            "its row is gone for good",
            advice=f'take the tag off its children, `MlflowClient().delete_tag("CHILD_RUN_ID", "{PARENT}")`, and the '
            "UI shows them by themselves",
        )
    yield from restore(finding.entity.key, context)
