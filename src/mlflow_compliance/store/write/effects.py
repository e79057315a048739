"""How a Change is written and taken back: two functions that the modules beside this one register by the kind of
Change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import singledispatch

from mlflow.tracking import MlflowClient

from mlflow_compliance.changes import Change, bind
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.errors import one_sentence, refuse_other_spelling


class OpenStore:
    """A store that is open for writing; `binding` gives symbols their values and grows as MLflow makes ids."""

    store: Store
    client: MlflowClient
    binding: dict[str, str]

    @property
    def in_tables(self) -> bool:
        """Whether rows are written without a server in between."""
        return not self.store.uri.startswith(("http:", "https:"))

    def bind(self, text: str) -> str:
        return bind(text, self.binding)

    @contextmanager
    def naming(self, what: str, name: str, there: Collection[str]) -> Iterator[None]:
        """As `one_sentence`, where a name is written: no other spelling of it may be `there`, or the database would
        overwrite that one.
        """
        if not self.store.backend.tells_spellings_apart:
            refuse_other_spelling(what, name, there)
        with one_sentence(what):
            yield


@singledispatch
def write(change: Change, to: OpenStore) -> None:
    """Carry a change out, or raise ChangeError and leave the store as it was."""
    raise ChangeError(f"no effect is registered for a change of kind {type(change).__name__}")


@singledispatch
def inverse(change: Change, to: OpenStore) -> Change | None:
    """How to take a change back; None where nothing was there that anybody wants back.

    Asked before `write`, since some of it (a file's mode, an old tag) must be read first.
    """
    raise ChangeError(f"no inverse is registered for a change of kind {type(change).__name__}")
