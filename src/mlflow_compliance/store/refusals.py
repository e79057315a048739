"""What a tracking server's refusal means, in words that name the way out; nothing of a credential is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

import requests
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException

from mlflow_compliance.errors import first_line
from mlflow_compliance.store.locations import without_secrets
from mlflow_compliance.store.rest import AnswerError

_GAVE_UP = re.compile(r"too many (\d{3}) error responses")
_STATUS = re.compile(r"failed with error code (\d{3})")
_SYSTEM = re.compile(r"\[Errno -?\d+\] ([A-Z][\w ]+)")
_USER = re.compile(r"//[^/@\s]+@")
_CERTIFICATE = re.compile(r"certificate verify failed: ([^(\]]+)")


def refusal(error: BaseException, uri: str) -> str:
    """Why a server gave no answer that can be used."""
    chain = list(_chain(error))
    told = " ".join(map(str, chain))
    retries = f"also after {MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()} retries (MLFLOW_HTTP_REQUEST_MAX_RETRIES)"
    if any(isinstance(item, requests.exceptions.SSLError) for item in chain):
        found = _CERTIFICATE.search(told)
        why = found[1].strip() if found else "the two sides do not agree on TLS"
        return f"its certificate is not accepted ({why}): name that of its authority in MLFLOW_TRACKING_SERVER_CERT_PATH"
    if gave_up := _GAVE_UP.search(told):
        return f"it answers {_named(int(gave_up[1]))}, {retries}: try again when it has recovered"
    if any(isinstance(item, requests.exceptions.Timeout) for item in chain):
        return f"it does not answer within {MLFLOW_HTTP_REQUEST_TIMEOUT.get()} s (MLFLOW_HTTP_REQUEST_TIMEOUT): try again when there is less to do"
    if any(isinstance(item, requests.exceptions.ConnectionError | requests.exceptions.ChunkedEncodingError) for item in chain):
        found = _SYSTEM.search(told)
        why = found[1].strip().lower() if found else "the connection broke off"
        return f"it does not answer ({why}), {retries}: check that it runs, and the tracking URI"
    status = _status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "it does not accept the credentials (HTTP 401): check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, "
            "which may have expired"
        )
    if status == HTTPStatus.FORBIDDEN:
        return "the user may not do this (HTTP 403): ask with one that has the permission"
    if isinstance(error, AnswerError) or (status == HTTPStatus.NOT_FOUND and _STATUS.search(told)):
        return f"what answers there ({_named(status)}) is no MLflow tracking server: check the tracking URI"
    return _USER.sub("//***@", without_secrets(first_line(error), uri) if uri else first_line(error))


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
    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else 0


def _named(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from or in the middle of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
