"""What the journal of the repair that built a production run says of the run's metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from datetime import datetime
from typing import Any

from mlflow_compliance.changes import JOURNAL, NOW, LogProductionRun, bind, load
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.evidence import Journalled
from mlflow_compliance.store.storage.journals import JOURNAL_NAME
from mlflow_compliance.store.storage.parsing import parse_json
from mlflow_compliance.store.storage.safe_io import opened


def path_in(folder: str, journal: str) -> str:
    """Where a journal lies in a folder; empty where its id is none: the tag that names it may be anybody's text."""
    name = f"{journal}.jsonl"
    return os.path.join(folder, name) if JOURNAL_NAME.fullmatch(name) else ""


def read_journal(path: str, journal: str, run_ids: Collection[str]) -> Journalled:
    """What a journal says of one run, which may be a copy of the one that it built. Nothing where it is not there or
    cannot be understood.
    """
    try:
        with opened(path) as file, open(file, encoding="utf-8", closefd=False) as reader:
            lines = [
                parse_json(line)
                for line in reader
                if '"LogProductionRun"' in line or '"bound"' in line or '"journal"' in line
            ]
        return _said(lines, journal, run_ids)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ChangeError):
        return Journalled()


def _said(lines: list[dict[str, Any]], journal: str, run_ids: Collection[str]) -> Journalled:
    written = datetime.fromisoformat(lines[0]["at"]).isoformat(timespec="seconds")
    planned = {
        line["change"]: load(line["do"]) for line in lines if line.get("do", {}).get("kind") == "LogProductionRun"
    }
    made: dict[str, str] = {}  # what changes before it made too: it may supersede a run that was copied
    for line in lines:
        change, bound = planned.get(line.get("change", 0)), line.get("bound") or {}
        made |= bound
        if isinstance(change, LogProductionRun) and bound.get(change.run_id) in run_ids:
            known = bound.get(change.metadata_hash, "")
            text = bind(change.metadata, {JOURNAL: journal, NOW: written, **made})
            return Journalled(journal, known or hashlib.sha256(text.encode()).hexdigest(), tagged=bool(known))
    return Journalled()
