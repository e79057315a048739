"""What a tracking server's refusal means, in words that name the way out; nothing of a credential is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

import requests
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_TRACKING_CLIENT_CERT_PATH,
)
from mlflow.exceptions import MlflowException
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from mlflow_compliance.errors import first_line
from mlflow_compliance.safe_text import without_secrets

CREDENTIALS = (
    "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, which may have expired"
)
_GAVE_UP = re.compile(r"too many (\d{3}) error responses")
_STATUS = re.compile(r"failed with error code (\d{3})")
_SYSTEM = re.compile(r"\[Errno -?\d+\] ([A-Z][\w ]+)")
_CERTIFICATE = re.compile(r"certificate verify failed: ([^(\]]+)")
_OTHER_HOST = re.compile(
    r"certificate verify failed: (?:Hostname|IP address) mismatch, (certificate is not valid for '[^']*')"
)
_ASKED_FOR_ONE = re.compile(
    r"(?i)certificate[_ ]required|alert[_ ]handshake[_ ]failure|alert[_ ]bad[_ ]certificate|alert[_ ]unknown[_ ]ca"
)
_NO_FILE = re.compile(r"Could not find (?:a suitable|the) (TLS [\w ]+), invalid path: (\S+)")
_FILES = "MLFLOW_TRACKING_CLIENT_CERT_PATH and MLFLOW_TRACKING_SERVER_CERT_PATH"
_TLS = re.compile(r"\[[A-Z0-9: _]+\][^()'\"]*")


def refusal(error: BaseException, uri: str, *, once: bool = False) -> str:
    """Why a server gave no answer that can be used; `once` where it was asked a single time."""
    chain = list(_chain(error))
    told = " ".join(map(str, chain))
    retries = f"also after {MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()} retries (MLFLOW_HTTP_REQUEST_MAX_RETRIES)"
    if is_definite(error):
        return _of_tls(told)
    if once and never_connected(error):
        return (
            f"it does not answer ({why_silent(error)}): check that it runs, and the tracking URI; with "
            f"{MLFLOW_HTTP_REQUEST_MAX_RETRIES.name} set, it is asked again"
        )
    if gave_up := _GAVE_UP.search(told):
        return f"it answers {status_name(int(gave_up[1]))}, {retries}: try again when it has recovered"
    if any(isinstance(item, requests.exceptions.Timeout) for item in chain):
        return (
            f"it does not answer within {MLFLOW_HTTP_REQUEST_TIMEOUT.get()} s (MLFLOW_HTTP_REQUEST_TIMEOUT): "
            "try again when there is less to do"
        )
    if any(
        isinstance(item, requests.exceptions.ConnectionError | requests.exceptions.ChunkedEncodingError)
        for item in chain
    ):
        why = why_silent(error)
        return (
            f"it does not answer ({why}), {retries}: check that it runs, and the tracking "
            f"URI{'' if 'refused' in why else _certified(uri or told)}"
        )
    status = _status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return f"it does not accept the credentials (HTTP 401): {CREDENTIALS}"
    if status == HTTPStatus.FORBIDDEN:
        return "the user may not do this (HTTP 403): ask with one that has the permission"
    if isinstance(error, AnswerError) or (status == HTTPStatus.NOT_FOUND and _STATUS.search(told)):
        asks = _certified(uri) if status == HTTPStatus.BAD_REQUEST else ""
        return f"what answers there ({status_name(status)}) is no MLflow tracking server: check the tracking URI{asks}"
    if missing := _NO_FILE.search(told):
        return f"there is no {missing[1]} at {missing[2]}: check what {_FILES} name"
    return without_secrets(first_line(error), uri)


def why_silent(error: BaseException) -> str:
    """Why there is no answer, in a few words without any of the URI."""
    told = " ".join(map(str, _chain(error)))
    if gave_up := _GAVE_UP.search(told):
        return status_name(int(gave_up[1]))
    if found := _SYSTEM.search(told):
        return found[1].strip().lower()
    if "NameResolutionError" in told or "Failed to resolve" in told:
        return "its name is not known"
    return "it takes long" if "timed out" in told.lower() else "the connection broke off"


def never_connected(error: BaseException) -> bool:
    """Whether nobody took the connection: no such host, nothing that listens there, or no way to it."""
    reasons = (getattr(word, "reason", word) for item in _chain(error) for word in (*item.args, item))
    return any(isinstance(reason, NewConnectionError | ConnectTimeoutError) for reason in reasons)


def is_definite(error: BaseException) -> bool:
    """Whether the two sides do not agree on TLS, which asking again does not change."""
    chain = list(_chain(error))
    broke_off = "EOF occurred" in " ".join(map(str, chain))
    return any(isinstance(item, requests.exceptions.SSLError) for item in chain) and not broke_off


def _of_tls(told: str) -> str:
    """Why the two sides do not agree on TLS, from the words of the TLS library."""
    if not_its_host := _OTHER_HOST.search(told):
        return (
            f"its certificate is for another host ({not_its_host[1]}): write the one that it is for into the "
            "tracking URI"
        )
    if found := _CERTIFICATE.search(told):
        return (
            f"its certificate is not accepted ({found[1].strip()}): name that of its authority in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH"
        )
    if alert := _ASKED_FOR_ONE.search(told):
        way = "name one that it knows, in one file with its key, in MLFLOW_TRACKING_CLIENT_CERT_PATH"
        return f"it asks for a client certificate ({alert[0].replace('_', ' ').lower()}): {way}"
    if "WRONG_VERSION_NUMBER" in told or "record layer failure" in told:
        return "it does not speak TLS: check whether the tracking URI should begin with http:"
    found = _TLS.search(told)
    return (
        f"the two sides do not agree on TLS ({found[0].strip() if found else 'no reason given'}): check the "
        f"files that {_FILES} name"
    )


def _certified(told: str) -> str:
    """What else may be wrong over TLS: a server that asks for a certificate often ends the connection without a
    word about it.
    """
    if "https:" not in told:
        return ""
    if MLFLOW_TRACKING_CLIENT_CERT_PATH.get():
        return ", and whether it accepts the client certificate that MLFLOW_TRACKING_CLIENT_CERT_PATH names"
    return ", and whether it asks for a client certificate (MLFLOW_TRACKING_CLIENT_CERT_PATH)"


def locked_out(error: BaseException) -> bool:
    """Whether a server does not take the credentials (any more): it would refuse every other question too."""
    return any(_status(item) == HTTPStatus.UNAUTHORIZED for item in _chain(error))


def is_gone(error: BaseException) -> bool:
    """Whether a server does not answer at all, or refuses every question for now, also after the retries."""
    chain = list(_chain(error))
    unanswered = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, requests.exceptions.RetryError)
    return any(isinstance(item, unanswered) for item in chain)


def _status(error: BaseException) -> int:
    if isinstance(error, AnswerError):
        return error.status
    # MlflowClient tells the status of an answer that is not MLflow's own in its text only.
    if found := _STATUS.search(str(error)):
        return int(found[1])
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return int(error.response.status_code)
    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else 0


def status_name(status: int) -> str:
    """An HTTP status as people read it."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from or in the middle of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class AnswerError(Exception):
    """An answer that is not MLflow's own: with this HTTP status, or 200 and something else than a JSON object."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
