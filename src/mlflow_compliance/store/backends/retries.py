"""A tracking server that does not answer: told at once where it never did; where it may come back, each retry is."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from urllib3.util.retry import Retry

from mlflow_compliance.store.backends.rest import SEARCH_EXPERIMENTS, Rest
from mlflow_compliance.store.storage.http_errors import is_definite, is_gone, never_connected, status_name, why_silent

Tell = Callable[[str], None]
"""Shows one line to whoever waits."""
FIRST = 4
"""Seconds that a server has for the first answer of all, before that it keeps us waiting is told."""
WORTH_RETRYING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which MLflow's client asks again."""
_LOGGER = "urllib3.connectionpool"
_RETRYING, _AGAIN = "Retrying (", "Retry: "
"""How urllib3's messages begin, of a broken connection and of a status that is worth asking again."""


def first_contact(rest: Rest, server: str, tell: Tell) -> None:
    """Ask a server that has not answered yet. One that nobody can connect to is not asked again, unless
    MLFLOW_HTTP_REQUEST_MAX_RETRIES was set; one that took the connection is, as often as MLflow does.
    """
    most, patience = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), MLFLOW_HTTP_REQUEST_TIMEOUT.get()
    question, first = {"max_results": 1}, min(FIRST, patience)
    try:
        # A server that is not asked again has all the time that MLflow gives it, once it took the connection.
        rest.post(SEARCH_EXPERIMENTS, question, max_retries=0, timeout=(first, first if most else patience))
    except MlflowException as error:
        waits = MLFLOW_HTTP_REQUEST_MAX_RETRIES.name in os.environ
        if not most or not is_gone(error) or is_definite(error) or (never_connected(error) and not waits):
            raise
        tell(_line(server, why_silent(error), 1, most))
    else:
        return
    with retries_told(server, tell, already=1):
        rest.post(SEARCH_EXPERIMENTS, question, max_retries=most - 1)


@contextmanager
def retries_told(server: str, tell: Tell, already: int = 0) -> Iterator[None]:
    """Tell of each retry that MLflow's client makes meanwhile; `already` were made before."""
    logger = logging.getLogger(_LOGGER)
    level, listening = logger.level, _Listening(server, tell, already)
    logger.addFilter(listening)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeFilter(listening)


class _Listening(logging.Filter):
    """Hears what urllib3 logs, and lets nothing of it through but errors: there are URLs in it."""

    def __init__(self, server: str, tell: Tell, already: int) -> None:
        super().__init__()
        self.server, self.tell, self.already = server, tell, already
        self._own = threading.local()
        self._lock = threading.Lock()
        self._told = already
        """The last retry that was told of: several questions are under way at a time."""

    def filter(self, record: logging.LogRecord) -> bool:
        message, given = str(record.msg), record.args if isinstance(record.args, tuple) else ()
        left = next((item.total for item in given if isinstance(item, Retry)), None)
        error = next((item for item in given if isinstance(item, BaseException)), None)
        if message.startswith(_RETRYING) and left is not None and error is not None:
            self._retry(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() - int(left), why_silent(error))
        elif message.startswith(_AGAIN):
            self._retry(self._made + 1, status_name(getattr(self._own, "status", 0)))
        else:
            self._answered(next((item for item in given if isinstance(item, int) and 100 <= item < 600), 0))
        return record.levelno >= logging.ERROR

    @property
    def _made(self) -> int:
        """Retries of the question that this thread asks."""
        return int(getattr(self._own, "made", self.already))

    def _answered(self, status: int) -> None:
        self._own.status = status
        if status and status not in WORTH_RETRYING:
            self._own.made = self._told = 0

    def _retry(self, number: int, why: str) -> None:
        self._own.made = number
        with self._lock:
            new, self._told = number > self._told, max(number, self._told)
        if new:
            self.tell(_line(self.server, why, number, MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()))


def _line(server: str, why: str, number: int, most: int) -> str:
    return f"MLflow at {server} does not answer ({why}): retry {number} of {most}"
