"""How many bytes some runs and models hold that nothing else does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from mlflow_compliance.production.retention import Place
from mlflow_compliance.snapshot.artifacts import Artifacts


def bytes_alone(artifacts: Artifacts, owners: Mapping[Place, int]) -> tuple[dict[Place, int], int]:
    """Owner -> the bytes that nothing but these owners holds; and how many bytes something else holds too. One copy of
    several owners is that of the last one by its number, such as the time of a deletion.
    """
    copies: dict[str, tuple[Place, int]] = {}
    if not owners:
        return {}, 0
    others = set[str]()
    for file in artifacts.files.values():
        if file.owner and file.owner.place in owners:
            before = copies.get(file.copy, (file.owner.place, 0))[0]
            copies[file.copy] = max(before, file.owner.place, key=lambda place: (owners[place], place)), file.size
        else:
            others.add(file.copy)
    others = (others | artifacts.linked_outside) & copies.keys()
    held: dict[Place, int] = defaultdict(int)
    for copy, (place, size) in copies.items():
        if copy not in others:
            held[place] += size
    return held, sum(copies[copy][1] for copy in others)
