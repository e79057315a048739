"""Lines for the settings that say what a store shows of tests, development work and moved files, for people to copy."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator

from mlflow_compliance.production.claims import claims_in
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.toml import quoted
from mlflow_compliance.snapshot.entities import DEFAULT, Experiment
from mlflow_compliance.snapshot.moved import Moved

MOST = 20
"""Names in one list of TOML."""


def is_claimed(experiment: Experiment, context: Context) -> bool:
    """Whether a product counts an experiment as its production."""
    return any(claim.experiment_id == experiment.experiment_id for claim in claims_in(context))


def likely_tests(context: Context) -> list[Experiment]:
    """Active experiments that look like tests by their names alone."""
    settings = context.settings
    active = context.snapshot.active_experiments()
    return [item for item in active if settings.looks_like_a_test(item) and not is_claimed(item, context)]


def must_be_classified(experiment: Experiment, context: Context) -> bool:
    """Whether a tag or a setting must say what an experiment is: no product claims it, it is no test, and MLflow's
    Default experiment holds runs.
    """
    settings = context.settings
    unused = experiment.experiment_id == DEFAULT and not experiment.count()
    test = settings.is_test(experiment) or settings.looks_like_a_test(experiment)
    return not (unused or test or is_claimed(experiment, context))


def unclassified(context: Context) -> list[Experiment]:
    """Active experiments with work in them that nothing says what it is: no product, no tag, no setting, and not even
    their names.
    """
    settings, rules = context.settings, context.settings.experiments
    return [
        item
        for item in context.snapshot.active_experiments()
        if must_be_classified(item, context)
        and item.tags.get(rules.lifecycle_tag) not in rules.lifecycle_values
        and not settings.is_development(item)
    ]


def lines_of_tests(context: Context) -> str:
    """Lines for the settings that name every experiment that looks like a test, with their table."""
    return context.once(lambda context: "\n".join(_lines_of_tests(context)), "names like tests")


def _lines_of_tests(context: Context) -> Iterator[str]:
    table = ".".join(map(str, (*context.settings.prefix, "experiments")))
    yield (
        f"# into the table [{table}] that is there:"
        if "experiments" in context.settings.model_fields_set
        else f"[{table}]"
    )
    yield from list_of_tests(likely_tests(context))


def list_of_tests(found: list[Experiment]) -> Iterator[str]:
    """`test_names` with the names of experiments."""
    yield "test_names = [  # leave out what is real work: --fix retires the others"
    yield from (f"  {quoted(glob.escape(item.own_name))}," for item in found[:MOST])
    if len(found) > MOST:
        yield f"  # ... and {len(found) - MOST} more"
    yield "]"


def relocations(moved: Iterable[Moved]) -> Iterator[str]:
    """Lines of the table [store.relocate], for places whose files are beyond doubt in one folder here."""
    return (f"{quoted(found.prefix)} = {quoted(found.folder)}" for found in moved if found.folder)
