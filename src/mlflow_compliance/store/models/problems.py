"""What a scan tells of a model: one sentence a thing, and the name that it is about where there is one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from mlflow_compliance.store.models.allowlist import ALLOWABLE, Name, objections

UNKNOWN = "so what it does is not known"


class Problem(NamedTuple):
    """One sentence, which begins with the file; `name` is what would be imported, '' where that is not the matter,
    `allowable` whether the settings may allow it.
    """

    text: str
    name: str = ""
    allowable: bool = False


def named_problems(
    names: Collection[Name], start: str, allowed_globals: Collection[str], link: str = " "
) -> Iterator[Problem]:
    """One for each name that the settings do not allow; `link` is what leads from the name to the reason."""
    for name, why in objections(names, allowed_globals).items():
        yield Problem(f"{start}{shown(name)}{link}{why}", shown(name), why == ALLOWABLE and shown(name) == str(name))


def shown(name: object) -> str:
    """A name from a file, fit for one line of a report."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(name)[:200])
    return text + ("..." if len(str(name)) > 200 else "")
