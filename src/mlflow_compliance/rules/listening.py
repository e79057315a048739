"""Whether a rule says something beside its findings: text on a stream, a record in a log, a warning."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _Stream:
    """A stream that counts what is written to it."""

    def __init__(self, under: Any, heard: Callable[[], None]) -> None:
        self._under = under
        self._heard = heard

    def write(self, text: str) -> Any:
        self._heard()
        return self._under.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)


class _Handler(logging.Handler):
    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__(logging.NOTSET)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard()


@contextmanager
def listening() -> Iterator[Callable[[], int]]:
    """Gives how much was said so far; streams and logs are as they were when it ends."""
    said = [0]

    def heard() -> None:
        said[0] += 1

    out, err, handler = sys.stdout, sys.stderr, _Handler(heard)
    logging.root.addHandler(handler)
    sys.stdout, sys.stderr = _Stream(out, heard), _Stream(err, heard)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield lambda: said[0] + len(warned)
    finally:
        sys.stdout, sys.stderr = out, err
        logging.root.removeHandler(handler)
