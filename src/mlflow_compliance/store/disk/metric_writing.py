"""Writes a file store's metric files: put in place by a rename, the file as it was kept in the folder of the journals."""

from __future__ import annotations

import hashlib
import os
import stat

from mlflow_compliance.store.disk import files
from mlflow_compliance.store.disk.content import opened
from mlflow_compliance.store.disk.linking import refuse_if_changed, refuse_if_written_to, refuse_unless_file, take_over
from mlflow_compliance.store.disk.metric_files import without_repeats
from mlflow_compliance.store.disk.staging import confirm, create, explained, staged, verified, write_bytes

KEPT = "metric-files"


def kept_at(folder: str, journal: str, sha256: str) -> str:
    """Where a metric file is kept as it was."""
    return os.path.join(folder, KEPT, journal, sha256)


def state_of(path: str) -> tuple[int, str]:
    """Size of a metric file, and its hash without the repeats."""
    with explained(path, "could not be read"), opened(path) as file:
        content = _content(file)
        return len(content), hashlib.sha256(without_repeats(content)).hexdigest()


def remove_repeats(path: str, sha256: str, kept: str) -> None:
    """Keep the file as it is, then leave the repeats out of it; its time and mode stay."""
    refuse_unless_file(path)
    # On the disk first: should the program die in between, the file is still whole.
    files.place(path, kept)
    with explained(path), verified(path, sha256) as (file, here):
        refuse_if_written_to(file, path)
        _put(path, without_repeats(_content(file)), here)


def restore_metric_file(path: str, now: str, sha256: str, kept: str) -> None:
    """The inverse: the bytes as they were."""
    refuse_unless_file(path)
    with explained(path), verified(kept, sha256) as (source, _), verified(path, now) as (file, here):
        refuse_if_written_to(file, path)
        _put(path, _content(source), here)


def _put(path: str, content: bytes, here: os.stat_result) -> None:
    # Not beside the file: MLflow would take what a killed program leaves there for a metric.
    with staged(os.path.join(_owner(path), os.path.basename(path))) as temporary:
        with create(temporary) as target:
            write_bytes(target, content)
            confirm(target, temporary, hashlib.sha256(content).hexdigest())
        take_over(temporary, path, here, stat.S_IMODE(here.st_mode))
        os.utime(temporary, ns=(here.st_atime_ns, here.st_mtime_ns))
        refuse_if_changed(path, here)
        os.replace(temporary, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _owner(path: str) -> str:
    """The folder of the run or model: the nearest one above with a meta.yaml."""
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder) and not os.path.isfile(os.path.join(folder, "meta.yaml")):
        folder = os.path.dirname(folder)
    return folder


def _content(file: int) -> bytes:
    parts, offset = [], 0
    while part := os.pread(file, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
