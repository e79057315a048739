"""Whether the caller sees all of a tracking server: what MLflow's basic-auth app hides, it hides without a word."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.backends.base import workspace
from mlflow_compliance.store.backends.rest import Rest
from mlflow_compliance.store.storage.http_errors import AnswerError

_PERMISSIONS = "/api/3.0/mlflow/users/current/permissions"
_USER = "/api/2.0/mlflow/users/get"
"""What MLflow 3.12 has in its stead: it wants the caller's name, and tells what was granted to the user alone."""
_EXPERIMENT = "/api/2.0/mlflow/experiments/get"
_NOBODYS = str(2**31 - 1)
"""An experiment that is not there: who may read by default is told so, others are told that they may not."""
_HIDING = ("DENY", "NO_PERMISSIONS")
_EVERYTHING = ("experiment", "workspace")


def refuse_if_hidden(rest: Rest, server: str) -> None:
    """Raise StoreError where searches leave out experiments that the caller may not read: the rest of a store is
    not the store.
    """
    way = (
        "an audit of what is left would pass by absence; ask with an administrator, or with a user who may read "
        "everything"
    )
    rights = _rights(rest)
    if rights.get("is_admin"):
        return
    grants = [grant for grant in rights.get("permissions", ()) if grant.get("workspace", workspace()) == workspace()]
    for grant in grants:
        if grant.get("permission") in _HIDING:
            what = f"{grant.get('resource_type')} {grant.get('resource_pattern')}"
            raise StoreError(f"the tracking server {server} hides {what} from this user: {way}")
    if any(grant.get("resource_type") in _EVERYTHING and grant.get("resource_pattern") == "*" for grant in grants):
        return
    try:
        rest.get(_EXPERIMENT, experiment_id=_NOBODYS)
    except (MlflowException, AnswerError) as error:
        status = error.status if isinstance(error, AnswerError) else error.get_http_status_code()
        if status == HTTPStatus.FORBIDDEN:
            raise StoreError(
                f"the tracking server {server} shows this user only experiments that were granted one by one: {way}"
            ) from error
        if status != HTTPStatus.NOT_FOUND:
            raise


def _rights(rest: Rest) -> dict[str, Any]:
    """What the caller may do, empty where the server does not ask who is calling."""
    rights = _page(rest, _PERMISSIONS)
    name = rest.user
    if rights is not None or not name:
        return rights or {}
    found = (_page(rest, _USER, username=name) or {}).get("user", {})
    named = (("experiment", "experiment_id"), ("registered_model", "name"))
    grants = [
        {"resource_type": kind, "resource_pattern": grant.get(key), "permission": grant.get("permission")}
        for kind, key in named
        for grant in found.get(f"{kind}_permissions", ())
    ]
    return {"is_admin": found.get("is_admin"), "permissions": grants}


def _page(rest: Rest, endpoint: str, **parameters: str) -> dict[str, Any] | None:
    try:
        return rest.get(endpoint, **parameters)
    except (MlflowException, AnswerError) as error:
        status = error.status if isinstance(error, AnswerError) else error.get_http_status_code()
        # A server without users has no such page, or gives its web page for it.
        if status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            return None
        raise
