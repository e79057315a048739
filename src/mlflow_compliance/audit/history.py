"""What earlier audits of a store said, from the folder that `[history] folder` names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_compliance.audit.results import FAILING, HistoryPoint, iso
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.store.storage.parsing import parse_json, read_at_most
from mlflow_compliance.store.storage.safe_io import opened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_compliance.audit.results import Report

MOST = 60
"""Audits that are looked back at."""
_LOOKED_AT = 1000
"""Files: the folder may be that of several stores."""
_LARGEST = 1 << 28
_NAME = re.compile(r"(\d{8}T\d{6}Z)-(?:pass|fail|incomplete)(-partial)?(?:-(\d+))?\.json")


class History(NamedTuple):
    """Earlier whole audits, the oldest first, and what stands in the way of knowing all of them."""

    points: tuple[HistoryPoint, ...] = ()
    problems: tuple[str, ...] = ()


def name_of(report: Report, verdict: str, number: int) -> str:
    """What the file of an audit is called: by when the store was read and what came of it. The second one of a
    second has a number.
    """
    at = re.sub("[-:]", "", report.summary.moment)
    return f"{at}-{verdict.lower()}{'-partial' * report.partial}{f'-{number}' if number > 1 else ''}.json"


def history_of(folder: str | None, uri: str) -> History:
    """The history of a store that reports call `uri`. A partial audit is no point of it: it found less because it
    asked less.
    """
    try:
        names = os.listdir(folder) if folder else []
    except FileNotFoundError:
        return History()  # the first audit makes it
    except OSError as error:
        return History((), (f"[history] folder: {folder} cannot be looked into ({_why(error)})",))
    whole = [
        (found[1], int(found[3] or 1), name) for name in names if (found := _NAME.fullmatch(name)) and not found[2]
    ]
    points: list[HistoryPoint] = []
    problems: list[str] = []
    for _, _, name in sorted(whole, reverse=True)[:_LOOKED_AT]:
        path = os.path.join(str(folder), name)
        try:
            document = _read(path)
            if document["summary"]["uri"] == uri:
                points.append(_point(document, latest=not points))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(f"[history] folder: {path} is no report that can be read ({_why(error)})")
        if len(points) == MOST:
            break
    return History(tuple(reversed(points)), tuple(problems))


def _read(path: str) -> Any:
    with opened(path) as file:
        return parse_json(read_at_most(file, _LARGEST))


def _point(document: Any, *, latest: bool) -> HistoryPoint:
    """The short of a report; it is read as somebody may have left it."""
    summary, counts = document["summary"], document["counts"]
    failing = {str(name): int(number) for name, number in counts["failing"].items()}
    products = {
        without_secrets(str(item["name"])): without_secrets(str(item["version"] or item["run_id"]))
        for item in summary["products"]
    }
    return HistoryPoint(
        at=iso(str(summary["read_at"])),
        ok=document["ok"] is True,
        failing=failing,
        waived=sum(map(int, counts["waived"].values())),
        production=products,
        fingerprints=tuple(_failing(document["results"])) if latest else None,
    )


def _failing(results: Iterable[Any]) -> list[str]:
    return [
        str(finding["fingerprint"])
        for result in results
        for finding in result["findings"]
        if finding["status"] == FAILING
    ]


def _why(error: Exception) -> str:
    return (error.strerror or "unreadable").lower() if isinstance(error, OSError) else type(error).__name__
