"""Findings grouped by rule and cause: what is wrong once, however many entities it is wrong with."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING, STATUSES
from mlflow_compliance.report.following import first_causes
from mlflow_compliance.report.layout import EXAMPLES, examples
from mlflow_compliance.report.severities import rank
from mlflow_compliance.words import several

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow_compliance.audit.results import FoundProblem, Report, Result
    from mlflow_compliance.report.following import Check

_STATE = re.compile(r"(?:not|still|\w+ed)\b")
"""What says how things are: '265 experiments not classified' needs no colon."""
_WORDS = 8
"""Of what tells findings about one entity apart, so many are named."""


@dataclass(frozen=True)
class Group:
    """Findings of one rule, code, severity and status, in the order of the report."""

    policy: str
    severity: str
    status: str
    findings: tuple[FoundProblem, ...]
    nodeid: str
    """The check that told the first of them."""
    follows: str = ""
    """The rule whose finding they only follow from."""
    blocks: tuple[str, ...] = ()
    """The rules whose findings follow from these."""
    worst: str = ""
    """Severity of the worst of these and of what follows from them."""

    def sentence(self, few: int = EXAMPLES) -> str:
        """What is wrong with how many of what, and the first few of them."""
        first, names = self.findings[0], _names(self.findings)
        if len(self.findings) == 1:
            return first.text
        before, between, after = _common([finding.message for finding in self.findings])
        if len(names) == 1:
            if not between:
                return f"{first.entity} {before}, {len(self.findings):,} times"
            return " ".join(
                filter(None, (first.entity, before, examples(between, _WORDS if few == EXAMPLES else few), after))
            )
        kinds = {finding.kind or finding.entity.partition(" ")[0] for finding in self.findings}
        what = " ".join(filter(None, (before, _spread(between), after)))
        what = f"{first.message}, and the like" if what == "…" else what
        counted = several(len(names), kinds.pop()) if len(kinds) == 1 else f"{len(names):,} entities"
        more = f" ({len(self.findings):,} findings)" if len(self.findings) > len(names) else ""
        return f"{counted}{'' if _STATE.match(what) else ':'} {what}{more}  e.g. {examples(names, few)}"


def groups_of(report: Report, *, folded: bool = True) -> list[Group]:
    """The groups, what fails first, then by severity and rule; `folded` leaves what follows from another finding to
    the group of that one, by the ids of its rules.
    """
    causes = first_causes(report.results)
    heads = _heads(report.results, causes)
    found: dict[tuple[str, ...], list[tuple[Result, FoundProblem]]] = defaultdict(list)
    blocked: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for result, finding in report.findings:
        cause = causes.get((result.policy, result.entity, finding.code))
        if folded and cause in heads and finding.status == FAILING:
            told = blocked[heads[cause]]
            told[result.policy] = min(finding.severity, told.get(result.policy, finding.severity), key=rank)
        else:
            found[(*_key(result, finding), cause[0] if cause else "")].append((result, finding))
    made = []
    for key, members in found.items():
        policy, severity, status, _, follows = key
        blocks = blocked.get(key, {})
        findings = tuple(finding for _, finding in members)
        worst = min((severity, *blocks.values()), key=rank)
        made.append(
            Group(policy, severity, status, findings, members[0][0].nodeid, follows, tuple(sorted(blocks)), worst)
        )
    order = {status: number for number, status in enumerate(STATUSES)}
    return sorted(made, key=lambda group: (order[group.status], rank(group.worst), group.policy))


def _key(result: Result, finding: FoundProblem) -> tuple[str, str, str, str]:
    return result.policy, finding.severity, finding.status, finding.code


def _heads(results: Iterable[Result], causes: dict[tuple[str, str, str], Check]) -> dict[Check | None, tuple[str, ...]]:
    """Check -> the group of the first finding that it has of its own and that fails."""
    return {
        (result.policy, result.entity): (*_key(result, finding), "")
        for result in results
        for finding in reversed(result.findings)
        if finding.status == FAILING and (result.policy, result.entity, finding.code) not in causes
    }


def _names(findings: Sequence[FoundProblem]) -> list[str]:
    """What people call each entity, one name an entity; two of one name are told apart."""
    entities = {(item.kind, item.key or item.entity): item.name or item.entity for item in findings}
    used = Counter(entities.values())
    return [f"{label} ({key[:8]})" if used[label] > 1 else label for (_, key), label in entities.items()]


def _spread(between: Sequence[str]) -> str:
    """What stands for words that differ: of numbers the least and the most."""
    numbers = sorted({int(word) for word in between if word.isdecimal()})
    if numbers and all(word.isdecimal() for word in between):
        return f"{numbers[0]:,} to {numbers[-1]:,}"
    return "…" if between else ""


def _common(messages: Sequence[str]) -> tuple[str, list[str], str]:
    """The words that all begin with, those that only some have, and the words that all end with."""
    lists = [message.split() for message in messages]
    short = min(map(len, lists))
    before = next((at for at in range(short) if len({words[at] for words in lists}) > 1), short)
    rest = short - before
    after = next((at for at in range(rest) if len({words[-1 - at] for words in lists}) > 1), rest)
    between = list(dict.fromkeys(" ".join(words[before : len(words) - after]) for words in lists))
    ending = " ".join(lists[0][len(lists[0]) - after :])
    return " ".join(lists[0][:before]), [] if between == [""] else between, ending
