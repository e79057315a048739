"""Writes the baseline that --compliance-baseline-write asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_compliance.errors import BaselineError
from mlflow_compliance.session.reports import tell_error

if TYPE_CHECKING:
    import pytest

    from mlflow_compliance.audit.judging import Judge
    from mlflow_compliance.audit.results import Result, Summary


def with_baseline_written(
    summary: Summary, results: tuple[Result, ...], judge: Judge, session: pytest.Session
) -> Summary:
    """Write the baseline where one is asked for, and say so in the head; on a worker of pytest-xdist nothing, its
    controller has all results.
    """
    config, option = session.config, session.config.option
    if not option.compliance_baseline_write or hasattr(config, "workerinput"):
        return summary
    if summary.stopped or not results or option.setupplan or option.setuponly or option.collectonly:
        return replace(summary, head=(*summary.head, "no baseline was written: nothing was judged to its end"))
    from mlflow_compliance.audit.baseline import read_baseline, write_baseline
    from mlflow_compliance.audit.gate_summary import entries_of

    path = config.invocation_params.dir / Path(option.compliance_baseline_write).expanduser()
    try:
        older = read_baseline(path) if path.exists() else None
        if older is not None and older.of_another_store(judge.experiments):
            older = None
        entries = {entry.fingerprint: entry for entry in entries_of(summary, results, older)}
        write_baseline(path, judge.oldest, entries.values())
    except BaselineError as error:
        tell_error(session, str(error))
        return summary
    before = older.entries.keys() if older else set()
    changed = f" ({len(entries.keys() - before)} added, {len(before - entries.keys())} taken out)" if older else ""
    name = option.compliance_baseline_write
    told = (
        f"baseline written to {name}: {len(entries)} findings{changed}; to fail on new ones alone: "
        f"--compliance-baseline={name}"
    )
    return replace(summary, head=(*summary.head, told))
