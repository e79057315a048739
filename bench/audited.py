"""One audit of a store's files in a process of its own: prints as JSON how long its parts took and, if asked, the
groups of equal files.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module

from mlflow_compliance.settings.schema import ArtifactSettings, DuplicateSettings, Settings
from mlflow_compliance.store.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("--hash-cache", default="off")
    parser.add_argument("--groups", action="store_true", help="print the groups too")
    given = parser.parse_args()
    # As the other programs see it: every file that holds a byte counts.
    settings = Settings(
        duplicates=DuplicateSettings(min_size=1, boilerplate=()),
        artifacts=ArtifactSettings(hash_cache=given.hash_cache),
    )
    store = open_store(given.uri, settings, ".")
    for name in (
        "evidence.collect",
        "artifacts.hash_cache",
        "artifacts.duplicates",
        "artifacts.local",
        "storage.recorded_hashes",
    ):
        import_module(f"mlflow_compliance.store.{name}")  # counted in the time of the process
    start = time.perf_counter()
    snapshot, rows = store.read_rows()
    read = time.perf_counter()
    artifacts = store.read_files(snapshot, rows).artifacts
    assert artifacts is not None
    groups = artifacts.duplicates()
    extra = sum(len(artifacts.extras(group)) for group in groups)
    end = time.perf_counter()
    told = {
        "rows": read - start,
        "files": end - read,
        "found": len(artifacts.files),
        "groups": len(groups),
        "extra": extra,
    }
    told["unread"] = len(artifacts.unread)
    if given.groups:
        told["paths"] = [list(group.paths) for group in groups]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
