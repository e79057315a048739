"""Retiring an experiment: what the remedies for test experiments and for merged ones have in common."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import (
    HOLD,
    JOURNAL,
    NOW,
    RETIRED_IN,
    WHO,
    Change,
    Context,
    DeleteExperiment,
    Experiment,
    RenameExperiment,
    SetExperimentTag,
    Unfixable,
    kept_by,
    named_by_alias,
    retained,
)


def set_tags(experiment: Experiment, tags: dict[str, str]) -> Iterator[Change]:
    """The tags that are not yet as wanted."""
    for key, value in tags.items():
        before = experiment.tags.get(key)
        if before != value:
            yield SetExperimentTag(experiment.experiment_id, key, value, before)


def refuse_what_is_relied_on(experiment: Experiment, context: Context) -> None:
    """Raise Unfixable where a clean-up would touch what something else reaches, or what could not be brought back."""
    key = experiment.experiment_id
    holds = [item.why for item in retained(context).get(experiment.ref.place, ()) if item.rule == HOLD]
    if holds:
        raise Unfixable(
            f"{holds[0]} covers it or something in it",
            advice="it is retired when its hold has ended (`until = 2031-12-31`), or left [[retention.hold]]",
        )
    if key == "0":
        raise Unfixable(
            "MLflow's Default experiment cannot be retired",
            advice='log its work to an experiment of its own from now on: `mlflow.set_experiment("fraud")`',
        )
    primary_of = [product.name for product in context.settings.products if product.primary == experiment.name]
    if primary_of:
        raise Unfixable(
            f"it is the primary experiment of product {primary_of[0]}",
            advice='decide in compliance.toml what it is: another `primary = "EXPERIMENT_NAME"` under '
            "[[products]], or other `test_names` under [experiments]",
        )
    served = [
        (run_id, name)
        for run_id, name in named_by_alias(context).items()
        if context.snapshot.runs[run_id].experiment_id == key
    ]
    for run_id, name in served[:1]:
        raise Unfixable(
            f"run {run_id} in it is in production of {name}, whose alias names it: it stays as it is",
            advice="if it is none, take its name out of `test_names` under [experiments] in compliance.toml",
        )
    if not context.snapshot.counted:
        raise Unfixable(
            "its runs, and what relies on them, are asked of a tracking server for a plan alone: --fix-dry-run tells",
            advice="plan it: `pytest --pyargs mlflow_compliance.policies --compliance-rules=EXP002 --fix-dry-run`",
        )
    alive = experiment.count(status="RUNNING") + experiment.count(status="SCHEDULED")
    if alive:
        raise Unfixable(
            f"{alive} of its runs have not ended: what they log next would be lost",
            advice='let them finish, or end them: `MlflowClient().set_terminated("RUN_ID", "KILLED")`',
        )
    if experiment.assessed_runs:
        raise Unfixable(
            f"{experiment.assessed_runs} of its runs have assessments, which MLflow deletes for good with the run",
            advice="export them first: `mlflow traces search --experiment-id EXPERIMENT_ID --output json`",
        )
    if context.snapshot.untold:
        told = "; ".join(f"{how.value}: {reason}" for how, reason in sorted(context.snapshot.untold.items()))
        raise Unfixable(
            f"whether something relies on it is not known, since the store could not be asked for all of it ({told})",
            advice="audit the database itself: `--tracking-uri sqlite:////srv/mlflow/mlflow.db`",
        )
    kept = kept_by(context, experiment)
    if kept:
        raise Unfixable(f"{kept.why} ({' -> '.join(kept.chain)})", advice=kept.way_out)


def retire(experiment: Experiment, reason: str, merged_into: str = "") -> Iterator[Change]:
    """Tag with the reason and rename so that the name is free, then soft-delete: a deleted experiment takes neither."""
    yield from set_tags(
        experiment,
        {
            "compliance.retired_from": experiment.own_name,
            "compliance.retired_reason": reason,
            "compliance.retired_by": WHO,
            "compliance.retired_at": NOW,
            RETIRED_IN: JOURNAL,
        },
    )
    if experiment.name != experiment.retired_name:
        yield RenameExperiment(experiment.experiment_id, experiment.retired_name, experiment.name)
    yield DeleteExperiment(experiment.experiment_id, experiment.count(), merged_into)
