"""Makes the Summary of an audit: what was audited, and what a repair did."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow_compliance.audit.facts import experiments_of, products_of
from mlflow_compliance.audit.history import history_of
from mlflow_compliance.audit.results import Line, RuleFacts, Summary
from mlflow_compliance.audit.weakened import weakened
from mlflow_compliance.production.keys import keys_of
from mlflow_compliance.repair.journal import host_name, user_name, version_of
from mlflow_compliance.rules.explained import clauses_of
from mlflow_compliance.safe_text import first_of
from mlflow_compliance.settings.errors import shown_path
from mlflow_compliance.settings.files import WITHOUT_SETTINGS
from mlflow_compliance.snapshot.ownership import as_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.snapshot.artifacts import Artifacts

_FEW = 5
"""Names in one line of the head."""
PROGRAMS = ("pytest-mlflow-compliance", "mlflow", "pytest")
"""Distributions whose versions a verdict depends on."""


def _counted(names: Sequence[str], what: str) -> str:
    """How many there are, and the first of them."""
    return f"{len(names)} {what}{'s' * (len(names) != 1)}: {first_of(names, _FEW)}"


def summary_of(audit: Audit) -> Summary:
    """The summary of an audit whose store was read. Which rules ran is known when the results are there."""
    read_at = as_time(audit.snapshot(artifacts=False).taken_at)
    known = tuple(sorted(audit.known | audit.policies.keys()))
    settings, context = audit.settings, audit.context(artifacts=False)
    journals = context.snapshot.journals
    history = history_of(settings.history.resolved_folder(settings.base), audit.store.info.uri)
    return replace(
        bare_summary(audit),
        head=tuple(_lines_of(audit)),
        read_at=read_at,
        known=known,
        repair=tuple(_repair_of(audit)),
        checks=tuple((rule.id, audit.checks(rule)) for _, rule in sorted(audit.policies.items()) if audit.asked(rule)),
        products=products_of(context),
        experiments=experiments_of(context),
        reclaimable=_reclaimable(audit.snapshot(artifacts=False).artifacts),
        warnings=history.problems,
        journals=tuple(sorted({*journals.own, *(kept.journal for kept in journals.whole)})),
        history=history.points,
    )


def bare_summary(audit: Audit) -> Summary:
    """A summary that says nothing yet but what it rests on: store, settings, rules, who and with which programs."""
    settings = audit.settings
    return Summary(
        (),
        "",
        rules=tuple(_rules_of(audit)),
        uri=audit.store.info.uri,
        settings=shown_path(settings.path) if settings.path else "",
        settings_sha256=settings.sha256,
        who=user_name(),
        host=host_name(),
        versions=tuple((name, version_of(name)) for name in PROGRAMS),
    )


def _rules_of(audit: Audit) -> Iterator[RuleFacts]:
    for _, rule in sorted(audit.policies.items()):
        severity, on = audit.severity(rule).value, audit.enabled(rule)
        yield RuleFacts(rule.id, rule.title, severity, on, rule.advice, clauses_of(rule))


def _reclaimable(artifacts: Artifacts | None) -> int | None:
    """Bytes that repeats of files take beside the first of each; None where no file was read."""
    if artifacts is None:
        return None
    return sum(group.size * len(artifacts.extras(group)) for group in artifacts.duplicates())


def _repair_of(audit: Audit) -> Iterator[Line]:
    made = audit.repair
    if made is None:
        return
    told = [*made.lines(), *made.of_saved_plan()]
    if made.outcome is not None:
        yield from (Line(text, well) for text, well in told)
        return
    run = "repair" if audit.options.fix else "dry run"
    yield Line(f"{run}: nothing was changed" if made.plan.changes else f"{run}: nothing to change")
    refusal = audit.refusal() if made.plan.changes and not audit.options.fix else ""
    if refusal:
        yield Line(f"--fix would not carry this plan out: {refusal}", ok=False)
    yield from (Line(text, well) for text, well in told)


def _keys(audit: Audit) -> Iterator[str]:
    """Which keys are in force. Their fingerprints are what `sha256sum` says of the public key's file."""
    keys = keys_of(audit.settings)
    if keys.signing:
        yield f"this report's files are signed (.sig beside each) with the key sha256 {keys.signing.public.fingerprint}"
        if keys.signing.warning:
            yield f"warning: {keys.signing.warning}"
    if keys.judging:
        yield f"models in production are held to the key sha256 {keys.judging.fingerprint}"


def _conditions_of(audit: Audit) -> Iterator[str]:
    """What the verdict rests on beside the store: whose word, on which machine, by which rules and programs."""
    settings = audit.settings
    yield f"settings: {shown_path(settings.path)}, sha256 {settings.sha256}" if settings.path else WITHOUT_SETTINGS
    for line in weakened(settings, audit.policies, audit.options):
        yield f"asks for less than is built in: {line}"
    versions = ", ".join(f"{name} {version_of(name)}" for name in PROGRAMS)
    yield f"audited by {user_name()} on {host_name()}; {versions}, Python {platform.python_version()}"
    yield from _keys(audit)


def _lines_of(audit: Audit) -> Iterator[str]:
    snapshot = audit.snapshot(artifacts=False)
    runs: dict[str, int] = {}
    for item in snapshot.experiments.values():
        for (lifecycle, status), number in item.runs.items():
            name = status if lifecycle == "active" else "deleted"
            runs[name] = runs.get(name, 0) + number
    active = sum(item.active for item in snapshot.experiments.values())
    counted = ", ".join(f"{number} {name}" for name, number in sorted(runs.items()))
    yield (
        f"store: {snapshot.info.uri} "
        f"({snapshot.info.backend}{', schema ' + snapshot.info.schema if snapshot.info.schema else ''})"
    )
    told = f"{sum(runs.values())} ({counted})" if snapshot.counted else "not counted through a server"
    yield f"experiments: {active} active, {len(snapshot.experiments) - active} deleted; runs: {told}"
    if not snapshot.counted:
        yield (
            "not looked for through a server: parents of runs (RUN003), and tags of production whose key is spelled "
            "otherwise (EXP003); --compliance-count does"
        )
    yield (
        f"registered models: {len(snapshot.registered_models)}, versions: "
        f"{sum(len(item.versions) for item in snapshot.registered_models.values())}"
    )
    whole = len(snapshot.journals.whole)
    if snapshot.journals.apart:
        yield f"kept journals of repairs: {whole}, set apart: no other rule than ART004 looks at their experiment"
    if snapshot.other_workspaces:
        yield (
            f"not read: {_counted(snapshot.other_workspaces, 'other workspace')} (MLFLOW_WORKSPACE names the "
            "one to audit)"
        )
    if snapshot.lost_rows:
        lost = ", ".join(f"{item.rows} of {item.table} without {item.parent}" for item in snapshot.lost_rows)
        yield f"rows whose parent is not there, and that MLflow shows nobody: {lost}"
    if audit.changed_since:
        before = as_time(audit.changed_since)
        yield (
            f"the store was changed during the audit: rules about files saw it as it was later than {before}, "
            "when the others did"
        )
    if snapshot.artifacts is not None:
        files, roots = snapshot.artifacts.files, snapshot.artifacts.roots
        stored = {file.copy: file.size for file in files.values()}
        size, where = sum(file.size for file in files.values()), ", ".join(root.path for root in roots) or "no folder"
        yield f"artifacts: {len(files)} files, {size} bytes, {sum(stored.values())} of them on disk, in {where}"
        for prefix, rows in sorted(snapshot.artifacts.relocated.items()):
            yield f"relocated: {rows} rows say {prefix}, a place that is not used here; read through [store.relocate]"
    yield from _conditions_of(audit)
    if audit.options.rules:
        others = sum(not audit.asked(rule) for rule in audit.policies.values())
        yield f"limited by --compliance-rules to {', '.join(audit.options.rules)}: {others} other rules were not asked"
    left = sorted(rule.id for rule in audit.policies.values() if audit.left_out(rule) and audit.asked(rule))
    if left:
        yield f"left out by --compliance-metadata-only, so nothing is said of files: {', '.join(left)}"
    off = sorted(rule.id for rule in audit.policies.values() if not audit.enabled(rule))
    if off:
        yield f"switched off in the settings: {', '.join(off)}"
