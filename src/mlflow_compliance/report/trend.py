"""The strip of earlier audits in the HTML report, a bar each, as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_compliance.report.markup import day, safe
from mlflow_compliance.report.severities import rank
from mlflow_compliance.words import several

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_compliance.audit.results import Report

_MOST = 40
"""Audits in one strip, the latest ones."""
_WIDTH, _HEIGHT = 18, 56
"""Of a bar with the room beside it, and of the highest one."""


def trend(report: Report) -> str:
    """Earlier audits and this one; empty where no earlier one is at hand."""
    history = report.summary.history
    if not history:
        return ""
    points = [(point.at, point.ok, point.failing) for point in history[1 - _MOST :]]
    points.append((report.summary.read_at, report.ok, report.counts.failing))
    highest = max(1, *(sum(failing.values()) for _, _, failing in points))
    bars = "".join(_bar(number, at, failing, highest, ok=ok) for number, (at, ok, failing) in enumerate(points))
    first, latest = points[0], points[-1]
    words = f"{sum(first[2].values())} findings failed on {day(first[0])}, {sum(latest[2].values())} do now"
    width = len(points) * _WIDTH
    return (
        '<section class="c-trend" aria-labelledby="c-trend-head"><h2 id="c-trend-head">Since earlier audits</h2>'
        f"<p>{words}: {several(len(points), 'audit')}.</p>"
        f'<svg role="img" aria-label="{words}" viewBox="0 0 {width} 66" width="{width}" height="66">{bars}</svg>'
        "</section>"
    )


def _bar(number: int, at: str, failing: Mapping[str, int], highest: int, *, ok: bool) -> str:
    told = ", ".join(f"{failing[each]} {each}" for each in sorted(failing, key=rank) if failing[each]) or "none"
    bottom, pieces = 60.0, ""
    for each in sorted(failing, key=rank, reverse=True):
        height = _HEIGHT * failing[each] / highest
        bottom -= height
        pieces += f'<rect class="c-fill-{safe(each)}" y="{bottom:.1f}" width="14" height="{height:.1f}"/>'
    foot = f'<rect class="{"c-ok" if ok else "c-bad"}" y="62" width="14" height="3"/>'
    return f'<g transform="translate({number * _WIDTH})"><title>{day(at)}: {safe(told)}</title>{pieces}{foot}</g>'
