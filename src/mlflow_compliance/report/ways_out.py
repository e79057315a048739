"""What --fix would do about findings, and what people can do: two different things."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING, WARNING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_compliance.audit.results import FoundProblem
    from mlflow_compliance.report.groups import Group

_CHANGES = re.compile(r" \((\d+) changes?\)$")
_SENTENCE = re.compile(r"(?<=[a-z])\. (?=[A-Z])|; ")
_NOTHING = "nothing"


def by_the_program(group: Group, *, all_of_it: bool = False) -> str:
    """What --fix would do, in one sentence or `all_of_it`; empty where that is no more than what people can do."""
    if group.follows or (group.status not in (FAILING, WARNING) and not all_of_it):
        return ""
    mended = [finding for finding in group.findings if finding.fixable]
    if mended:
        # Several findings about one entity may have one remedy.
        remedies = {(finding.kind, finding.key or finding.entity, finding.remedy) for finding in mended}
        changes = sum(int(found[1]) for _, _, text in remedies if (found := _CHANGES.search(text)))
        told = _first([_CHANGES.sub("", finding.remedy) for finding in mended], "other remedies")
        told = told if all_of_it else _SENTENCE.split(told, maxsplit=1)[0].removesuffix(".")
        number = f"{changes:,} change{'s' * (changes != 1)}" if changes else ""
        part = f"for {len(mended):,} of {len(group.findings):,}" if len(mended) < len(group.findings) else ""
        more = ", ".join(filter(None, (number, part)))
        return f"{told} ({more})" if more else told
    reasons = [item.remedy for item in group.findings if item.remedy and item.remedy != item.advice]
    told = _first(reasons, "other reasons")
    return _as_nothing(told) if told else ""


def by_fix(finding: FoundProblem) -> str:
    """What --fix would do about one finding, or why it does nothing; what people can do is told beside it."""
    if finding.fixable:
        return finding.remedy
    return _as_nothing(finding.remedy if finding.remedy != finding.advice else "")


def _as_nothing(reason: str) -> str:
    if reason.lower().startswith(_NOTHING):
        return reason
    return f"{_NOTHING}: {reason}" if reason else _NOTHING


def by_people(group: Group, *, all_of_it: bool = False) -> str:
    """What people can do; of what --fix mends only where `all_of_it` is asked for."""
    if group.follows:
        return f"see {group.follows}"
    if group.status not in (FAILING, WARNING):
        return ""
    wanted = [item.advice for item in group.findings if item.advice and (all_of_it or not item.fixable)]
    return _first(wanted, "others")


def _first(texts: Iterable[str], others: str) -> str:
    """What is said most often, and how many other things are."""
    counted = Counter(texts).most_common()
    if not counted:
        return ""
    return counted[0][0] + (f" (and {len(counted) - 1:,} {others})" if len(counted) > 1 else "")
