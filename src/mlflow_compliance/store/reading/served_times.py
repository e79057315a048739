"""When the newest run behind a tracking server is dated, as `sql_times` tells it of a database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_compliance.scope import MADE_BY_US
from mlflow_compliance.store.reading.listing import FEW, chunks
from mlflow_compliance.store.reading.rest import SEARCH_RUNS, Rest


def newest_served(rest: Rest, experiments: list[str], before: int) -> int:
    """In milliseconds, 0 where no run is dated. What is dated later than `before` is dated wrongly."""
    found = [0]
    for chunk in chunks(experiments):
        for column in ("start_time", "end_time"):
            asked = {"experiment_ids": chunk, "run_view_type": "ALL", "filter": f"attributes.{column} <= {before}"}
            answer = rest.post(SEARCH_RUNS, {**asked, "order_by": [f"attributes.{column} DESC"], "max_results": FEW})
            found.append(next((int(run["info"].get(column) or 0) for run in answer.get("runs", ()) if not _made_by_us(run)), 0))
    return max(found)


def _made_by_us(run: Mapping[str, Any]) -> bool:
    return any(tag["key"] in MADE_BY_US for tag in run.get("data", {}).get("tags", ()))
