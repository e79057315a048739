"""One S3 bucket, through the client that MLflow itself would use (its settings, boto3's credentials)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from mlflow_compliance.store.storage.base import ObjectInfo, Place, RemoteError

_CHUNK = 1 << 20
_SAID = {
    "NoSuchBucket": "the bucket does not exist",
    "NoSuchKey": "it is not there any more",
    "AccessDenied": "access is denied",
    "403": "access is denied",
    "InvalidAccessKeyId": "the access key is not known there (AWS_ACCESS_KEY_ID)",
    "SignatureDoesNotMatch": "the secret key is wrong (AWS_SECRET_ACCESS_KEY)",
    "ExpiredToken": "the session token has expired (AWS_SESSION_TOKEN)",
    "PreconditionFailed": "it was replaced meanwhile: run again",
    "412": "it was replaced meanwhile: run again",
}
_LISTING = ElementTree.ParseError, ValueError, KeyError, TypeError


class Bucket(Place):
    """A bucket. Its keys are text of any kind: nothing here takes one for a path on this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = f"s3://{name}"

    @cached_property
    def _client(self) -> Any:
        try:
            import boto3  # noqa: F401 - MLflow imports it when it first needs it, and says less well what is missing
        except ImportError:
            raise RemoteError("artifacts in S3 need boto3: pip install 'pytest-mlflow-compliance[s3]'") from None
        from botocore.exceptions import BotoCoreError
        from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

        try:
            return S3ArtifactRepository(self.root)._get_s3_client()
        except (BotoCoreError, ValueError) as error:
            raise RemoteError(f"{self.root} cannot be asked: {why_s3(error)}") from error

    @cached_property
    def _owner(self) -> dict[str, str]:
        from mlflow.environment_variables import MLFLOW_S3_EXPECTED_BUCKET_OWNER

        owner = MLFLOW_S3_EXPECTED_BUCKET_OWNER.get()
        return {"ExpectedBucketOwner": owner} if owner else {}

    @cached_property
    def _session(self) -> Any:
        import requests
        from mlflow.environment_variables import MLFLOW_S3_IGNORE_TLS

        session = requests.Session()
        session.verify = False if MLFLOW_S3_IGNORE_TLS.get() else os.environ.get("AWS_CA_BUNDLE") or True
        session.auth = lambda request: (
            request
        )  # the address is signed; a .netrc would add a second answer to who is asking
        return session

    def listed(self, folder: str) -> Iterator[ObjectInfo]:
        request = {
            "Bucket": self.name,
            "Prefix": self._key(folder + "/") if folder != self.root else "",
            "MaxKeys": 1000,
            **self._owner,
        }
        while True:
            # boto3 signs, but takes most of its time for reading the answer: decision 012.
            entries, following = self._fast(request) or self._slow(request)
            yield from entries
            if not following:
                return
            request["ContinuationToken"] = following

    def _fast(self, request: dict[str, Any]) -> tuple[list[ObjectInfo], str] | None:
        """One page read by pattern; None where anything at all is unusual, which boto3 then retries and explains."""
        import requests
        from botocore.exceptions import BotoCoreError

        if self._owner:
            return None
        try:
            address = self._client.generate_presigned_url("list_objects_v2", Params={**request, "EncodingType": "url"})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of MLFLOW_S3_IGNORE_TLS, which the user has set
                answer = self._session.get(address, timeout=60, allow_redirects=False)
            if answer.status_code != requests.codes.ok:
                return None
            return _page(answer.content, self.root)
        except (BotoCoreError, requests.RequestException, *_LISTING):
            return None

    def _slow(self, request: dict[str, Any]) -> tuple[list[ObjectInfo], str]:
        answer = self._ask("cannot be listed", "list_objects_v2", **request)
        found = [
            ObjectInfo(
                f"{self.root}/{item['Key']}",
                item["Size"],
                item.get("ETag", "").strip('"'),
                int(item["LastModified"].timestamp() * 1000),
            )
            for item in answer.get("Contents", ())
        ]
        return found, answer.get("NextContinuationToken", "") if answer.get("IsTruncated") else ""

    def children(self, folder: str) -> Sequence[str]:
        prefix = self._key(folder + "/") if folder != self.root else ""
        request = {"Bucket": self.name, "Prefix": prefix, "Delimiter": "/", **self._owner}
        names: list[str] = []
        while True:
            answer = self._ask("cannot be listed", "list_objects_v2", **request)
            names += [item["Prefix"][len(prefix) : -1] for item in answer.get("CommonPrefixes", ())]
            if not answer.get("IsTruncated"):
                return names
            request["ContinuationToken"] = answer["NextContinuationToken"]

    def chunks(self, path: str, etag: str = "") -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError

        match = {"IfMatch": f'"{etag}"'} if etag else {}
        body = self._ask(
            f"{path} cannot be read", "get_object", Bucket=self.name, Key=self._key(path), **match, **self._owner
        )["Body"]
        try:
            yield from body.iter_chunks(_CHUNK)
        except (BotoCoreError, OSError) as error:
            raise RemoteError(f"{path} cannot be read: {why_s3(error)}") from error
        finally:
            body.close()

    def encrypted(self, path: str) -> bool:
        """Whether an object's ETag is no checksum of its content, because of how it is encrypted."""
        answer = self._ask(
            f"{path} cannot be read", "head_object", Bucket=self.name, Key=self._key(path), **self._owner
        )
        return "kms" in answer.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in answer

    def upload(self, source: str, path: str) -> None:
        from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

        extra = dict(S3ArtifactRepository.get_s3_file_upload_extra_args() or {})
        self._refuse_occupied(path)
        self._ask(
            f"{path} cannot be written",
            "upload_file",
            Filename=source,
            Bucket=self.name,
            Key=self._key(path),
            ExtraArgs={**extra, **self._owner},
        )

    def copy(self, source: ObjectInfo, path: str) -> None:
        bucket, _, key = source.path[len("s3://") :].partition("/")
        self._refuse_occupied(path)
        # boto3 copies in parts what is too large for one request, on the server's side all the same.
        origin = {"Bucket": bucket, "Key": key}
        self._ask(
            f"{source.path} cannot be copied",
            "copy",
            CopySource=origin,
            Bucket=self.name,
            Key=self._key(path),
            ExtraArgs=dict(self._owner),
        )

    def beginning(self, start: str) -> list[ObjectInfo]:
        """The first thousand objects whose paths begin so."""
        return self._slow({"Bucket": self.name, "Prefix": self._key(start), "MaxKeys": 1000, **self._owner})[0]

    def found(self, path: str) -> ObjectInfo | None:
        """One object, None where it is not there. The listing puts a key before those that only begin with it."""
        listed, _ = self._slow({"Bucket": self.name, "Prefix": self._key(path), "MaxKeys": 1, **self._owner})
        return listed[0] if listed and listed[0].path == path else None

    def _refuse_occupied(self, path: str) -> None:
        if self.found(path):
            raise RemoteError(f"{path} is there already: nothing in a bucket is ever replaced")

    def _key(self, path: str) -> str:
        return path[len(self.root) + 1 :]

    def _ask(self, what: str, method: str, **request: Any) -> Any:
        client = self._client
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(client, method)(**request)
        except (BotoCoreError, ClientError, Boto3Error, OSError) as error:
            subject = what if what.startswith("s3://") else f"{self.root} {what}"
            raise RemoteError(f"{subject}: {why_s3(error)}") from error


def _page(content: bytes, root: str) -> tuple[list[ObjectInfo], str]:
    """A page of a listing; keys come encoded, so that any byte of theirs survives XML."""
    tree = ElementTree.fromstring(content)  # noqa: S314 - from the server that holds the evidence; expat resolves no entities outside
    space = tree.tag[: tree.tag.index("}") + 1] if tree.tag.startswith("{") else ""
    if tree.findtext(f"{space}EncodingType") != "url":
        raise ValueError("keys are not encoded")
    found = []
    for item in tree.iterfind(f"{space}Contents"):
        key, size, etag = item.findtext(f"{space}Key"), item.findtext(f"{space}Size"), item.findtext(f"{space}ETag")
        if key is None or size is None:
            raise ValueError("no key or no size")
        found.append(
            ObjectInfo(
                f"{root}/{unquote_plus(key)}",
                int(size),
                (etag or "").strip('"'),
                _moment(item.findtext(f"{space}LastModified") or ""),
            )
        )
    if tree.findtext(f"{space}IsTruncated") != "true":
        return found, ""
    following = tree.findtext(f"{space}NextContinuationToken")
    if not following:
        raise ValueError("no way on")
    return found, following


def _moment(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def why_s3(error: Exception) -> str:
    """The reason in a few words, without anything secret: messages of signature errors quote what was signed."""
    cause: BaseException | None = error
    while cause is not None:
        code = getattr(cause, "response", {}).get("Error", {}).get("Code")
        if code:
            return _SAID.get(str(code), f"the server answers {code}")
        name = type(cause).__name__
        if name in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoAuthTokenError"):
            return "there are no credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        if "SSL" in name:
            return "its certificate is not trusted (AWS_CA_BUNDLE)"
        if "Connect" in name or "Timeout" in name or isinstance(cause, OSError):
            return "the server cannot be reached (MLFLOW_S3_ENDPOINT_URL)"
        cause = cause.__cause__
    return f"boto3 says {type(error).__name__}"
