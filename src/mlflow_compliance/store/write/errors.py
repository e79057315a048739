"""What MLflow or the system refuses while something is written, as one sentence."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.store.storage.http_errors import CREDENTIALS, is_gone, locked_out, refusal


@contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """MLflow's and the system's refusals as a ChangeError; a server that is gone, or does not take the credentials any
    more, ends the repair.

    That is a StoreError: nothing else could be done.
    """
    try:
        yield
    except (MlflowException, StoreError, OSError) as error:
        if is_gone(error):
            way = "it stopped here, its journal says how far; give the same command again when the server answers"
            raise StoreError(f"{what}, because the tracking server is gone: {way}") from error
        if locked_out(error):
            way = f"it stopped here, its journal says how far; {CREDENTIALS}, then give the same command again"
            raise StoreError(
                f"{what}, because the tracking server does not accept the credentials any more (HTTP 401): {way}"
            ) from error
        raise ChangeError(f"{what}: {refusal(error, '')}") from error


def refuse_other_spelling(what: str, name: str, there: Iterable[str]) -> None:
    """Raise ChangeError where a new name is another spelling of one that is there."""
    others = sorted(set(there))
    if name in others:
        return
    for other in others:
        if _folded(other) == _folded(name):
            raise ChangeError(
                f"{what}: there is {other!r}, which a database such as MySQL takes for the same name and would "
                "overwrite; rename it first"
            )


def _folded(name: str) -> str:
    parts = unicodedata.normalize("NFKD", name).casefold()
    return "".join(part for part in parts if not unicodedata.combining(part)).rstrip(" ")
