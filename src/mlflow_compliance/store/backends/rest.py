"""Asks a tracking server over HTTP just as MLflow's own client does, but takes the answers as plain JSON and pages
ahead.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Full, Queue
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import RestException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlflow_compliance.store.storage.http_errors import AnswerError

SERVER_INFO = "/api/3.0/mlflow/server-info"
SEARCH_EXPERIMENTS = "/api/2.0/mlflow/experiments/search"
SEARCH_RUNS = "/api/2.0/mlflow/runs/search"
SEARCH_MODELS = "/api/2.0/mlflow/logged-models/search"
SEARCH_TRACES = "/api/3.0/mlflow/traces/search"
_NEXT = re.compile(rb'"next_page_token"\s*:\s*"([^"\\]+)"\s*}\s*$')
"""The last member of an answer: what ends like this can be asked on before it is parsed."""
_MORE = b'"next_page_token"'
_TAIL = 4096
_LOOK_UP = 0.2
"""Seconds after which who waits to hand a page over looks whether anybody still takes it."""


class Rest:
    """One server. Credentials, certificates, retries, time limits and header plugins are those of MLflow's settings."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @property
    def user(self) -> str:
        """The name that the server is asked under, empty where there is none."""
        return get_default_host_creds(self.uri).username or unquote(urlsplit(self.uri).username or "")

    def ask(self, method: str, endpoint: str, **arguments: Any) -> bytes:
        """The body of an answer. Raises MlflowException or AnswerError for every other status than 200, after
        MLflow's own retries.
        """
        answer = http_request(get_default_host_creds(self.uri), endpoint, method, **arguments)
        content: bytes = answer.content
        if answer.status_code == 200:
            return content
        try:
            told = json.loads(content)
        except ValueError:
            told = None
        if isinstance(told, dict) and "error_code" in told:
            raise RestException(told)
        raise AnswerError(answer.status_code)

    def get(self, endpoint: str, **parameters: str) -> dict[str, Any]:
        return _parsed(self.ask("GET", endpoint, params=parameters))

    def post(self, endpoint: str, body: Mapping[str, Any], **limits: int | tuple[int, int]) -> dict[str, Any]:
        """`limits` are MLflow's max_retries and timeout, where they are not to be those of its settings."""
        return _parsed(self.ask("POST", endpoint, json=dict(body), **limits))

    def pages(self, endpoint: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every page of a search. While one is parsed and looked at, the next is under way; no more than these two
        are kept.
        """
        with ThreadPoolExecutor(1, "page") as ahead:
            contents = self._contents(endpoint, body)
            coming = ahead.submit(next, contents, None)
            while (content := coming.result()) is not None:
                coming = ahead.submit(next, contents, None)
                yield _parsed(content)

    def side_by_side(
        self, endpoint: str, bodies: Iterable[Mapping[str, Any]], at_once: int
    ) -> Iterator[dict[str, Any]]:
        """Every page of several searches, in no order: so many searches are under way at a time, and no more pages wait
        to be looked at.
        """
        arrived: Queue[bytes | BaseException | None] = Queue(at_once)
        waiting, ended, lock = iter(bodies), threading.Event(), threading.Lock()

        def hand_over(item: bytes | BaseException | None) -> None:
            # Nobody takes it any more once the first refusal was raised.
            while not ended.is_set():
                with suppress(Full):
                    arrived.put(item, timeout=_LOOK_UP)
                    return

        def ask() -> None:
            try:
                while not ended.is_set():
                    with lock:
                        body = next(waiting, None)
                    if body is None:
                        break
                    for content in self._contents(endpoint, body):
                        hand_over(content)
                        if ended.is_set():
                            break
                hand_over(None)
            except BaseException as error:  # noqa: BLE001  raised where the pages are looked at
                hand_over(error)

        for _ in range(at_once):
            threading.Thread(target=ask, name="page", daemon=True).start()
        left = at_once
        try:
            while left:
                content = arrived.get()
                if content is None:
                    left -= 1
                elif isinstance(content, BaseException):
                    raise content
                else:
                    yield _parsed(content)
        finally:
            ended.set()

    def _contents(self, endpoint: str, body: Mapping[str, Any]) -> Iterator[bytes]:
        """Every page of a search as it comes, one after the other."""
        token = ""
        while True:
            content = self.ask("POST", endpoint, json={**body, **({"page_token": token} if token else {})})
            yield content
            told = _NEXT.search(content, max(0, len(content) - _TAIL))
            # A server may write its members in another order; parsing a page twice is for those alone.
            token = (
                told[1].decode() if told else _parsed(content).get("next_page_token", "") if _MORE in content else ""
            )
            if not token:
                return


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        page = json.loads(content)
    except ValueError:
        page = None
    if not isinstance(page, dict):
        raise AnswerError(200)
    return page
