"""Remedies for production runs: one complete run, built from what the settings name; the run in force; what it
replaces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch

from mlflow_compliance.api import (
    BUILD,
    BUILT_FOR,
    BUILT_IN,
    COMPLETE_BUILD,
    DATA_CONTEXT,
    GIT_COMMIT,
    JOURNAL,
    METADATA,
    MLMODEL,
    NOTE,
    NOW,
    OVERRULED,
    RULE_ADVICE,
    SHA256,
    SUPERSEDED,
    SUPERSEDED_BY,
    WHO,
    Bundle,
    Change,
    Context,
    DatasetInput,
    Experiment,
    Finding,
    LogProductionRun,
    Product,
    RetractProductionRun,
    Run,
    SetRunTag,
    Snapshot,
    Unfixable,
    claims_in,
    current_run,
    fact_values,
    fixer,
    guessed_by,
    metadata_document,
    metadata_text,
    named_by_alias,
    number,
    primary_of,
    production_runs,
    quoted,
    served,
    standing,
)

from .recording import Fact, facts_of
from .retiring import set_tags

LIMITATIONS = (
    "The metrics were computed from the recorded predictions, on the data that these were made for; they say "
    "nothing about other people or times. "
    "The record shows what was found and when. It is evidence for an assessment, not the assessment."
)
DESCRIPTION = "description"
"""The same for programs: a tag with the name that people look for."""
LINES = {
    "run_name": '`run_name = "production_v1"`',
    "model": '`model = "models/model.pkl"`',
    "predictions": '`predictions = "results/predictions.parquet"`',
    "threshold": "`threshold = 0.5`",
}
"""What a product must name so that a run can be built -> its line of TOML."""
DECIDE = 'say which counts, under [products.production] in compliance.toml: `decisions = {{ {name} = "{value}" }}`'
NARROW = 'narrow their patterns under [[products]] in compliance.toml: `experiments = ["credit_*"]`'
PRIMARY = "name it under [[products]] in compliance.toml: `primary = {name}`"


def product_of(finding: Finding, context: Context) -> Product:
    """The product that a finding is about: by its own name, by a name that it requires, or by its run."""
    kind, key, _ = finding.entity
    for product in context.settings.products:
        named = kind == "product" and key == product.name
        required = kind.startswith("required_") and key.startswith(f"{product.name}/")
        if named or required or (kind == "run" and any(run.run_id == key for run in production_runs(product, context))):
            return product
    raise Unfixable("the run is no production run any more: plan anew")


@fixer("MOD001", "MOD003", "MOD004", "PRD001", "PRD002", "PRD004", "PRD005", "PRD007", reads_files=True)
def build(finding: Finding, context: Context) -> Iterator[Change]:
    """Build one complete production run from the model and the predictions that the settings name, and supersede
    the others.
    """
    product = product_of(finding, context)
    changes = list(build_for(product, context))
    planned = next((change for change in changes if isinstance(change, LogProductionRun)), None)
    kind, _, name = finding.entity.kind.partition("_")
    if planned is not None and kind == "required" and not _offers(planned, name, finding.entity.label):
        raise Unfixable(
            f"nothing that the settings name gives a run the {name} {finding.entity.label}", advice=RULE_ADVICE
        )
    yield from changes


def build_for(product: Product, context: Context) -> Iterator[Change]:
    """The changes that log a production run of a product; none where this very plan has logged it already."""
    _refuse_alias(product, context)
    runs = production_runs(product, context)
    if any(run.tags.get(BUILT_IN) == JOURNAL for run in runs):
        return
    found = primary_of(product, context.snapshot.experiments, standing(product, claims_in(context)))
    primary = context.snapshot.experiments.get(found or "")
    if primary is None:
        raise Unfixable(
            "first one experiment must be the product's production",
            advice=PRIMARY.format(name='"EXPERIMENT_NAME"'),
        )
    if found in guessed_by(product, context):
        said = f"{primary.name!r} is only named like production (production_names, built in)"
        raise Unfixable(said, advice=PRIMARY.format(name=quoted(primary.name)))
    for run in runs:
        _refuse_several_products(run, context)
    bundle = bundle_for(product, context.snapshot)
    replaced = [run for run in runs if run.status != "RUNNING"]
    if len(replaced) != len(runs):
        going = next(run for run in runs if run.status == "RUNNING")
        raise Unfixable(
            "a run that is marked as production has not ended",
            advice=f'let it finish, or end it: `MlflowClient().set_terminated("{going.run_id}", "FINISHED")`',
        )
    for run in replaced:
        unknown = context.snapshot.unknown_files(run)
        if unknown:
            raise Unfixable(
                f"what {run.ref} logged could not be looked at ({unknown.reason}), so nothing takes its place"
            )
    change = _planned(product, primary, bundle, replaced, context)
    for run in context.snapshot.runs_of(primary.experiment_id):
        if run.tags.get(BUILT_FOR) == product.name and run.tags.get(BUILD) != COMPLETE_BUILD:
            yield RetractProductionRun(product.name, primary.experiment_id, run.tags.get(BUILT_IN, ""))
    yield change
    for run in replaced:
        yield from supersede(run, change.run_id, product)
    said = primary.tags.get(NOTE, "")
    marks = ", ".join(f"{key}={value}" for key, value in sorted(product.production_tags.items()))
    note = (
        said
        if "PRODUCTION" in said
        else f"[PRODUCTION] What is in force for {product.name}: the run with the tag {marks}.\n\n{said}"
    )
    yield from set_tags(primary, {context.settings.experiments.lifecycle_tag: "production", NOTE: note.rstrip()})


def _refuse_alias(product: Product, context: Context) -> None:
    """Raise Unfixable where an alias says what is in production: whoever moves it decides, and that is no repair."""
    if product.by_alias:
        wanted = product.production
        names = f"{wanted.registered_model!r}, {wanted.alias!r}"
        call = f"MlflowClient().set_registered_model_alias({names}, VERSION_IN_FORCE)"
        reason, first = (
            (served(product, context.snapshot).problem, "register the model of the run that is in force")
            if not production_runs(product, context)
            else (f"{product.loaded_as} says what is in production", "log a run that has it, register its model")
        )
        raise Unfixable(reason, advice=f"{first}, and name that version by `{call}`")


def _refuse_named_by_alias(run: Run, product: Product, context: Context) -> None:
    """Raise Unfixable for a run that is in production of another product, by its alias."""
    other = named_by_alias(context).get(run.run_id, product.name)
    if other != product.name:
        raise Unfixable(
            f"{run.ref} is in production of {other}, whose alias names it",
            advice=f"narrow the patterns of {product.name} under [[products]] in compliance.toml: "
            '`experiments = ["credit_*"]`',
        )


def _refuse_several_products(run: Run, context: Context) -> None:
    """Raise Unfixable where a run counts for more than one product: it would be superseded for one that it was
    never meant for.
    """
    names = [
        product.name
        for product in context.settings.products
        if any(found.run_id == run.run_id for found in production_runs(product, context))
    ]
    if len(names) > 1:
        raise Unfixable(f"{run.ref} counts as production of {', '.join(names)}", advice=NARROW)


def bundle_for(product: Product, snapshot: Snapshot) -> Bundle:
    """What the product's production run can be built from, or Unfixable."""
    wanted = product.production
    missing = [name for name in ("run_name", "model", "predictions", "threshold") if getattr(wanted, name) is None]
    if missing:
        lines = ", ".join(LINES[name] for name in missing)
        raise Unfixable(
            f"a run is built from what the settings name, and [products.production] has no {lines}", advice=RULE_ADVICE
        )
    source = snapshot.sources[product.name]
    if source.bundle is None:
        raise Unfixable(source.problem, advice=RULE_ADVICE)
    return source.bundle


def supersede(run: Run, by: str, product: Product) -> Iterator[Change]:
    """Take the marks of production off a run and say which run took its place. What a mark said stays, in a tag
    beside it.
    """
    for key, value in sorted(product.production_tags.items()):
        if run.tags.get(key) == value:
            yield SetRunTag(run.run_id, SUPERSEDED + key, value, run.tags.get(SUPERSEDED + key))
            yield SetRunTag(run.run_id, key, "superseded", value)
    yield SetRunTag(run.run_id, SUPERSEDED_BY, by, run.tags.get(SUPERSEDED_BY))


def _planned(
    product: Product, primary: Experiment, bundle: Bundle, replaced: list[Run], context: Context
) -> LogProductionRun:
    wanted, proved = product.production, bundle.evidence
    assert wanted.run_name is not None
    assert wanted.threshold is not None
    assert proved.probe is not None
    assert proved.scored is not None
    own = {
        **proved.probe.params,
        "optimal_threshold": f"{wanted.threshold:g}",
        "n_features": str(len(proved.probe.features)),
        "false_negative_cost": f"{wanted.false_negative_cost:g}",
        "false_positive_cost": f"{wanted.false_positive_cost:g}",
    }
    facts = facts_of(
        product, own, frozenset(proved.probe.params), replaced, fact_values(product, context, context.snapshot.evidence)
    )
    params = {
        **own,
        **{fact.name: fact.value for fact in facts if fact.name not in own and fact.name not in wanted.facts},
    }
    digests = {f"{SHA256}{role}": digest for role, digest in bundle.sources.items()}
    description = wanted.description or _description(product, bundle)
    tags = {
        **product.production_tags,
        "status": "deployed",
        DESCRIPTION: description,
        NOTE: description,
        **({GIT_COMMIT: bundle.commit} if bundle.commit else {}),
        **digests,
    }
    change = LogProductionRun(
        product=product.name,
        name=wanted.run_name,
        experiment_id=primary.experiment_id,
        at=context.snapshot.taken_at,
        user=WHO,
        params=params,
        metrics=dict(proved.scored.values),
        tags=tags,
        datasets=_datasets(product, bundle),
        model_name=wanted.model_name,
        bundle=bundle.folder,
        files=bundle.files,
        model_files=bundle.model_files,
        metadata="",
    )
    return replace(change, metadata=_metadata(change, product, bundle, facts, replaced))


def _metadata(
    change: LogProductionRun, product: Product, bundle: Bundle, facts: list[Fact], replaced: list[Run]
) -> str:
    """The text of model_metadata.json; ids and times that only writing brings stand in it as symbols."""
    wanted, proved = product.production, bundle.evidence
    assert wanted.threshold is not None
    assert proved.probe is not None
    return metadata_text(
        metadata_document(
            product=product.name,
            run_name=change.name,
            run_id=change.run_id,
            experiment_id=change.experiment_id,
            model_id=change.model_id,
            created_at=NOW,
            threshold=wanted.threshold,
            false_negative_cost=wanted.false_negative_cost,
            false_positive_cost=wanted.false_positive_cost,
            features=proved.probe.features,
            hyperparameters=proved.probe.params,
            metrics=change.metrics,
            libraries=bundle.libraries,
            sources=bundle.origins,
            files=change.files,
            model_files=[
                (path, size, change.mlmodel_hash if path == MLMODEL else digest)
                for path, size, digest in change.model_files
            ],
            facts=[fact.record() for fact in facts],
            supersedes=[run.run_id for run in replaced],
            example=bundle.example,
            limitations=LIMITATIONS,
        )
    )


def _description(product: Product, bundle: Bundle) -> str:
    wanted, scored = product.production, bundle.evidence.scored
    rows = scored.rows if scored else 0
    return (
        f"Production model of {product.name}, decisions at threshold {wanted.threshold}. Built from {wanted.model} "
        f"and {wanted.predictions} ({rows} rows); model_metadata.json holds their hashes and where each fact "
        "comes from."
    )


def _datasets(product: Product, bundle: Bundle) -> tuple[DatasetInput, ...]:
    """The predictions, as the dataset that the metrics were measured on."""
    wanted, scored = product.production, bundle.evidence.scored
    assert wanted.predictions is not None
    assert scored is not None
    columns = [
        {"type": "long", "name": wanted.target, "required": True},
        {"type": "double", "name": wanted.probability, "required": True},
    ]
    name = os.path.splitext(os.path.basename(wanted.predictions))[0]
    return (
        DatasetInput(
            name=name,
            # MLflow takes 36 characters at most.
            digest=bundle.sources["predictions"][:36],
            source_type="local",
            source=json.dumps({"uri": wanted.predictions}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": scored.rows}),
            tags=((DATA_CONTEXT, "evaluation"),),
        ),
    )


@fixer("PRD003", reads_files=True)
def build_with_tag(finding: Finding, context: Context) -> Iterator[Change]:
    """Take a description over from the one that the UI shows; else build a production run that carries the tag."""
    run = context.snapshot.runs.get(finding.entity.key) if finding.entity.kind == "run" else None
    note = run.tags.get(NOTE, "") if run is not None and finding.name == DESCRIPTION else ""
    if run is not None and note.strip():
        yield SetRunTag(run.run_id, DESCRIPTION, note, run.tags.get(DESCRIPTION))
    else:
        yield from build(finding, context)


def _offers(change: LogProductionRun, kind: str, name: str) -> bool:
    """Whether the run that is going to be logged carries something that is required."""
    if kind != "artifact":
        return name in {"param": change.params, "metric": change.metrics, "tag": change.all_tags()}[kind]
    paths = (
        [path for path, _, _ in change.files]
        + [f"{change.model_name}/{path}" for path, _, _ in change.model_files]
        + [METADATA]
    )
    folders = {above for path in paths for above in _folders_of(path)}
    return any(fnmatch(path, name) for path in (*paths, *folders))


def _folders_of(path: str) -> Iterator[str]:
    while path := os.path.dirname(path):
        yield path


@fixer("RUN002", reads_files=True)
def settle(finding: Finding, context: Context) -> Iterator[Change]:
    """Supersede every production run but the one that a repair built last; build one where none is fit."""
    run = context.snapshot.runs.get(finding.entity.key) if finding.entity.kind == "run" else None
    if run is not None and finding.code == "production-in-archive":
        raise Unfixable(
            "which of the two is wrong nobody but you can tell",
            advice='take the mark off the run, `MlflowClient().set_tag("RUN_ID", "stage", "superseded")`, or its '
            f'experiment out of the archive: `MlflowClient().set_experiment_tag("{run.experiment_id}", "lifecycle", '
            '"production")`',
        )
    product = product_of(finding, context)
    current = current_run(product, context)
    if finding.entity.kind == "run" and current is not None and finding.entity.key != current.run_id:
        _refuse_several_products(context.snapshot.runs[finding.entity.key], context)
        yield from supersede(context.snapshot.runs[finding.entity.key], current.run_id, product)
    else:
        yield from build_for(product, context)


@fixer("PRD006", reads_files=True)
def keep_one_value(finding: Finding, context: Context) -> Iterator[Change]:
    """Mark the runs whose value the settings overrule as superseded; both values stay on record."""
    product = product_of(finding, context)
    current = current_run(product, context)
    for fact, values in sorted(fact_values(product, context, context.snapshot.evidence).items()):
        decided = product.production.decided.get(fact)
        found = {number(item.value) for item in values}
        if len(found) < 2:
            continue
        if decided is None:
            raise Unfixable(
                f"{fact} has the values {', '.join(sorted(found))} and nobody has decided",
                advice=DECIDE.format(name=fact, value=min(found)),
            )
        if current is None:
            raise Unfixable(
                f"{decided} is decided for {fact}, and there is no one production run that has it",
                advice="mend RUN002 first: `pytest --compliance-explain=RUN002` says how",
            )
        overruled = {
            item.owner.key for item in values if item.owner.kind == "run" and number(item.value) != number(decided)
        }
        if current.run_id in overruled:
            yield from build_for(product, context)
            return
        guessed = guessed_by(product, context)
        for run_id in sorted(overruled):
            run = context.snapshot.runs[run_id]
            if run.experiment_id in guessed:
                name = context.snapshot.experiments[run.experiment_id].name
                raise Unfixable(
                    f"{run.ref} is in {name!r}, which is only named like production (built in)",
                    advice="say what counts, under [[products]] in compliance.toml: `production_names = "
                    f"[{quoted(name)}]`",
                )
            _refuse_named_by_alias(run, product, context)
            yield SetRunTag(run_id, SUPERSEDED_BY, current.run_id, run.tags.get(SUPERSEDED_BY))
            yield SetRunTag(run_id, f"{OVERRULED}{fact}", decided, run.tags.get(f"{OVERRULED}{fact}"))
