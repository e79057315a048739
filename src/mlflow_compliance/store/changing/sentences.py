"""What MLflow or the system refuses while something is written, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.store.reading.refusals import CREDENTIALS, is_gone, locked_out, refusal


@contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """MLflow's and the system's refusals as a ChangeError; a server that is gone, or does not take the credentials any more, ends the repair.

    That is a StoreError: nothing else could be done.
    """
    try:
        yield
    except (MlflowException, StoreError, OSError) as error:
        if is_gone(error):
            way = "the repair stopped here, its journal says how far it came; run --fix again when the server answers"
            raise StoreError(f"{what}, because the tracking server is gone: {way}") from error
        if locked_out(error):
            way = f"the repair stopped here, its journal says how far it came; {CREDENTIALS}, then run --fix again"
            raise StoreError(f"{what}, because the tracking server does not accept the credentials any more (HTTP 401): {way}") from error
        raise ChangeError(f"{what}: {refusal(error, '')}") from error
