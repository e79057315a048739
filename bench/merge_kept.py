"""What an experiment holds, by SQL and by its files: the same questions to a merge, to an import and to the source
of both.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ASKED = {
    # what is counted: one row for each of them, of the runs {runs} or of the experiment ?
    "runs": "SELECT name FROM runs WHERE run_uuid IN {runs}",
    "start times": "SELECT name, start_time FROM runs WHERE run_uuid IN {runs}",
    "end times": "SELECT name, end_time FROM runs WHERE run_uuid IN {runs}",
    "params": "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid) WHERE run_uuid IN {runs}",
    "metric points": (
        "SELECT r.name, m.key, m.value, m.timestamp, m.step FROM metrics m JOIN runs r USING "
        "(run_uuid) WHERE run_uuid IN {runs}"
    ),
    "tags": "SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid) WHERE run_uuid IN {runs}",
    "datasets": "SELECT r.name, d.name, d.digest FROM inputs i JOIN runs r ON i.destination_id = r.run_uuid"
    " JOIN datasets d ON i.source_id = d.dataset_uuid WHERE i.source_type = 'DATASET' AND r.run_uuid IN {runs}",
    "logged models": "SELECT r.name, m.name, m.model_type FROM logged_models m JOIN runs r ON m.source_run_id = "
    "r.run_uuid"
    " WHERE m.lifecycle_stage = 'active' AND r.run_uuid IN {runs}",
}


def held(database: Path, experiment: str, but: str = "") -> dict[str, Counter[Any]]:
    """Everything that the active runs of an experiment hold, apart from the run of one name; files by run, place
    and length.
    """
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as rows:
        (key,) = rows.execute("SELECT experiment_id FROM experiments WHERE name = ?", (experiment,)).fetchone()
        runs = (
            f"(SELECT run_uuid FROM runs WHERE experiment_id = {int(key)} AND lifecycle_stage = 'active' AND name <> ?)"
        )
        found = {
            name: Counter(rows.execute(query.format(runs=runs), (but,)).fetchall()) for name, query in ASKED.items()
        }
        places = rows.execute(f"SELECT name, artifact_uri FROM runs WHERE run_uuid IN {runs}", (but,)).fetchall()
        places += rows.execute(
            "SELECT r.name, m.artifact_location FROM logged_models m JOIN runs r ON m.source_run_id = r.run_uuid "
            f"WHERE r.run_uuid IN {runs}",
            (but,),
        ).fetchall()
        (home,) = rows.execute("SELECT artifact_location FROM experiments WHERE experiment_id = ?", (key,)).fetchone()
    found["files"], found["bytes"] = Counter(), Counter()
    for run, place in places:
        for path in (path for path in Path(place).rglob("*") if path.is_file()):
            found["files"][run, str(path.relative_to(place))] += 1
            # An MLmodel is written anew with the ids of its copy.
            found["bytes"][run, str(path.relative_to(place))] += 0 if path.name == "MLmodel" else path.stat().st_size
    found["artifact locations below the experiment's"] = Counter(
        run for run, place in places if place.startswith(f"{home}{os.sep}")
    )
    return found


def kept(source: Mapping[str, Counter[Any]], copy: Mapping[str, Counter[Any]]) -> dict[str, list[int]]:
    """For each kind: how many there were, and how many of exactly these are there again."""
    return {name: [items.total(), (items & copy[name]).total()] for name, items in source.items()}
