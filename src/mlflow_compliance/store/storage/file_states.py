"""Whether what was read of a file still holds, told by its state alone."""

from __future__ import annotations

import os
import stat
import time

from mlflow_compliance.store.storage.filesystem import is_of_this_machine
from mlflow_compliance.store.storage.folder_scan import mark_of, state_of

COARSE = 2_000_000_000
"""The coarsest clock of a file system that is in use (FAT) ticks every two seconds."""
_FINE, _DIGITS = 100_000_000, 10_000_000
"""A time with digits below ten milliseconds is from a clock of the kernel, which ticks every ten at the most."""


def is_settled(device: int, written: int, changed: int, since: int) -> bool:
    """Whether a file that was looked at from `since` on cannot have changed after that without another time (ns): one
    that was written to just before may have been written to again within the same tick. Where other machines may
    write too, nobody knows.
    """
    tick = _FINE if changed % _DIGITS else COARSE
    return max(written, changed) < since - tick and is_of_this_machine(device)


def mark_of_file(path: str) -> str:
    """One word for the state of a file or of all that is in a folder, links followed at the top alone; '' where
    nothing can be concluded from it.
    """
    states: list[tuple[int | str, ...]] = []
    rest, since = [path], time.time_ns()
    try:
        facts = os.stat(path)
        while True:
            if not is_settled(facts.st_dev, facts.st_mtime_ns, facts.st_ctime_ns, since):
                return ""
            if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
                return ""
            place = rest.pop()
            states.append((place, *state_of(facts)))
            if stat.S_ISDIR(facts.st_mode):
                rest += sorted(os.path.join(place, name) for name in os.listdir(place))
            if not rest:
                return mark_of(states)
            facts = os.lstat(rest[-1])
    except OSError:
        return ""
