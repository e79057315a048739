"""Files of a file store that hold no rows as they are."""

from __future__ import annotations

from typing import NamedTuple


class DamagedFile(NamedTuple):
    """One file that MLflow cannot read, or reads otherwise than it was written."""

    code: str
    path: str
    """In the user's own store."""
    problem: str
    """What is wrong, as the rest of a sentence about the file."""
    lost: str
    """What nobody is shown for it, such as 'experiment 3 with 2 runs'."""
    experiment_id: str = ""
    runs: int = 0
    """Runs of an experiment that cannot be read, which a migration takes over without it."""
