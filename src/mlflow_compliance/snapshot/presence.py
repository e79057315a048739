"""Whether what a row names is there: here, absent, or not looked at and why. What was not looked at is never called
missing.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Presence(Enum):
    """What is known of the folder that a row names."""

    HERE = "here"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Why(str, Enum):
    """Why a place was not looked at."""

    SCHEME = "scheme"
    """It lies in a kind of storage that is not read."""
    SERVER = "server"
    """It lies behind a tracking server, and the audit does not go through that."""
    ELSEWHERE = "elsewhere"
    """Nothing of its path is here: the row was written on another machine, or the store was moved."""
    NO_ROOT = "no root"
    """Files were written below its artifact root, and the root is not there."""
    EMPTY_ROOT = "empty root"
    """Files were written below its artifact root, and the root holds none: a volume that is not mounted looks like
    that.
    """
    CLOSED = "closed"
    """It cannot be looked into: permission, a failing disk, a bucket that refuses."""
    NOT_READ = "not read"
    """No file was looked at in this session."""

    @property
    def brings_back(self) -> bool:
        """Whether somebody must bring the place back before a repair may write: what is there now is not the
        store's own.
        """
        return self in (Why.NO_ROOT, Why.EMPTY_ROOT, Why.CLOSED)


class Unknown(NamedTuple):
    """A place that was not looked at. `place` is the folder or URI that it is told by, `reason` a sentence without
    a full stop.
    """

    why: Why
    place: str
    reason: str
