"""Asks a tracking server over HTTP just as MLflow's own client does, but takes the answers as plain JSON and pages
ahead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
_TAIL = 4096


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
            coming = ahead.submit(self.ask, "POST", endpoint, json=dict(body))
            while True:
                content = coming.result()
                told = _NEXT.search(content, max(0, len(content) - _TAIL))
                if told:
                    coming = ahead.submit(self.ask, "POST", endpoint, json={**body, "page_token": told[1].decode()})
                    yield _parsed(content)
                    continue
                page = _parsed(content)
                yield page
                token = page.get("next_page_token")  # of a server that writes its members in another order
                if not token:
                    return
                coming = ahead.submit(self.ask, "POST", endpoint, json={**body, "page_token": token})


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        page = json.loads(content)
    except ValueError:
        page = None
    if not isinstance(page, dict):
        raise AnswerError(200)
    return page
