"""Names that differ in case, accents or spaces at the end alone: MySQL takes them for one, and writing one overwrites the other."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from mlflow_compliance.errors import ChangeError


def refuse_other_spelling(what: str, name: str, there: Iterable[str]) -> None:
    """Raise ChangeError where a new name is another spelling of one that is there."""
    others = sorted(set(there))
    if name in others:
        return
    for other in others:
        if _folded(other) == _folded(name):
            raise ChangeError(
                f"{what}: there is {other!r}, which a database such as MySQL takes for the same name and would overwrite; rename it first"
            )


def _folded(name: str) -> str:
    parts = unicodedata.normalize("NFKD", name).casefold()
    return "".join(part for part in parts if not unicodedata.combining(part)).rstrip(" ")
