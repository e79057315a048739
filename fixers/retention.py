"""Remedies for what must be kept and is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlflow_compliance.api import (
    ACTIVE,
    DEFAULT,
    SOURCE_MODEL,
    By,
    Change,
    Context,
    Experiment,
    Finding,
    RenameExperiment,
    RestoreExperiment,
    Unfixable,
    claimed_by,
    claims,
    fixer,
    held_whole,
    lost,
    quoted,
    said_in,
)

from .restoring import restore, way_back


@fixer("RET001")
def restore_what_must_be_kept(finding: Finding, context: Context) -> Iterator[Change]:
    """Restore it as it was; a deleted logged model MLflow cannot restore."""
    if finding.code == "model-deleted":
        raise Unfixable(
            "MLflow cannot restore a logged model, and the next `mlflow gc` takes it",
            advice="before that, log it again from its files, in a run that is kept, and give the new one a tag with "
            f'the id of the deleted one: `MlflowClient().set_logged_model_tags("NEW_MODEL_ID", {{"{SOURCE_MODEL}": '
            '"MODEL_ID"})`',
        )
    if finding.code == "experiment-deleted":
        yield from _experiment(context.snapshot.experiments[finding.entity.key], context)
        return
    told = lost(context).values()
    rows = [row for item in told for row in item.runs if finding.entity.key in (row.key, row.experiment_id)]
    changes: list[Change] = []
    reasons: list[Unfixable] = []
    marked = False
    for row in rows:
        run = context.snapshot.runs.get(row.key)
        says_production = run is not None and any(said_in(run.tags, context.settings))
        if says_production and marked:
            continue  # whether a second one may come back is asked when the first one has
        try:
            changes += restore(row.key, context)
            marked = marked or says_production
        except Unfixable as reason:
            reasons.append(reason)
    if not changes and reasons:
        raise reasons[0]
    yield from changes


def _experiment(experiment: Experiment, context: Context) -> Iterator[Change]:
    key = experiment.experiment_id
    if experiment.active:
        return  # another rule's remedy restored it in this very round
    if not held_whole(experiment, context) and key != DEFAULT:
        raise Unfixable("not all of it must be kept", advice=f"{way_back(key)}; then run --fix again")
    active = replace(experiment, lifecycle=ACTIVE)
    rows = [row for row in context.snapshot.row_facts.values() if row.kind == "run" and row.experiment_id == key]
    tagged = [(key, *tag) for row in rows for tag in row.tags.items()]
    for claim in claims(context.settings, {key: active}, tagged):
        product = next(item for item in context.settings.products if item.name == claim.product)
        if claim.by is not By.GUESS and claimed_by(product, context):
            raise Unfixable(
                f"it would be a second production experiment of product {product.name}",
                advice=f"decide which of them is, `primary = {quoted(experiment.own_name)}` under [[products]] in "
                f"compliance.toml say, then {way_back(key)}",
            )
    deleted = experiment.deleted_runs if key == DEFAULT else ()
    counts: dict[tuple[str, str], int] = {}
    for (stage, status), number in experiment.runs.items():
        place = (stage if key == DEFAULT else ACTIVE, status)
        counts[place] = counts.get(place, 0) + number
    told = tuple((stage, status, number) for (stage, status), number in sorted(counts.items()))
    yield RestoreExperiment(key, deleted, told, experiment.name)
    taken = any(other.name == experiment.own_name for other in context.snapshot.experiments.values())
    if experiment.name == experiment.retired_name and not taken:
        yield RenameExperiment(key, experiment.own_name, experiment.name)
