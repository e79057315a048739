"""Artifacts that a tracking server serves (mlflow-artifacts:), through its own endpoints and with the caller's
MLflow credentials.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote

from mlflow_compliance.errors import first_line
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.store.storage.base import LockedOutError, ObjectInfo, Place, RemoteError

_CHUNK = 1 << 20
_AT_ONCE = 8


class ServedArtifacts(Place):
    """What one tracking server serves. It lists one folder at a time and knows no checksums."""

    def __init__(self, root: str, tracking_uri: str) -> None:
        self.root = root
        self.tracking_uri = tracking_uri

    @cached_property
    def _repository(self) -> Any:
        if not self.tracking_uri.startswith(("http:", "https:")):
            raise RemoteError(
                "mlflow-artifacts locations are read through the tracking server that serves them: give its "
                "address (--tracking-uri)"
            )
        from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

        return MlflowArtifactsRepository(self.root + "/", tracking_uri=self.tracking_uri)

    def listed(self, folder: str) -> Iterator[ObjectInfo]:
        repository, waiting = self._repository, [self._relative(folder)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while waiting:
                found = list(pool.map(lambda relative: self._list(repository, relative), waiting))
                waiting = [item.path for items in found for item in items if item.is_dir]
                for items in found:
                    yield from (
                        ObjectInfo(f"{self.root}/{item.path}", item.file_size or 0) for item in items if not item.is_dir
                    )

    def children(self, folder: str) -> Sequence[str]:
        return [
            item.path.rpartition("/")[2] for item in self._list(self._repository, self._relative(folder)) if item.is_dir
        ]

    def _list(self, repository: Any, relative: str) -> list[Any]:
        with self._told(f"{self.root}/{relative} cannot be listed"):
            return list(repository.list_artifacts(relative or None))

    def chunks(self, path: str, etag: str = "") -> Iterator[bytes]:
        from mlflow.utils.rest_utils import augmented_raise_for_status, http_request

        repository = self._repository
        with self._told(f"{path} cannot be read"):
            answer = http_request(repository._host_creds, "/" + quote(self._relative(path)), "GET", stream=True)
            augmented_raise_for_status(answer)
            with answer:
                yield from answer.iter_content(_CHUNK)

    def upload(self, source: str, path: str) -> None:
        folder = os.path.dirname(self._relative(path))
        if any(item.path == self._relative(path) for item in self._list(self._repository, folder)):
            raise RemoteError(f"{path} is there already: nothing is ever replaced")
        from mlflow.utils.rest_utils import augmented_raise_for_status, http_request

        with self._told(f"{path} cannot be written"), open(source, "rb") as file:
            answer = http_request(self._repository._host_creds, "/" + quote(self._relative(path)), "PUT", data=file)
            augmented_raise_for_status(answer)

    def copy(self, source: ObjectInfo, path: str) -> None:
        with tempfile.NamedTemporaryFile(prefix="mlflow-compliance-") as file:
            for chunk in self.chunks(source.path):
                file.write(chunk)
            file.flush()
            self.upload(file.name, path)

    # Names go into addresses encoded here. MLflow's own client does not do that: what it logs as 1%41 arrives as 1A.
    def _relative(self, path: str) -> str:
        return path[len(self.root) + 1 :]

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        from mlflow_compliance.store.storage.http_errors import locked_out, refusal

        try:
            yield
        except (MlflowException, RequestException, OSError, ValueError) as error:
            if locked_out(error):
                server = without_secrets(self.tracking_uri).partition("?")[0]
                raise LockedOutError(
                    f"the tracking server {server} cannot be read: {refusal(error, self.tracking_uri)}"
                ) from error
            raise RemoteError(f"{what}: {without_secrets(first_line(error), self.tracking_uri)}") from error
