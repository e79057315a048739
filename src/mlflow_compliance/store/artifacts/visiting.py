"""The folders of rows, looked into by this process and helpers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized

from mlflow_compliance.store.disk.helpers import MOST_PARTS, Share, sharing
from mlflow_compliance.store.disk.visitor import Found, Visitor

FEWEST = 600
"""Folders below which a helper costs more than it spares."""

Folder = tuple[str, str]
"""A row's folder, and where in it its artifacts are."""
Asked = tuple[int, tuple[str, ...], bool]
"""The arguments of a `Visitor`."""


def are_many(folders: Sized) -> bool:
    """Whether a helper is worth its start."""
    return len(folders) >= FEWEST


def visited(folders: Sequence[Folder], asked: Asked, share: Share | None, seen: Callable[[int], None]) -> Iterator[tuple[int, Found | None]]:
    """The number of every folder and what is in it; None where it is to be looked at closely. `seen` is told how many files were found.

    `share` is of helpers that started before it was known what there is to do.
    """
    if share is None:
        with sharing(Visitor, helped=are_many(folders)) as own:
            yield from visited(folders, asked, own, seen)
        return
    size = max(1, min(16, len(folders) // 8), -(-len(folders) // MOST_PARTS))
    share.begin(asked, [list(folders[start : start + size]) for start in range(0, len(folders), size)])
    for number, found in share.told():
        seen(sum(len(one[0]) for one in found if one))
        yield from enumerate(found, number * size)
