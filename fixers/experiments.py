"""Remedies for experiments: merge rival production ones, retire test ones, archive development ones."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator

from mlflow_compliance.api import (
    COMPLETE,
    COPIED_BY,
    COPY_STATE,
    LINK,
    MLMODEL,
    NOTE,
    PARENT,
    RULE_ADVICE,
    SOURCE_RUN,
    Artifacts,
    Change,
    Context,
    CopyRun,
    DatasetInput,
    Experiment,
    Finding,
    RenameDeletedExperiment,
    RestoreExperiment,
    RetractCopy,
    Run,
    Settings,
    Snapshot,
    Unfixable,
    claims_in,
    copy_of,
    fixer,
    is_archived,
    is_model,
    left_behind,
    lost,
    own_datasets,
    primary_of,
    quoted,
    said_in,
    standing,
)

from .restoring import way_back
from .retiring import refuse_what_is_relied_on, retire, set_tags

MOST = 3
"""Experiments that are named as what may be in force."""
LONGEST_TAG = 5000
"""Characters that every version of MLflow takes as the value of a run's tag."""


@fixer("EXP001", reads_files=True)
def merge(finding: Finding, context: Context) -> Iterator[Change]:
    """Copy the rival's runs into the primary experiment, then retire the rival. Runs that were copied before are
    not copied again.
    """
    if finding.code == "claimed-twice":
        raise Unfixable("which of the two it is nobody but you can tell", advice=RULE_ADVICE)
    if finding.code == "primary-missing":
        raise Unfixable("which one is in force nobody but you can tell", advice=RULE_ADVICE)
    if finding.code == "production-elsewhere":
        name = context.snapshot.experiments[finding.entity.key].own_name if finding.entity.kind == "experiment" else ""
        raise Unfixable(
            "the run that the alias names is not moved",
            advice="name this experiment under [[products]] in compliance.toml, "
            f"`primary = {quoted(name or 'EXPERIMENT_NAME')}`, and let `experiments` cover it; or let the alias name a "
            "version of a run in the right one",
        )
    if finding.code == "no-production" and finding.cause is not None:
        raise Unfixable("the alias leads to no run", advice="let it name a version whose run is there: see RUN002")
    if finding.entity.kind != "experiment":
        names = [quoted(name) for name in _claimed_names(finding, context)] or ['"EXPERIMENT_NAME"']
        lines = " or ".join(f"`primary = {name}`" for name in names[:MOST])
        raise Unfixable(
            "nothing says which experiment is in force",
            advice=f"name the one in force under [[products]] in compliance.toml: {lines}",
        )
    rival = context.snapshot.experiments[finding.entity.key]
    if finding.code == "named-like-production":
        name = quoted(glob.escape(rival.own_name))
        raise Unfixable(
            "it is only named like production (built in)",
            advice=f"if it is production, write `production_names = [{name}]` under [[products]] in compliance.toml; "
            "if not, `production_names = []`",
        )
    if context.settings.looks_like_a_test(rival):
        raise Unfixable(
            "it says that it is production and is named like a test (built in)",
            advice=f"say which it is: {_tagging(context.settings, 'archived')}, or `test_names = "
            f"[{quoted(glob.escape(rival.own_name))}]` under [experiments] in compliance.toml",
        )
    primary = _primary_for(rival, context)
    if context.settings.is_test(primary) or is_archived(context.settings, primary):
        raise Unfixable(
            f"the primary experiment {primary.name!r} is itself a test or archived one: nothing is merged into that",
            advice="name the one in force under [[products]] in compliance.toml, `primary = "
            f"{quoted(rival.own_name)}` say",
        )
    counts = (("traces", rival.traces), ("logged models that no run wrote", rival.loose_models), *rival.dependents)
    left = [f"{number} {what}" for what, number in counts if number]
    if left:
        raise Unfixable(
            f"{' and '.join(left)} in it cannot be copied and would stay behind",
            advice=f"move or delete them first; or let it stay: {_tagging(context.settings, 'archived')}, and take its "
            "mark of production off",
        )
    refuse_what_is_relied_on(rival, context)
    runs = context.snapshot.runs_of(rival.experiment_id)
    if len(runs) != rival.count():
        raise Unfixable(f"only {len(runs)} of its {rival.count()} runs could be read in full", advice="run --fix again")
    yield from _copies(runs, rival, primary, context.snapshot)
    yield from set_tags(primary, {context.settings.experiments.lifecycle_tag: "production"})
    yield from retire(rival, f"merged into experiment {primary.experiment_id} ({primary.name})", primary.experiment_id)


def _primary_for(rival: Experiment, context: Context) -> Experiment:
    found = set()
    for product in context.settings.products:
        claimed = standing(product, claims_in(context))
        primary = primary_of(product, context.snapshot.experiments, claimed)
        if rival.experiment_id in claimed and primary and primary != rival.experiment_id:
            found.add(primary)
    if len(found) != 1:
        raise Unfixable(
            "it counts as production of several products",
            advice='narrow their patterns under [[products]] in compliance.toml: `experiments = ["credit_*"]`',
        )
    return context.snapshot.experiments[found.pop()]


def _copies(runs: list[Run], rival: Experiment, primary: Experiment, snapshot: Snapshot) -> Iterator[Change]:
    """Parents before their children, so that a child can name its parent's copy."""
    earlier = {run.tags[SOURCE_RUN]: run for run in snapshot.runs_of(primary.experiment_id) if SOURCE_RUN in run.tags}
    complete = {key for key, run in earlier.items() if run.tags.get(COPY_STATE) == COMPLETE}
    for run in runs:
        if run.run_id in complete:
            _refuse_what_came_later(run, earlier[run.run_id], snapshot)
    wanted = [run for run in _parents_first(runs) if run.run_id not in complete]
    for run in wanted:
        # All of them before the first copy: copies that follow one another are made together.
        if run.run_id in earlier:
            yield RetractCopy(run.run_id, primary.experiment_id, earlier[run.run_id].tags.get(COPIED_BY, ""))
    copied: set[str] = set()
    known = _datasets_in(primary, snapshot)
    for run in wanted:
        if not run.start_time:
            raise Unfixable(
                f"run {run.run_id} has no start time, and MLflow would give its copy today's",
                advice=f"delete it if nobody needs it: `mlflow runs delete --run-id {run.run_id}`",
            )
        if snapshot.artifacts is None or run.ref.place not in snapshot.artifacts.locations:
            raise Unfixable(
                f"the artifacts of run {run.run_id} cannot be reached from here, so they cannot be copied",
                advice="mend ART003 first: `pytest --compliance-explain=ART003` says how",
            )
        _refuse_what_cannot_be_copied(run, snapshot, snapshot.artifacts)
        parent = run.tags.get(PARENT)
        if parent in complete:
            parent = earlier[parent].run_id
        elif parent in copied:
            parent = copy_of("run", parent)
        else:
            parent = None  # also where parents lead in a circle: the tag stays as it is
        copied.add(run.run_id)
        others = tuple(
            known[item[:2]] for item in run.datasets if item[:2] in known and known[item[:2]][:6] != item[:6]
        )
        if any(len(value) > LONGEST_TAG for value in own_datasets(run, others).values()):
            raise Unfixable(
                f"run {run.run_id} logged the dataset {others[0].name!r} from another source than "
                f"{primary.name!r} has it from, "
                "and what it says of it is too long for a tag of its copy: log the dataset there under another digest"
            )
        yield CopyRun(run.run_id, primary.experiment_id, rival.experiment_id, rival.name, run.user, parent, others)


def _datasets_in(experiment: Experiment, snapshot: Snapshot) -> dict[tuple[str, ...], DatasetInput]:
    """(name, digest) -> the dataset that an experiment has under them, those of copies that are planned too."""
    of_runs = (item for run in snapshot.runs_of(experiment.experiment_id) for item in run.datasets)
    return {
        item[:2]: item._replace(tags=()) for item in (*of_runs, *snapshot.datasets.get(experiment.experiment_id, ()))
    }


def _refuse_what_came_later(run: Run, copy: Run, snapshot: Snapshot) -> None:
    """An earlier repair copied a run and was broken off; whatever the run got since would go with it when its
    experiment is retired.
    """
    more = left_behind(run, copy, snapshot.models_of(run.run_id), snapshot.models_of(copy.run_id))
    places = snapshot.artifacts.locations if snapshot.artifacts else {}
    here, there = places.get(run.ref.place), places.get(copy.ref.place)
    if snapshot.artifacts and here and there:
        sizes = {path[len(there) :]: file.size for path, file in snapshot.artifacts.under(there).items()}
        files = {path[len(here) :]: file.size for path, file in snapshot.artifacts.under(here).items()}
        # A copy's MLmodel has other ids in it.
        if any(
            name not in sizes or (size != sizes[name] and os.path.basename(name) != MLMODEL)
            for name, size in files.items()
        ):
            more.append("artifacts")
    if more:
        raise Unfixable(
            f"run {run.run_id} got other {', '.join(more)} after an earlier repair copied it",
            advice=f"delete its copy, `mlflow runs delete --run-id {copy.run_id}`, and it is copied anew",
        )


def _refuse_what_cannot_be_copied(run: Run, snapshot: Snapshot, artifacts: Artifacts) -> None:
    """A link or an unreadable folder among a run's files would be missing in its copy."""
    places = [run.ref.place, *(model.ref.place for model in snapshot.models_of(run.run_id))]
    for folder in filter(None, map(artifacts.locations.get, places)):
        for path, file in artifacts.under(folder).items():
            if file.copy.startswith(LINK):
                raise Unfixable(
                    f"{artifacts.relative(path)} is a symbolic link, which a copy would lose",
                    advice='put the file itself there: `cp --remove-destination "$(readlink -f FILE)" FILE`',
                )
        for path, reason in artifacts.unread.items():
            if path.startswith(folder + os.sep):
                raise Unfixable(
                    f"{artifacts.relative(path)} cannot be copied ({reason})",
                    advice="make it readable, `chmod -R u+rX FOLDER` say, then run --fix again",
                )


def _parents_first(runs: list[Run]) -> list[Run]:
    by_id = {run.run_id: run for run in runs}

    def depth(run: Run) -> int:
        steps, seen = 0, {run.run_id}
        while (parent := run.tags.get(PARENT)) in by_id and parent not in seen:
            run, steps = by_id[parent], steps + 1
            seen.add(run.run_id)
        return steps

    return sorted(runs, key=depth)


@fixer("EXP002")
def retire_test(finding: Finding, context: Context) -> Iterator[Change]:
    """Rename so that the name is free again, tag with the reason, then soft-delete."""
    experiment = context.snapshot.experiments[finding.entity.key]
    if finding.code == "named-like-a-test":
        name = quoted(glob.escape(experiment.own_name))
        raise Unfixable(
            "it is only named like a test (built in)",
            advice=f"if it is one, add it under [experiments] in compliance.toml, `test_names = [{name}]`; if not, say "
            f"what it is: {_tagging(context.settings, 'reference')}",
        )
    refuse_what_is_relied_on(experiment, context)
    marked = [
        run for run in context.snapshot.runs_of(experiment.experiment_id) if any(said_in(run.tags, context.settings))
    ]
    if any(said_in(experiment.tags, context.settings)):
        raise Unfixable(
            "it is itself marked as production",
            advice='take the mark off, `MlflowClient().set_experiment_tag("EXPERIMENT_ID", "stage", "superseded")`, or '
            "give it another name: `mlflow experiments rename --experiment-id EXPERIMENT_ID --new-name NEW_NAME`",
        )
    if marked:
        raise Unfixable(
            f"its {marked[0].ref} is marked as production",
            advice=f'take the mark off, `MlflowClient().set_tag("{marked[0].run_id}", "stage", "superseded")`, or log '
            "the run again where it belongs",
        )
    yield from retire(experiment, "test experiment")


def _tagging(settings: Settings, value: str) -> str:
    """The call that says what an experiment is, and the values that there are."""
    rules = settings.experiments
    said = value if value in rules.lifecycle_values else next(iter(rules.lifecycle_values), value)
    call = (
        f'`MlflowClient().set_experiment_tag("EXPERIMENT_ID", {json.dumps(rules.lifecycle_tag)}, {json.dumps(said)})`'
    )
    return f"{call} ({', '.join(rules.lifecycle_values)})"


def _claimed_names(finding: Finding, context: Context) -> Iterator[str]:
    """The experiments that count as a product's production."""
    for product in context.settings.products:
        if finding.entity.key == product.name:
            for key in standing(product, claims_in(context)):
                yield context.snapshot.experiments[key].own_name


@fixer("EXP003")
def archive(finding: Finding, context: Context) -> Iterator[Change]:
    """Archive what the settings call development; never guess what anything else is."""
    if finding.code == "mark-spelled-otherwise":
        raise Unfixable(
            "whether it is production nobody but you can tell",
            advice="spell the tag as the settings do where it is production; where it is not, take it off: "
            f"{_mark_off(finding, context)}",
        )
    if finding.code == "production-of-no-product":
        raise Unfixable(
            "whether it is production nobody but you can tell",
            advice=f"take the tag off, {_mark_off(finding, context)}, or let a product in compliance.toml cover it: "
            '`experiments = ["fraud-*"]` under [[products]]',
        )
    experiment = context.snapshot.experiments[finding.entity.key]
    tag = context.settings.experiments.lifecycle_tag
    if not context.settings.is_development(experiment) and experiment.tags.get(tag) != "archived":
        raise Unfixable(
            "what it is nobody but you can tell",
            advice=f"say it: {_tagging(context.settings, 'archived')}, or name it under [experiments] in "
            f"compliance.toml: `development = [{quoted(glob.escape(experiment.own_name))}]`",
        )
    said = experiment.tags.get(NOTE, "")
    note = (
        said
        if "ARCHIVED" in said
        else f"[ARCHIVED] Development work, kept as evidence; nothing here is in force.\n\n{said}".rstrip()
    )
    yield from set_tags(experiment, {tag: "archived", NOTE: note})


def _mark_off(finding: Finding, context: Context) -> str:
    """The call that takes a mark of production off an experiment or a run."""
    tag = json.dumps(_marking_tag(finding, context))
    if finding.entity.kind == "run":
        return f'`MlflowClient().delete_tag("RUN_ID", {tag})`'
    return f'`MlflowClient().set_experiment_tag("EXPERIMENT_ID", {tag}, "archived")`'


def _marking_tag(finding: Finding, context: Context) -> str:
    """The tag by which something says that it is production."""
    kind, key, _ = finding.entity
    owners = context.snapshot.runs if kind == "run" else context.snapshot.experiments
    marks = [tag for tag, _ in said_in(owners[key].tags, context.settings)]
    return marks[0] if marks else context.settings.experiments.lifecycle_tag


@fixer("EXP004")
def free_name(finding: Finding, context: Context) -> Iterator[Change]:
    """Rename it as a retirement does; it and its runs stay deleted."""
    snapshot = context.snapshot
    experiment = snapshot.experiments[finding.entity.key]
    primary_of = [product.name for product in context.settings.products if product.primary == experiment.name]
    if primary_of:
        raise Unfixable(
            f"it is the primary experiment of product {primary_of[0]}",
            advice=f"{way_back(experiment.experiment_id)}; or name another one under [[products]] in compliance.toml: "
            '`primary = "EXPERIMENT_NAME"`',
        )
    missed = lost(context).get(experiment.experiment_id)
    if missed:
        raise Unfixable(
            f"it is to be restored, under its own name: {missed.why[0].why}, see RET001",
            advice=way_back(experiment.experiment_id),
        )
    for key, state in snapshot.behind_versions.items():
        if state.experiment_id == experiment.experiment_id:
            raise Unfixable(
                f"a registered version relies on {'model' if is_model(key) else 'run'} {key} in it: see REG004",
                advice=way_back(experiment.experiment_id),
            )
    if experiment.count():
        raise Unfixable(
            f"{experiment.count()} of its runs are active, which its renaming could delete",
            advice=way_back(experiment.experiment_id),
        )
    yield RenameDeletedExperiment(experiment.experiment_id, experiment.retired_name, experiment.name)


@fixer("EXP005")
def restore_default(finding: Finding, context: Context) -> Iterator[Change]:
    """Restore the experiment; its runs stay as they are, deleted or not."""
    default = context.snapshot.experiments[finding.entity.key]
    if not default.active:
        counts = tuple((stage, status, number) for (stage, status), number in sorted(default.runs.items()))
        yield RestoreExperiment(default.experiment_id, default.deleted_runs, counts)
