"""Which names belong together: experiments of one model that differ in words about their state, and long lists of names
as a few patterns.
"""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+")
_VERSION = re.compile(r"v?\d+")
IN_FORCE = frozenset({"production", "prod", "live", "champion", "deployed", "serving"})
"""Words that people give to what is in production."""
DELIVERED = frozenset({"final", "delivery", "delivered", "release", "released", "deployment"})
"""Words of what was handed over to become production."""
NAMED = IN_FORCE | DELIVERED
"""Either, in the name of an experiment beside one that is production beyond doubt."""
_BEFORE = frozenset({"pre", "non", "no", "not", "un", "next", "staging"})
_STATE = NAMED | {"old", "new", "backup", "copy", "former", "previous", "legacy", "archive", "archived"}
_FEWEST = 3
"""Names that are worth a pattern."""
_SHORTEST = 3
"""Letters of a pattern: what begins with less says nothing."""
_LEVELS: tuple[re.Pattern[str], ...] = (
    re.compile(r"(.*?[\W_]?)(?<!\d)\d+"),
    re.compile(r"(.*[\W_])[^\W_]*"),
    re.compile(r"([^\W_]+[\W_]).*", re.DOTALL),
)
"""What of a name its relatives share: all but a number at its end, all but its last word, its first word."""


def words(name: str) -> list[str]:
    return _WORD.findall(name.casefold())


@lru_cache(maxsize=4096)
def family(name: str) -> str:
    """What is left of a name without words about state and version: 'fraud_production_v2' and 'fraud-final' are both of
    'fraud'.
    """
    return " ".join(word for word in words(name) if word not in _STATE and not _VERSION.fullmatch(word))


def sounds_like_production(name: str) -> bool:
    """Whether an alias reads as that of what is in production, in any spelling; 'pre-production' does not."""
    found = words(name)
    return bool(IN_FORCE & {*found}) and not _BEFORE & {*found}


class Pattern(NamedTuple):
    """A pattern for the settings, and how many names it stands for."""

    text: str
    names: int


def patterns(names: Collection[str], others: Collection[str], most: int) -> list[Pattern]:
    """Patterns that match these names and none of the others: each name by itself where they are few, else by what they
    begin with; the coarsest way is taken where none gives at most `most`.
    """
    found = [Pattern(glob.escape(name), 1) for name in names]
    for level in _LEVELS:
        if len(found) <= most:
            break
        found = _grouped(names, others, level)
    return found


def _grouped(names: Iterable[str], others: Collection[str], level: re.Pattern[str]) -> list[Pattern]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        shared = level.fullmatch(name)
        groups[shared[1] if shared and len(shared[1]) >= _SHORTEST else name].append(name)
    found = []
    for shared_part, group in groups.items():
        text = f"{glob.escape(shared_part)}*"
        if len(group) < _FEWEST or any(fnmatchcase(other, text) for other in others):
            found += [Pattern(glob.escape(name), 1) for name in group]
        else:
            found.append(Pattern(text, len(group)))
    return found
