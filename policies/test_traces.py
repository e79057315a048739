"""Rules about traces: brought to their end, and each with its row."""

from __future__ import annotations

from mlflow_compliance.api import (
    Artifacts,
    EntityRef,
    Experiment,
    LostTraces,
    Settings,
    Severity,
    Snapshot,
    Violations,
    as_time,
    policy,
)


@policy(
    "TRC001",
    "Traces have an end and a row",
    Severity.LOW,
    advice="end what nobody will go on with: `mlflow traces delete --experiment-id EXPERIMENT_ID --trace-ids TRACE_ID`",
)
def test_traces_have_an_end_and_a_row(
    store: Snapshot, artifacts: Artifacts, settings: Settings, violations: Violations
) -> None:
    """A trace that nobody ends looks like a request that still runs; files whose trace was deleted are shown to
    nobody, prompts and answers in them.
    """
    limit, origin = settings.runs.running_max_hours, settings.origin("runs.running_max_hours")
    for item in store.open_traces:
        if store.experiments[item.experiment_id].active:
            violations.add(
                "in-progress",
                f"{_counted(item.number, 'trace')} in progress for more than {limit:g} hours",
                entity=store.experiments[item.experiment_id].ref,
                observed=f"since {as_time(item.oldest)}, such as {item.example}",
                expected=f"ended within {limit:g} hours ({origin})",
            )
    for lost in artifacts.lost_traces:
        entity = _called(lost.experiment_id, store.experiments.get(lost.experiment_id))
        if lost.unknown:
            violations.not_evaluated("files-without-row", f"{_files(lost, artifacts)}: {lost.unknown}", entity=entity)
        else:
            violations.add(
                "files-without-row",
                "it holds files of traces that have no row",
                entity=entity,
                observed=_files(lost, artifacts),
                expected="a row of each trace",
            )
    for experiment in store.experiments.values():
        unknown = artifacts.unknown.get(experiment.ref.place)
        if unknown and experiment.traces:
            violations.not_evaluated("not-looked-at", unknown.reason, entity=experiment.ref)


def _called(key: str, experiment: Experiment | None) -> EntityRef:
    return experiment.ref if experiment else EntityRef("experiment", key, key)


def _files(lost: LostTraces, artifacts: Artifacts) -> str:
    return (
        f"{_counted(len(lost.ids), 'folder')} with {_counted(lost.files, 'file')}, {lost.size} bytes, in "
        f"{artifacts.relative(lost.folder)}, such as {lost.ids[0]}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
