"""What a plan comes to: its changes counted by kind, and the bytes that it frees or moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from mlflow_compliance.changes import Applicability, Change, LinkDuplicate, MoveToQuarantine
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.words import size_of


def totals(changes: Sequence[Change], start: Snapshot) -> str:
    """One line: '2,200 files shared, 12 experiments retired, 4.1 GB saved; 3 changes are safe, 2,209 reversible'."""
    if not changes:
        return ""
    safe = sum(change.applicability is Applicability.SAFE for change in changes)
    reach = f"{safe:,} changes are safe, {len(changes) - safe:,} reversible"
    return f"{', '.join((*counted(changes), *_bytes(changes, start)))}; {reach}"


def counted(changes: Sequence[Change]) -> Iterator[str]:
    """How many changes there are of each kind, in words, the most frequent kind first."""
    numbers: Counter[str] = Counter()
    for change in changes:
        numbers[change.in_total] += change.number
    for words, number in sorted(numbers.items(), key=lambda item: (-item[1], item[0])):
        one = number == 1
        told = words.format(s="" if one else "s", es="" if one else "es", y="y" if one else "ies")
        yield f"{number:,} {told}"


def _bytes(changes: Sequence[Change], start: Snapshot) -> Iterator[str]:
    saved, moved = _saved(changes, start), sum(item.size for item in changes if isinstance(item, MoveToQuarantine))
    if saved:
        yield f"{size_of(saved)} saved"
    if moved:
        yield f"{size_of(moved)} moved aside"


def _saved(changes: Sequence[Change], start: Snapshot) -> int:
    """The bytes of physical copies that no path holds any more: several paths may hold one."""
    links = {change.path: change.size for change in changes if isinstance(change, LinkDuplicate)}
    if not links:
        return 0
    files = start.artifacts.files if start.artifacts else {}
    copies = {path: files[path].copy if path in files else path for path in links}
    freed = set(copies.values())
    freed -= {file.copy for path, file in files.items() if file.copy in freed and path not in links}
    return sum({copies[path]: size for path, size in links.items() if copies[path] in freed}.values())
