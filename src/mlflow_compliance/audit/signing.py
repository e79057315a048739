"""Detached signatures of a report's files, as `openssl dgst -sha256 -verify` takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.keys import keys_of

if TYPE_CHECKING:
    from mlflow_compliance.settings.schema import Settings


def sign_files(paths: Iterable[str], settings: Settings) -> None:
    """Write `<file>.sig` beside each, in DER; one of an earlier report gives way. Without a key nothing is done."""
    key = keys_of(settings).signing
    for path in paths if key else ():
        assert key is not None
        try:
            with open(path, "rb") as file:
                signature = key.sign(file.read(), plain=True)
            with open(f"{path}.sig", "wb") as file:
                file.write(signature)
        except OSError as error:
            reason = (error.strerror or "cannot be written").lower()
            raise ComplianceError(
                f"the report {path} could not be signed ({reason}): write it where a file can be put beside it"
            ) from error
