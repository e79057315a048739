"""Reads YAML and JSON that others wrote, within a budget: what costs more than it can be worth is refused, in words."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import yaml

LARGEST_METADATA = 1 << 24
"""Bytes of model_metadata.json."""
LARGEST_METRIC = 1 << 28
"""Bytes of a file of points."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEEPEST = 200
_MOST_PARTS, _MOST_REPEATED = 100_000, 10_000
_LONG = 100
"""Characters that count for one part more."""
_LONGEST_NUMBER = 1000
_DIGITS = re.compile(r"[\w:]+", re.ASCII)
_REFERS = re.compile(r"[&*]|<<")


def parse_yaml(text: str) -> Any:
    """What YAML holds. Raises ValueError with a reason, without a subject, that quotes nothing of it."""
    refuse_costly_yaml(text)
    try:
        return yaml.load(text, Loader=LOADER)  # noqa: S506  a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        raise ValueError("is not YAML") from None


def refuse_costly_yaml(text: str) -> None:
    """Raise ValueError for YAML that is deep (the C loader recurses on the C stack), that is large, or that repeats
    itself by anchors and merge keys, each of which may hold the one before many times. Its stream of events does none
    of that.
    """
    longest = max(map(len, text.split("\n")))
    deep = text.count("[") + text.count("{") >= _DEEPEST or longest >= _DEEPEST
    number = longest > _LONGEST_NUMBER and max(map(len, _DIGITS.findall(text)), default=0) > _LONGEST_NUMBER
    if deep or number or len(text) > _MOST_PARTS or _REFERS.search(text):
        try:
            _weigh(text)
        except (yaml.YAMLError, RecursionError):
            raise ValueError("is not YAML") from None


def _weigh(text: str) -> None:
    open_ones: list[tuple[str | None, int]] = []
    weights: dict[str, int] = {}
    parts = repeated = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((event.anchor, parts))
            if len(open_ones) > _DEEPEST:
                raise ValueError(f"is nested more than {_DEEPEST} levels deep")
            parts += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_ones.pop()
            if anchor:
                weights[anchor] = parts - before
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _LONGEST_NUMBER and _is_number(event):
                raise ValueError(f"holds a number of more than {_LONGEST_NUMBER:,} characters")
            weight = 1 + len(event.value) // _LONG
            parts += weight
            if event.anchor:
                weights[event.anchor] = weight
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in weights:
                raise ValueError("refers to itself, or to nothing")
            parts += weights[event.anchor]
            repeated += weights[event.anchor]
        if repeated > _MOST_REPEATED:
            raise ValueError(f"repeats more than {_MOST_REPEATED:,} parts of itself by anchors or merge keys")
        if parts > _MOST_PARTS:
            raise ValueError(f"has more than {_MOST_PARTS:,} parts")


def _is_number(event: yaml.ScalarEvent) -> bool:
    """Whether it could be read as one: long ones take long, or cannot be shown afterwards."""
    text = event.value.lstrip("+-").lower()
    based = text.startswith(("0x", "0b", "0o"))
    plain = event.implicit[0] or str(event.tag).endswith((":int", ":float"))
    return bool(plain and (based or not text.strip("0123456789_:.")))


def parse_json(text: str | bytes) -> Any:
    """What JSON holds. Raises ValueError, with a reason without a subject, for what is none or is nested too deep for
    those who walk through it.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"is nested more than {_DEEPEST} levels deep") from None
    except ValueError:
        raise ValueError("is not JSON") from None
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST:
        level, depth = [found], 0
        while level:
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"is nested more than {_DEEPEST} levels deep")
            below = (item.values() if isinstance(item, dict) else item for item in level)
            level = [part for items in below for part in items if isinstance(part, (dict, list))]
    return found


def read_at_most(file: int, largest: int) -> bytes:
    """All that an open file holds. Raises ValueError, with a reason without a subject, where it is larger."""
    if os.fstat(file).st_size <= largest:
        parts, left = [], largest + 1
        while left and (part := os.read(file, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
        if left:
            return b"".join(parts)
    raise ValueError(f"is larger than {largest >> 20} MiB")
