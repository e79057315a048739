"""Rules about runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timezone

from mlflow_compliance.api import (
    Artifacts,
    Context,
    EntityRef,
    Experiment,
    Place,
    Product,
    Settings,
    Severity,
    Snapshot,
    Violations,
    bytes_alone,
    current_run,
    is_archived,
    last_sign,
    last_written,
    policy,
    production_runs,
    served,
    unseen_run,
)

HOUR = 3_600_000
"""Milliseconds."""
AGES = ((30, "less than 30 days ago"), (180, "30 to 180 days ago"), (None, "more than 180 days ago"))
"""Days since a run was deleted, and how it is said."""
NOT_COUNTED = "a server is not asked for the parents of all runs: --compliance-count does, or audit the database"
UNDATED = "at a time that the store does not tell"


@policy(
    "RUN001",
    "No run stuck in RUNNING",
    Severity.MEDIUM,
    advice='end it: `MlflowClient().set_terminated("RUN_ID", "KILLED")`',
)
def test_no_run_is_stuck(
    experiment: Experiment,
    store: Snapshot,
    artifacts: Artifacts,
    settings: Settings,
    context: Context,
    violations: Violations,
) -> None:
    """A run that crashed without a word looks like one that is still at work, and its numbers like preliminary ones."""
    limit, origin = settings.runs.running_max_hours, settings.origin("runs.running_max_hours")
    since = store.taken_at - limit * HOUR
    for run in store.runs_of(experiment.experiment_id):
        if run.status != "RUNNING" or store.last_known_time(run) >= since:
            continue
        sign, written = last_sign(context, run), last_written(context, run)
        if sign.at >= since:
            violations.note(f"{run.ref} logs nothing itself and is alive: {sign}, {_at(sign.at)}")
        elif written.at >= since:
            violations.note(f"{run.ref} logs no rows and is alive: {written}, written {_at(written.at)}")
        else:
            observed = f"nothing logged since {_at(sign.at)}" if sign.at else "nothing about it is dated"
            expected = f"ended within {limit:g} hours ({origin})"
            violations.add("stuck", "still RUNNING", entity=run.ref, observed=observed, expected=expected)


def _at(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, timezone.utc):%Y-%m-%d %H:%M} UTC"


@policy(
    "RUN002",
    "Exactly one active production run per product, FINISHED",
    Severity.CRITICAL,
    advice='mark the run in force, and no other: `MlflowClient().set_tag("RUN_ID", "stage", "production")`',
)
def test_product_has_one_production_run(
    product: Product, store: Snapshot, settings: Settings, context: Context, violations: Violations
) -> None:
    """With two of them nobody can say which numbers are in force; one that has not ended may still change."""
    runs = production_runs(product, context)
    current = current_run(product, context)
    unseen = unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
    elif not runs and product.by_alias:
        violations.add(
            "no-production-run",
            f"{product.loaded_as} leads to no run",
            observed=served(product, store).problem,
            expected=f"a version whose run is there (production_by: {settings.origin('production_by', product)})",
        )
    elif not runs:
        marks = ", ".join(f"{key}={value}" for key, value in sorted(product.production_tags.items()))
        expected = f"exactly 1 with the tag {marks} ({settings.origin('production_tags', product)})"
        violations.add(
            "no-production-run",
            "no run is marked as production",
            observed="0 production runs",
            expected=expected,
            advice=f"mark the run in force: {_marked(product)}",
        )
    for run in runs:
        if len(runs) > 1 and run != current:
            violations.add(
                "several-production-runs",
                f"one of {len(runs)} production runs of product {product.name}",
                entity=run.ref,
                expected="exactly 1",
                advice=f"if it is not the one in force, {_out_of_production(product)}",
            )
        if run.status != "FINISHED":
            violations.add(
                "not-finished",
                f"is {'named by the alias' if product.by_alias else 'marked as production'} and has not finished well",
                entity=run.ref,
                observed=run.status,
                expected="FINISHED",
                advice=f"{_ENDED}; else {_out_of_production(product)}",
            )
    for experiment in store.active_experiments():
        if is_archived(settings, experiment) and product.covers(experiment) and not product.by_alias:
            # It does not count; who searches for the mark finds it all the same.
            for run in filter(product.marks, store.runs_of(experiment.experiment_id)):
                violations.add(
                    "production-in-archive",
                    "is marked as production in an archived experiment",
                    entity=run.ref,
                    expected="no mark, or an experiment in force",
                )


_ENDED = 'if it ended well, say so: `MlflowClient().set_terminated("RUN_ID", "FINISHED")`'


def _marked(product: Product, value: str = "") -> str:
    """The call that marks a run as the product's production, or says another value of the same tag."""
    key, production = next(iter(sorted(product.production_tags.items())), ("stage", "production"))
    return f'`MlflowClient().set_tag("RUN_ID", {json.dumps(key)}, {json.dumps(value or production)})`'


def _out_of_production(product: Product) -> str:
    """How a run is made one that is not in production."""
    if product.by_alias:
        return f"let {product.loaded_as} lead to another version"
    return f"take its mark off: {_marked(product, 'superseded')}"


@policy(
    "RUN003",
    "The parents of runs are there",
    Severity.LOW,
    advice="bring the parent back: `mlflow runs restore --run-id RUN_ID`",
)
def test_parents_are_there(experiment: Experiment, store: Snapshot, violations: Violations) -> None:
    """MLflow's UI shows a child below its parent: where that is deleted, people take the child for lost."""
    if not store.counted:
        violations.not_evaluated("parent-deleted", NOT_COUNTED)
    for key, parent in sorted(store.lost_parents.items()):
        homes = sorted(home for home in parent.children if home in store.experiments and store.experiments[home].active)
        own = store.experiments.get(parent.experiment_id)
        # Told once, whatever the number of experiments. What a repair retired was put aside on purpose, and what
        # lies in another workspace is not judged here.
        if homes[:1] != [experiment.experiment_id] or (parent.experiment_id and (own is None or own.retired)):
            continue
        if store.may_lie_elsewhere and not parent.experiment_id:
            violations.not_evaluated(
                "parent-gone",
                f"run {key} may lie in another workspace, which this server does not show",
                entity=EntityRef("run", key, key),
            )
            continue
        number = sum(parent.children[home] for home in homes)
        names = ", ".join(repr(store.experiments[home].name) for home in homes)
        violations.add(
            "parent-deleted" if parent.experiment_id else "parent-gone",
            "it is deleted, and runs that name it as their parent are not"
            if parent.experiment_id
            else "it is not there any more, and runs name it as their parent",
            entity=store.runs[key].ref if key in store.runs else EntityRef("run", key, key),
            observed=f"{number} child run{'s' * (number != 1)} in {names}",
            expected="a parent that is there, or runs that name none",
        )


@policy(
    "RUN004",
    "What deleted runs hold is told",
    Severity.LOW,
    advice="`pytest --compliance-gc-preflight --compliance-gc-older-than=180d` tells what of it something still needs",
)
def test_what_deleted_runs_hold_is_told(store: Snapshot, artifacts: Artifacts, violations: Violations) -> None:
    """Files of soft-deleted runs stay until somebody decides about them, and no list of MLflow's shows what they
    take.
    """
    deleted = artifacts.deleted_runs
    held, shared = bytes_alone(artifacts, {("run", key): at for key, at in deleted.items()})
    if held:
        violations.note(f"deleted runs hold {sum(held.values())} bytes: {_by_age(held, deleted, store.taken_at)}")
    if shared:
        violations.note(f"files of deleted runs share {shared} bytes with others, which keep them")
    unknown = sorted(key for key in deleted if ("run", key) in artifacts.unknown)
    if unknown:
        reason = artifacts.unknown["run", unknown[0]].reason
        violations.note(
            f"what {len(unknown)} deleted run{'s' * (len(unknown) != 1)} hold{'s' * (len(unknown) == 1)} is not known, "
            f"such as {unknown[0]}: {reason}"
        )


def _by_age(held: Mapping[Place, int], deleted: Mapping[str, int], now: int) -> str:
    """Bytes of deleted runs, by when they were deleted, in words."""
    found: dict[str, list[int]] = defaultdict(list)
    for (_, run_id), size in held.items():
        days = (now - deleted[run_id]) / (24 * HOUR)
        when = next(words for limit, words in AGES if limit is None or days < limit) if deleted[run_id] else UNDATED
        found[when].append(size)
    order = [*(words for _, words in AGES), UNDATED]
    return "; ".join(f"{sum(found[when])} by {len(found[when])} deleted {when}" for when in order if found[when])
