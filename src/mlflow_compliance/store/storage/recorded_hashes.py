"""The hashes on record: what each file held when it was made to share a physical copy, or logged with a production
run.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping
from typing import IO

from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.storage.parsing import parse_json, read_at_most
from mlflow_compliance.store.storage.safe_io import opened

NAME = "hashes.jsonl"
_LARGEST = 1 << 30
_one_at_a_time = threading.Lock()


def read_records(folder: str) -> dict[str, str]:
    """Path -> SHA-256 (hex) on record."""
    return {path: digest for path, digest in read_lines(folder).items() if digest}


def read_lines(folder: str) -> dict[str, str]:
    """Path -> the SHA-256 (hex) that the last line about it says; an empty one took it off the record."""
    found: dict[str, str] = {}
    path = os.path.join(folder, NAME)
    try:
        with opened(path) as file:
            lines = [line.decode(errors="surrogateescape") for line in read_at_most(file, _LARGEST).splitlines()]
    except FileNotFoundError:
        return found
    except ValueError as error:
        raise StoreError(
            f"the hashes on record in {path} cannot be read: it {error}; restore the file from its last good copy"
        ) from None
    except OSError as error:
        raise StoreError(f"the hashes on record in {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
            found[record["path"]] = record["sha256"]
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise StoreError(
                    f"line {number} of {path} is not a record of a hash: restore the file from its last good copy"
                ) from None
            # A program that was killed leaves half a last line, and the change it speaks of was not yet made.
    return found


def add_records(folder: str, sha256: str, *paths: str) -> None:
    """Put hashes on record, on disk before this returns; an empty hash takes the paths off."""
    append_lines(os.path.join(folder, NAME), [json.dumps({"path": path, "sha256": sha256}) for path in paths])


def add_each(folder: str, found: Mapping[str, str]) -> None:
    """Put the hashes of several files on record: path -> SHA-256 (hex)."""
    lines = [json.dumps({"path": path, "sha256": sha256}) for path, sha256 in found.items()]
    append_lines(os.path.join(folder, NAME), lines)


def take_off(folder: str, places: Collection[str]) -> None:
    """What lies below these places is on record no more: it is about to be put aside."""
    gone = [path for path in read_records(folder) if any(path.startswith(place + os.sep) for place in places)]
    if gone:
        add_records(folder, "", *gone)


def append_lines(path: str, lines: list[str]) -> None:
    """Add whole lines to a file, on disk before this returns; half a line that a killed program left goes first."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with _one_at_a_time, open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1 if _last_byte(file, end) != b"\n" else end
            if whole != end:
                file.truncate(whole)
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _last_byte(file: IO[bytes], end: int) -> bytes:
    file.seek(end - 1)
    last = file.read(1)
    file.seek(0)
    return last
