"""Whether the artifact folders here are those that a tracking server sees: only then may a repair through it touch
files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from mlflow_compliance.errors import StoreError
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import in_folder
from mlflow_compliance.store.backends.rest import Rest

_OF_RUN = "/api/2.0/mlflow/artifacts/list"
_OF_MODEL = "/api/2.0/mlflow/logged-models/{}/artifacts/directories"
_EACH = 2
"""Runs and models that are compared for each folder of an experiment: those with files first."""


def refuse_other_files(rest: Rest, server: str, artifacts: Artifacts) -> None:
    """Raise StoreError where the server lists something else for a run or model than lies in its folder here."""
    for kind, key, path in _examples(artifacts):
        endpoint, parameters = (_OF_RUN, {"run_id": key}) if kind == "run" else (_OF_MODEL.format(key), {})
        listed = _pages(rest, endpoint, parameters)
        if listed != _here(path):
            what = f"{kind.replace('_', ' ')} {key}"
            raise StoreError(
                f"--fix does not write through the tracking server {server}: for {what} it lists other artifacts "
                f"than lie in {path} here, so these "
                "are not the files that it serves; run it where they are (nothing was changed)"
            )


def keep_what_may_be_owned(artifacts: Artifacts, *, workspaces: bool) -> Artifacts:
    """Mark ownerless entries that rows may own which a server does not show: deleted logged models', skills', and
    those of other workspaces.
    """
    kept = {}
    for path, item in artifacts.ownerless.items():
        reason = "another workspace of this server may own it" if workspaces else ""
        if os.path.basename(path).startswith("m-"):
            reason = "it may be a deleted logged model's, which a server does not list"
        if "skills" in artifacts.relative(path).split("/")[1:2]:
            reason = "it may be a registered skill's, which a server is not asked for"
        kept[path] = item._replace(keep=item.keep or reason)
    return replace(artifacts, ownerless=kept)


def _examples(artifacts: Artifacts) -> Iterator[tuple[str, str, str]]:
    """(kind, id, folder) of some runs and models below every experiment's folder.

    What the server itself hands out (mlflow-artifacts:) is reached through it and needs no comparing; a bucket's name
    means one bucket
    everywhere, as long as the endpoint is one (MLFLOW_S3_ENDPOINT_URL).
    """
    groups: dict[tuple[str, str], list[tuple[bool, str, str]]] = {}
    for (kind, key), path in sorted(artifacts.locations.items()):
        if kind in ("run", "logged_model") and in_folder(path):
            # <experiment>/<run>/artifacts
            place = os.path.dirname(os.path.dirname(path))
            groups.setdefault((kind, place), []).append(((kind, key) not in artifacts.newest, key, path))
    for (kind, _), found in groups.items():
        for _, key, path in sorted(found)[:_EACH]:
            yield kind, key, path


def _pages(rest: Rest, endpoint: str, parameters: dict[str, str]) -> dict[str, int]:
    """Name -> size of what the server lists directly in a folder; -1 stands for a folder."""
    found: dict[str, int] = {}
    token = ""
    while True:
        page = rest.get(endpoint, **parameters, **({"page_token": token} if token else {}))
        for item in page.get("files", ()):
            found[item["path"]] = -1 if item.get("is_dir") else int(item.get("file_size", 0))
        token = page.get("next_page_token", "")
        if not token:
            return found


def _here(path: str) -> dict[str, int]:
    try:
        with os.scandir(path) as entries:
            return {entry.name: -1 if entry.is_dir() else entry.stat().st_size for entry in entries}
    except FileNotFoundError:
        return {}
