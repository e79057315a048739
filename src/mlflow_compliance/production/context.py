"""What rules and fixers are asked with: the store as it is, and what its owners say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.snapshot import Snapshot

Found = TypeVar("Found")


@dataclass(frozen=True)
class Context:
    """A snapshot and the settings. What follows from both is computed once, by whoever asks first."""

    snapshot: Snapshot
    settings: Settings
    _known: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    def once(self, compute: Callable[[Context], Found], key: object = None) -> Found:
        """What `compute` makes of this context, remembered under that function, or under a `key` that says more."""
        name = compute if key is None else key
        if name not in self._known:
            self._known[name] = compute(self)
        return cast("Found", self._known[name])

    def known(self, key: object) -> object | None:
        """What `once` remembers under a key, None where nobody asked yet."""
        return self._known.get(key)
