"""Which objects of a bucket the installed MLflow would delete for a location: its own code runs, on a client that only
lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlflow_compliance.store.storage.base import RemoteError
from mlflow_compliance.store.storage.s3 import why_s3


def deleted_objects(uri: str) -> dict[str, int]:
    """Location of each object -> its size. Raises RemoteError where the bucket cannot be asked."""
    try:
        import boto3  # noqa: F401 - MLflow imports it when it first needs it
    except ImportError:
        raise RemoteError("artifacts in S3 need boto3: pip install 'pytest-mlflow-compliance[s3]'") from None
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    try:
        repository = S3ArtifactRepository(uri)
        client = _NotingClient(repository._get_s3_client())
        repository._get_s3_client = lambda: client
        repository.delete_artifacts()
    except (BotoCoreError, ClientError, ValueError, OSError) as error:
        raise RemoteError(f"{uri} cannot be listed: {why_s3(error)}") from error
    except MlflowException as error:
        raise RemoteError(f"{uri} cannot be listed: MLflow says {error.error_code}") from error
    return {f"s3://{bucket}/{key}": client.sizes.get(key, 0) for bucket, key in client.deleted}


class _NotingClient:
    """Lists as the real one does; what it is told to delete it notes. It can do nothing else."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.sizes: dict[str, int] = {}
        self.deleted: list[tuple[str, str]] = []

    def get_paginator(self, name: str) -> _NotingPages:
        return _NotingPages(self._real.get_paginator(name), self.sizes)

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803 - boto3's
        self.deleted += [(Bucket, item["Key"]) for item in Delete["Objects"]]
        return {}

    def delete_object(self, *, Bucket: str, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - boto3's
        self.deleted.append((Bucket, Key))
        return {}


class _NotingPages:
    def __init__(self, real: Any, sizes: dict[str, int]) -> None:
        self._real, self._sizes = real, sizes

    def paginate(self, **request: Any) -> Iterator[Any]:
        for page in self._real.paginate(**request):
            self._sizes.update({item["Key"]: item["Size"] for item in page.get("Contents", ())})
            yield page
