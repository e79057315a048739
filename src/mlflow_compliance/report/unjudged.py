"""Why some checks could not judge: none of those reads as compliance."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from mlflow_compliance.report.layout import examples, plain
from mlflow_compliance.safe_text import WHOLE, printable
from mlflow_compliance.words import several

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_compliance.audit.results import NotJudged, Result
    from mlflow_compliance.report.layout import Shown

MOST = 200
"""Entities of one check, where all are asked for."""
_FEW = 2
"""Lines of one text, and notes that are told."""
_SHARED = 3
"""Rules: a reason that so many share is worth a line."""


def every_unjudged(results: Sequence[Result], width: int | None) -> Iterator[Shown]:
    """A line an entity that was not judged."""
    for result in results:
        for item in result.unevaluated[:MOST]:
            yield from _line(result.policy, [item], width, fails=result.fails)


def unjudged(results: Sequence[Result], width: int | None) -> Iterator[Shown]:
    """A line a rule and reason, those first that fail the gate."""
    found: dict[tuple[bool, str, str], list[NotJudged]] = defaultdict(list)
    for result in results:
        for item in result.unevaluated:
            found[not result.fails, result.policy, item.code].append(item)
    for (passes, policy, _), items in sorted(found.items(), key=lambda entry: entry[0]):
        yield from _line(policy, items, width, fails=not passes, most=_FEW)


def _line(policy: str, items: Sequence[NotJudged], width: int | None, *, fails: bool, most: int = 0) -> Iterator[Shown]:
    entities, what = list(dict.fromkeys(item.entity for item in items)), items[0].entity
    if len(entities) > 1:
        kinds = {entity.partition(" ")[0] for entity in entities}
        what = several(len(entities), kinds.pop()) if len(kinds) == 1 else f"{len(entities):,} entities"
        what += f", e.g. {examples([entity.partition(' ')[2] or entity for entity in entities])}"
    text = printable(f"not evaluated: {policy}: {what}: {items[0].reason}", WHOLE)
    yield from plain(text, width, "failing" if fails else "warning", most)


def not_applicable(results: Sequence[Result], width: int | None, *, whole: bool) -> Iterator[Shown]:
    """A line a reason for which rules had nothing to judge; where not the whole is asked for, only for reasons that
    many rules share.
    """
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.outcome == "not applicable":
            policies = reasons.setdefault(result.reason, [])
            policies += [result.policy] if result.policy not in policies else []
    rest: dict[str, None] = {}
    for reason, policies in reasons.items():
        if whole or len(policies) >= _SHARED:
            text = printable(f"not applicable: {', '.join(policies)}: {reason}", WHOLE)
            yield from plain(text, width, "", 0 if whole else _FEW)
        else:
            rest |= dict.fromkeys(policies)
    if rest:
        yield from plain(f"not applicable: {', '.join(rest)} (why: --compliance-show=all)", width, "", _FEW)


def notes(results: Sequence[Result], width: int | None, *, whole: bool) -> Iterator[Shown]:
    """What checks noted that breaks no rule; of much only which rules did, where not the whole is asked for."""
    found = [(result.policy, text) for result in results for text in result.notes]
    if whole or len(found) <= _FEW:
        for policy, text in found:
            yield from plain(printable(f"note: {policy}: {text}", WHOLE), width, "", 0 if whole else _FEW)
        return
    counted = Counter(policy for policy, _ in found)
    told = ", ".join(f"{policy} {number:,}" for policy, number in counted.items())
    yield from plain(f"notes: {told} (--compliance-show=all)", width, "", _FEW)
