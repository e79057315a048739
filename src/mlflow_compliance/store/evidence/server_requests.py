"""Asks a tracking server the way a browser does, and keeps what was wrong with its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.evidence import Served

AJAX = "ajax-api/2.0/mlflow/"
"""What the web UI's calls begin with."""

Query = Mapping[str, object]
_NOTHING: Query = {}
_TIMEOUT = (10, 60)
"""Seconds for a connection, and between two parts of an answer."""
_SHOWN = 50
_LONGEST = 80
"""Characters of a value in a sentence."""
_COMPONENT = "!~*'()"
"""What encodeURIComponent of a browser leaves as it is, beside letters, digits and '-_.'."""


class GoneError(Exception):
    """The server does not answer any more; the problem is on record."""


class Asking:
    """The questions to one server. Credentials come from MLflow's own environment variables."""

    def __init__(self, base_url: str, workspace: str = "") -> None:
        self._base = base_url.rstrip("/") + "/"
        self._problems: dict[str, str] = {}
        self.checked = 0
        self._session = requests.Session()
        # A proxy for the world outside does not know this machine's own ports.
        self._session.trust_env = urlsplit(base_url).hostname != "127.0.0.1"
        # As MLflow's own client takes them, from the environment and its file of credentials.
        granted = get_default_host_creds(base_url)
        # Given with every call: what a session has of it gives way to REQUESTS_CA_BUNDLE.
        self._verify, self._session.cert = granted.verify, granted.client_cert_path
        self._session.headers.update(resolve_request_headers())
        if workspace := get_request_workspace() or workspace:
            self._session.headers[WORKSPACE_HEADER_NAME] = workspace
        if granted.username and granted.password:
            self._session.auth = (granted.username, granted.password)
        elif granted.token:
            self._session.headers["Authorization"] = f"Bearer {granted.token}"

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def served(self) -> Served:
        """What was found, the first fifty problems in words."""
        told = [f"{problem} ({where})" if where else problem for problem, where in self._problems.items()]
        more = [f"... and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
        return Served((*told[:_SHOWN], *more), self.checked)

    def problem(self, sentence: str, where: str = "") -> None:
        """Keep one sentence; `where` is the call that showed it first."""
        self._problems.setdefault(sentence, where)

    def same(self, what: str, found: object, expected: object, where: str) -> None:
        """Compare one thing."""
        self.checked += 1
        if found != expected:
            self.problem(f"{what} is {_brief(expected)} in the store and {_brief(found)} for the server", where)

    def same_items(self, what: str, found: Mapping[str, object], expected: Mapping[str, object], where: str) -> None:
        """Compare two mappings key by key."""
        self.checked += 1
        for key in sorted(expected.keys() | found.keys()):
            if key not in found:
                self.problem(f"{what} {_brief(key)} is not shown", where)
            elif key not in expected:
                self.problem(f"{what} {_brief(key)} is shown but was not in the store when it was read", where)
            else:
                self.same(f"{what} {_brief(key)}", found[key], expected[key], where)

    def json(self, path: str, query: Query = _NOTHING, body: Any = None) -> Any:
        """An answer as JSON; None where there is none, which is a problem."""
        answer = self._ask(path, query, body)
        if answer is None:
            return None
        with answer:
            self._let_in(answer)
            if not answer.ok:
                self.problem(f"{_called(path, query)} gives {_refusal(answer)}")
                return None
            try:
                return answer.json()
            except requests.JSONDecodeError:
                self.problem(f"{_called(path, query)} gives something that is no JSON")
            except requests.RequestException:
                self._broken(_called(path, query))
        return None

    def pages(self, path: str, query: Query = _NOTHING, body: Any = None) -> Iterator[Any]:
        """Answers page by page; None in the place of one that failed, and then no more."""
        token: dict[str, object] = {}
        while True:
            page = (
                self.json(path, query, {**body, **token}) if body is not None else self.json(path, {**query, **token})
            )
            yield page
            if page is None or not page.get("next_page_token"):
                return
            token = {"page_token": page["next_page_token"]}

    def find(self, what: str, pages: Iterable[Any], items: str, wanted: Callable[[Any], bool]) -> Any:
        """The first item that is wanted. None where there is none, which is a problem."""
        for page in pages:
            if page is None:
                return None
            self.checked += 1
            for item in page.get(items, ()):
                if wanted(item):
                    return item
        self.problem(f"{what} is not in the list of {items}")
        return None

    def same_size(self, what: str, found: int, expected: int, where: str) -> bool:
        """Compare the size of a file, in bytes."""
        if found != expected:
            self.problem(f"{what} has {expected} bytes in the store and {found} bytes for the server", where)
        return found == expected

    def download(self, what: str, known: tuple[int, str | None], path: str, query: Query) -> None:
        """Compare the bytes of a file with what is known of it."""
        answer = self._ask(path, query)
        if answer is None:
            return
        size, sha256 = known
        self.checked += 1
        with answer:
            self._let_in(answer)
            if not answer.ok:
                self.problem(f"{what} is listed but its download gives {_refusal(answer)}")
                return
            digest, count = hashlib.sha256(), 0
            try:
                for part in answer.iter_content(1 << 18):
                    digest.update(part)
                    count += len(part)
            except requests.RequestException:
                self._broken(f"the download of {what}")
                return
        if self.same_size(what, count, size, "download") and sha256 is not None and digest.hexdigest() != sha256:
            self.problem(
                f"{what} has sha256 {sha256[:16]} in the store and {digest.hexdigest()[:16]} for the server", "download"
            )

    def _ask(self, path: str, query: Query, body: Any = None) -> requests.Response | None:
        # A name that is no UTF-8 cannot be written by a browser either: it is asked for by its bytes.
        url = (
            self._base
            + path
            + ("?" + urlencode(query, quote_via=quote, safe=_COMPONENT, errors="surrogateescape") if query else "")
        )
        for _ in range(2):  # a server may close an idle connection in the moment in which it is used again
            try:
                if body is None:
                    return self._session.get(url, timeout=_TIMEOUT, stream=True, verify=self._verify)
                return self._session.post(url, json=body, timeout=_TIMEOUT, stream=True, verify=self._verify)
            except requests.Timeout:
                break
            except requests.RequestException:
                self._still_there(_called(path, query))
        self._broken(_called(path, query))
        return None

    def _let_in(self, answer: requests.Response) -> None:
        """Raise GoneError where the server does not take the credentials any more: every other question would be
        answered the same.
        """
        if answer.status_code == requests.codes.unauthorized:
            self.problem(
                "the server does not accept the credentials (HTTP 401) that it took when the store was read: a "
                "token may have expired"
            )
            raise GoneError

    def _broken(self, what: str) -> None:
        self._still_there(what)
        self.problem(f"the server broke the connection, or gave no answer in {_TIMEOUT[1]} s: {what}")

    def _still_there(self, what: str) -> None:
        """Raise GoneError where the server gives no answer at all."""
        try:
            self._session.get(self._base + "health", timeout=_TIMEOUT, verify=self._verify).close()
        except requests.RequestException:
            self.problem(f"the server does not answer any more since it was asked for {what}")
            raise GoneError from None


def _called(path: str, query: Query) -> str:
    about = [
        str(value) for key, value in query.items() if key not in ("max_results", "order_by", "page_token", "run_uuid")
    ]
    return " ".join([path.removeprefix(AJAX), *map(_brief, about)])


def _refusal(answer: requests.Response) -> str:
    try:
        message = str(answer.json()["message"]).strip().partition("\n")[0]
    except (requests.RequestException, LookupError, TypeError):
        return f"HTTP {answer.status_code}"
    return f"HTTP {answer.status_code}: {without_secrets(message)[:200]}"


def _brief(value: object) -> str:
    text = without_secrets(value if isinstance(value, str) else repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
