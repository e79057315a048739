"""The findings on a terminal: a block a rule and cause, or with all of them a block a finding."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING, KNOWN, WAIVED, WARNING
from mlflow_compliance.report.groups import groups_of
from mlflow_compliance.report.layout import EXAMPLES, Shown, beside
from mlflow_compliance.report.severities import SEVERITIES
from mlflow_compliance.report.verdict import by_severity
from mlflow_compliance.report.ways_out import by_people, by_the_program
from mlflow_compliance.safe_text import WHOLE, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_compliance.audit.results import Report
    from mlflow_compliance.report.groups import Group

SCREENFUL = 20
"""Lines of one rule, where not all is asked for."""
ROOM = 40
"""Lines of all rules, where nobody says how many there may be."""
HEADING = " rule   severity  what is wrong"
FIX, YOU, CHECK = "what --fix would do", "what you can do", "its check"
_LABEL = max(map(len, (FIX, YOU, CHECK)))
MORE = "every finding: --compliance-show=all"
_FEW = 2
"""Lines of one text."""
_WORTH_IT = 40
"""Characters of what is told once."""


def rows_of(report: Report, width: int | None, room: int = ROOM) -> Iterator[Shown]:
    """A block a rule and cause of what fails, in about so many lines, then what does not fail, counted."""
    groups = [group for group in groups_of(report) if group.status == FAILING]
    apart = list(_apart(report, width))
    heading = list(beside(f"{HEADING}  ", f"({MORE})", width, "heading")) if groups else []
    yield from heading
    yield from _fitting(groups, width, room - len(heading) - len(apart))
    yield from apart


def every_row(report: Report, width: int | None) -> Iterator[Shown]:
    """A block a finding, what does not fail with why it does not."""
    groups = groups_of(report, folded=False)
    if groups:
        yield Shown(HEADING, "heading")
    checks = {id(finding): result.nodeid for result, finding in report.findings}
    for group in groups:
        for finding in group.findings:
            one = replace(group, findings=(finding,), nodeid=checks[id(finding)])
            yield from _head(one, width)
            yield from _ways_out(one, width, all_of_it=True)
            yield from _check(one)


@dataclass
class _Block:
    """What is told of one group; it is made shorter where there is no room for all."""

    group: Group
    head: list[Shown]
    short: list[Shown]
    ways: list[Shown]
    short_ways: list[Shown]
    check: list[Shown]

    @property
    def lines(self) -> list[Shown]:
        return [*self.head, *self.ways, *self.check]

    def leave_out_ways(self) -> None:
        self.ways = []

    def shorten(self) -> None:
        self.head, self.ways = self.short, self.short_ways if self.ways else []


def _fitting(groups: Sequence[Group], width: int | None, room: int) -> Iterator[Shown]:
    """The blocks of the groups. Where they do not fit, the least severe are made shorter first, and those that are
    critical last.
    """
    told: dict[str, str] = {}
    blocks = [
        _Block(
            group,
            list(_head(group, width, _FEW)),
            list(_head(group, width, 1)),
            list(_ways_out(group, width, _FEW, told=told)),
            list(_ways_out(group, width, 1, told=told)),
            list(_check(group)),
        )
        for group in groups
    ]
    critical = [block for block in blocks if block.group.worst == SEVERITIES[0]]
    others = [block for block in blocks if block.group.worst != SEVERITIES[0]]
    if sum(len(block.lines) for block in blocks) > room:
        for block in blocks:
            block.check = []
    for some, shorter in (
        (others, _Block.leave_out_ways),
        (others, _Block.shorten),
        (critical, _Block.shorten),
        (critical, _Block.leave_out_ways),
    ):
        for block in reversed(some):
            if sum(len(each.lines) for each in blocks) > room:
                shorter(block)
    yield from _no_rule_too_long(blocks)


def _no_rule_too_long(blocks: Sequence[_Block]) -> Iterator[Shown]:
    used: dict[str, int] = defaultdict(int)
    left: dict[str, int] = defaultdict(int)
    for block in blocks:
        policy = block.group.policy
        if used[policy] + len(block.lines) >= SCREENFUL:
            left[policy] += len(block.group.findings)
            continue
        used[policy] += len(block.lines)
        yield from block.lines
    for policy, number in left.items():
        yield Shown(f" {policy} … {number:,} more: --compliance-rules={policy} --compliance-show=all")


def _head(group: Group, width: int | None, most: int = 0) -> Iterator[Shown]:
    """The line of a group, and what it blocks. What does not fail is set in by its status."""
    status = "" if group.status == FAILING else f"  {group.status:<8}"
    label = f"{status} {group.policy} {group.severity:<8}  "
    style = group.severity if group.status == FAILING else "apart"
    blocks = f"  blocks {' '.join(group.blocks)}" if group.blocks else ""
    for few in range(EXAMPLES, 0, -1):
        text = printable(group.sentence(few))
        lines = list(beside(label, text + blocks, width, style))
        if not most or len(lines) <= most:
            break
    else:
        lines = list(beside(label, text, width, style, most, keep=blocks))  # what is blocked is never cut off
    yield from lines


def _ways_out(
    group: Group, width: int | None, most: int = 0, *, all_of_it: bool = False, told: dict[str, str] | None = None
) -> Iterator[Shown]:
    """What --fix would do and what people can do; what was `told` of an earlier rule is not told again."""
    for label, way in ((FIX, by_the_program(group, all_of_it=all_of_it)), (YOU, by_people(group, all_of_it=all_of_it))):
        text = way
        if text and told is not None:
            what, bracket, number = text.rpartition(" (")
            key = what if bracket and number.endswith(")") else text
            earlier = told.setdefault(key, group.policy)
            if earlier != group.policy and len(key) > _WORTH_IT:
                text = f"the same as for {earlier}{f' ({number}' if key != text else ''}"
        if text:
            yield from beside(f"     {label:<{_LABEL}}  ", printable(text, WHOLE), width, "label", most)
    waiver = group.findings[0].waiver
    if group.status == WAIVED and waiver:
        yield from beside(f"     {'waived':<{_LABEL}}  ", printable(str(waiver), WHOLE), width, "label", most)
    if all_of_it and group.findings[0].owner:
        owner = " ".join(filter(None, (group.findings[0].owner, group.findings[0].contact)))
        yield from beside(f"     {'owner':<{_LABEL}}  ", printable(owner), width, "label", most)


def _check(group: Group) -> Iterator[Shown]:
    """What selects the check on pytest's command line, ready to be pasted: it is never broken."""
    if group.nodeid and group.status == FAILING:
        label = f"     {CHECK:<{_LABEL}}  "
        yield Shown(f"{label}{shlex.quote(printable(group.nodeid, WHOLE))}", "label", len(label))


def _apart(report: Report, width: int | None) -> Iterator[Shown]:
    """What does not fail the gate, counted by rule."""
    counts = report.counts
    for status, numbers in ((WARNING, counts.warning), (KNOWN, counts.known), (WAIVED, counts.waived)):
        if not numbers:
            continue
        rules: dict[str, int] = defaultdict(int)
        for result, finding in report.findings:
            if finding.status == status:
                rules[result.policy] += 1
        told = ", ".join(f"{policy} {number:,}" for policy, number in sorted(rules.items()))
        yield from beside(f"  {status:<8} ", f"{by_severity(numbers)}: {told}", width, "apart", _FEW)
