"""`check_run`: the rules about what is in production, asked of one run right after it was logged."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compliance.audit.audit import Audit, Options
from mlflow_compliance.audit.judging import outcome_without_failing
from mlflow_compliance.audit.problems import found_problem
from mlflow_compliance.audit.results import FAILING, NotJudged, Report, Result, Summary
from mlflow_compliance.audit.summary import bare_summary
from mlflow_compliance.errors import ComplianceError, StoreError
from mlflow_compliance.production.claims import is_archived
from mlflow_compliance.progress import Silent
from mlflow_compliance.rules.evaluation import cases, evaluate
from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.rules.packs import load_policies
from mlflow_compliance.rules.policy import Requirement
from mlflow_compliance.safe_text import without_secrets, without_secrets_in
from mlflow_compliance.settings.schema import Product
from mlflow_compliance.snapshot.ownership import as_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.rules.evaluation import Case
    from mlflow_compliance.rules.policy import Policy
    from mlflow_compliance.settings.schema import Settings
    from mlflow_compliance.snapshot.entities import Experiment, Run
    from mlflow_compliance.snapshot.snapshot import Snapshot
    from mlflow_compliance.store.backends.base import Rows

RULES = (
    "EXP002", "EXP003", "RUN001", "MOD001", "MOD002", "MOD004", "PRD001", "PRD002", "PRD003", "PRD004",
    "PRD005",
)  # fmt: skip
"""Those about one run, its models and its experiment. The others ask which run is in production, what is registered,
and what lies in the store as a whole.
"""
TRIED = ("MOD003", "PRD007")
"""Those that load the model, in a process of its own: that takes seconds."""
POLICIES = "mlflow_compliance.policies"
MARK = "compliance.checked"
"""Stands for the tag of production where a product has none."""


class RunReport(Report):
    """The report of one run: printed it is text, and in a notebook a table."""

    def __str__(self) -> str:
        from mlflow_compliance.audit.shown import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from mlflow_compliance.audit.shown import as_table

        return as_table(self)


def check_run(
    run_id: str,
    *,
    tracking_uri: str | None = None,
    config: str | Path | None = None,
    product: str | None = None,
    try_model: bool = False,
) -> RunReport:
    """Ask the rules whether a run could be a product's production run: it is judged as if it carried the tag.

    With `try_model` the model is loaded and asked too, in a process of its own, which takes seconds.

    The tracking URI is the one that MLflow uses in this process, unless one is given; settings are found as the command
    line finds them. Nothing is written. Raises ComplianceError where there is no such run or product.
    """
    workdir = Path.cwd()
    audit = Audit(Options(workdir, workdir, config=None if config is None else str(config)), Silent)
    audit.options = replace(audit.options, tracking_uri=tracking_uri or _current_uri(audit.settings))
    snapshot, rows = audit.store.read_rows(also=[run_id])
    run = snapshot.runs.get(run_id)
    if run is None:
        raise StoreError(f"there is no run {run_id!r} in {audit.store.info.uri}: check the id and the tracking URI")
    experiment = snapshot.experiments[run.experiment_id]
    products = _products(audit.settings, experiment, product)
    alone, settings = _as_production(run, products, snapshot, audit.settings)
    audit.use(settings, _with_files(audit, alone, _of_run(run, alone, rows)))
    rules = load_policies([POLICIES])
    for rule in rules:
        if rule.id in RULES or (try_model and rule.id in TRIED):
            audit.add(rule)
    audit.check({rule.id for rule in rules})
    results = tuple(_results(audit, {item.name for item in products}, experiment))
    return RunReport(_summary(audit, run, [item.name for item in products]), results)


def _current_uri(settings: Settings) -> str | None:
    """The URI that MLflow was told in this process; where nobody told it and the settings name none, its own."""
    mlflow: Any = sys.modules.get("mlflow")
    if mlflow is None:
        return None
    told = mlflow.is_tracking_uri_set() or settings.store.tracking_uri is None
    return str(mlflow.get_tracking_uri()) if told else None


def _products(settings: Settings, experiment: Experiment, named: str | None) -> list[Product]:
    """Those that the run may belong to. A test experiment and an archived one make no production run."""
    if named is not None:
        found = [item for item in settings.products if item.name == named]
        if not found:
            known = ", ".join(item.name for item in settings.products) or "none"
            raise ComplianceError(f"the settings name no product {named!r}: they name {known}")
        return found
    if settings.is_test(experiment) or is_archived(settings, experiment) or not experiment.active:
        return []
    return [item for item in settings.products if item.covers(experiment)]


def _as_production(
    run: Run, products: list[Product], snapshot: Snapshot, settings: Settings
) -> tuple[Snapshot, Settings]:
    """The store with this run alone, marked as production of its products, and settings that go by that mark."""
    names = {item.name for item in products}
    made = []
    tags = dict(run.tags)
    for item in settings.products:
        if item.name not in names:
            made.append(item)
            continue
        marks = item.production_tags or {MARK: "yes"}
        tags.update(marks)
        changes: dict[str, Any] = {"production_by": "tags", "production_tags": marks, "experiments": ("*",)}
        made.append(item.model_copy(update=changes))
    models = {key: model for key, model in snapshot.logged_models.items() if model.source_run_id == run.run_id}
    alone = replace(snapshot, runs={run.run_id: replace(run, tags=tags)}, logged_models=models, registered_models={})
    return alone, settings.model_copy(update={"products": tuple(made)})


def _of_run(run: Run, alone: Snapshot, rows: Rows) -> Rows:
    """Where this run and what it logged lie: no other folder is looked into."""
    keys = {run.run_id, *alone.logged_models}
    locations = tuple(item for item in rows.locations if item.owner.key.partition("/")[0] in keys)
    return rows._replace(locations=locations, ready_models=rows.ready_models & keys, folders=(), elsewhere=())


def _with_files(audit: Audit, alone: Snapshot, rows: Rows) -> Snapshot:
    progress = Silent()
    return audit.store.with_evidence(audit.store.walk(alone, rows, progress), progress)


def _results(audit: Audit, products: set[str], experiment: Experiment) -> Iterator[Result]:
    context = audit.context(artifacts=True)
    for _, rule in sorted(audit.policies.items()):
        if not audit.enabled(rule):
            continue
        for case in cases(rule, context):
            if _is_about(case, products, experiment):
                yield _result(audit, rule, case)


def _summary(audit: Audit, run: Run, products: list[str]) -> Summary:
    """What was asked of which run; of the store as a whole it says nothing."""
    role = f"as the production run of {', '.join(products)}" if products else "which belongs to no product"
    return replace(
        bare_summary(audit),
        head=(without_secrets(f"run {run.name} ({run.run_id}), {role}"), f"store: {audit.store.info.uri}"),
        read_at=as_time(audit.context(artifacts=True).snapshot.taken_at),
        known=tuple(sorted(audit.policies)),
        policies=len(audit.policies),
    )


def _is_about(case: Case, products: set[str], experiment: Experiment) -> bool:
    for item in case.arguments.values():
        product = item.product if isinstance(item, Requirement) else item
        if isinstance(product, Product) and product.name not in products:
            return False
        if getattr(item, "experiment_id", experiment.experiment_id) != experiment.experiment_id:
            return False
    return True


def _result(audit: Audit, rule: Policy, case: Case) -> Result:
    verdict = evaluate(rule, case, audit.context(artifacts=True))
    findings = [*verdict.findings, *([verdict.crash] if verdict.crash else [])]
    problems = tuple(found_problem(item, None, rule, audit) for item in findings)
    statuses = {item.status for item in problems}
    fails = FAILING in statuses or bool(verdict.unevaluated and audit.requires_evidence(rule))
    outcome = verdict.outcome.value
    if FAILING not in statuses and verdict.unevaluated:
        outcome = Outcome.NOT_EVALUATED.value
    elif statuses and FAILING not in statuses:
        outcome = outcome_without_failing(statuses)
    made = Result(
        policy=rule.id,
        title=rule.title,
        severity=audit.severity(rule, findings).value,
        outcome=outcome,
        entity=str(case.subject),
        findings=problems,
        unevaluated=tuple(NotJudged(str(item.entity), item.code, item.reason) for item in verdict.unevaluated),
        fails=fails,
    )
    cut: Result = without_secrets_in(made)
    return cut
