"""Rules about how long things are kept: what must be is not deleted, what need not be any more is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mlflow_compliance.api import (
    DELETED,
    Artifacts,
    Context,
    EntityRef,
    Lost,
    Place,
    RowFacts,
    Service,
    Settings,
    Severity,
    Snapshot,
    Violations,
    bytes_alone,
    first_of,
    kept_for,
    lost,
    policy,
    retained,
    services,
    today,
    unmatched,
)

DAY = 86_400_000
"""Milliseconds."""
FEW = 3
"""Ids or reasons in one line."""


@policy(
    "RET001",
    "What must be kept is not deleted",
    Severity.HIGH,
    advice="before the next `mlflow gc`: `mlflow runs restore --run-id RUN_ID`, or `mlflow "
    "experiments restore --experiment-id EXPERIMENT_ID`, which brings all its runs back",
)
def test_what_must_be_kept_is_not_deleted(
    store: Snapshot, settings: Settings, context: Context, violations: Violations
) -> None:
    """What is deleted the next `mlflow gc` takes for good, whatever a court or an auditor asks for."""
    if not settings.retention.keeps:
        violations.not_applicable("the settings name no legal hold and no years of production ([retention])")
    for told in lost(context).values():
        why = f"kept: {first_of([item.why for item in told.why], FEW)}"
        if not told.experiment.active:
            violations.add(
                "experiment-deleted",
                "is deleted, and it or something in it must be kept",
                entity=told.experiment.ref,
                observed="deleted",
                expected=why,
            )
        if told.runs:
            entity, message, observed = _line(told, told.runs, "runs")
            violations.add("run-deleted", message, entity=entity, observed=observed, expected=why)
        if told.models:
            entity, message, observed = _line(told, told.models, "logged models")
            violations.add("model-deleted", message, entity=entity, observed=observed, expected=why)
    for note in _on_holds(store, settings):
        violations.note(note)
    if store.schema is None and store.info.backend != "file":
        violations.not_evaluated(
            "models-not-shown", "nobody is shown a deleted logged model through a server: audit the database"
        )


def _line(told: Lost, rows: Sequence[RowFacts], what: str) -> tuple[EntityRef, str, str]:
    """One run or model by itself; several of one experiment in one line."""
    if len(rows) == 1:
        return rows[0].ref, "is deleted and must be kept", "deleted"
    ids = first_of([row.key for row in rows], FEW)
    return told.experiment.ref, f"{len(rows)} of its {what} are deleted and must be kept", ids


def _on_holds(store: Snapshot, settings: Settings) -> Iterator[str]:
    """What does not hold: holds that are over, patterns that match nothing."""
    day = today(store)
    for number, hold in enumerate(settings.retention.hold):
        said = f"{settings.origin_of_hold(number)}: the hold for {hold.reason!r}"
        if hold.until is not None and day > hold.until:
            yield f"{said} ended on {hold.until} and holds nothing any more"
            continue
        for key, pattern in unmatched(hold, store):
            yield f"{said} holds nothing by {key} {pattern!r}: there is nothing of that name or id in this store"


@policy(
    "RET002",
    "What is kept longer than the settings say is told",
    Severity.LOW,
    advice="`pytest --fix-purge --fix-dry-run` tells what of it repairs put aside, `pytest "
    "--compliance-gc-preflight` what `mlflow gc` would take",
)
def test_what_is_kept_longer_is_told(
    store: Snapshot, artifacts: Artifacts, settings: Settings, context: Context, violations: Violations
) -> None:
    """Keeping personal data for longer than it is needed is a breach too, and nobody sees what is deleted pile up."""
    rules = settings.retention
    if not (rules.deleted_days or rules.production_years or rules.superseded_years):
        violations.not_applicable("the settings say of nothing how long it is kept ([retention])")
    if rules.deleted_days:
        origin = settings.origin("retention.deleted_days")
        limit = store.taken_at - rules.deleted_days * DAY
        free = [row for row in _deleted(store) if row.ref.place not in retained(context)]
        old = {row.ref.place: row.deleted_at for row in free if 0 < row.deleted_at < limit}
        undated = {row.ref.place: 0 for row in free if not row.deleted_at}
        if old:
            violations.note(
                f"deleted more than {rules.deleted_days:g} days ago (deleted_days: {origin}), and neither a hold nor "
                f"production keeps it: {_counted(old, artifacts)}; --compliance-gc-preflight tells what else needs it"
            )
        if undated:
            violations.note(f"deleted at a time that the store does not tell: {_counted(undated, artifacts)}")
    over = {("run", item.run_id): item for item in services(context) if _is_over(item, context)}
    if over:
        first = next(iter(over.values()))
        ends = ", ".join(f"{why.rule} until {why.until}" for why in kept_for(first, settings))
        places = dict.fromkeys(over, 0) | {
            ("logged_model", row.key): 0
            for row in store.row_facts.values()
            if row.kind == "logged_model" and ("run", row.run_id) in over
        }
        violations.note(
            f"was in production and is kept longer than the settings say: {_counted(places, artifacts)}, such as run "
            f"{first.run_id} of {first.product} ({ends})"
        )


def _deleted(store: Snapshot) -> Iterator[RowFacts]:
    for row in store.row_facts.values():
        state = store.state_of(row.key)
        if state is not None and state.lifecycle == DELETED:
            yield row


def _is_over(service: Service, context: Context) -> bool:
    """Whether a run has left service, and all the years that the settings keep it for have passed."""
    why = list(kept_for(service, context.settings)) if service.former else []
    day = today(context.snapshot)
    ended = bool(why) and all(item.until is not None and item.until < day for item in why)
    return ended and ("run", service.run_id) not in retained(context)


def _counted(places: Mapping[Place, int], artifacts: Artifacts) -> str:
    """How much there is, and how many bytes nothing else holds."""
    held, _ = bytes_alone(artifacts, places)
    counts = {
        what: sum(kind == key for key, _ in places) for kind, what in (("run", "run"), ("logged_model", "logged model"))
    }
    words = [f"{number} {what}{'s' * (number != 1)}" for what, number in counts.items() if number]
    unknown = sum(place in artifacts.unknown for place in places)
    also = f" (without {unknown} whose files could not be looked at)" if unknown else ""
    return f"{' and '.join(words)} with {sum(held.values())} bytes{also}"
