"""Whether a tracking server lists and gives every file of a run or of a logged model, asked for folder by folder as the web UI does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from typing import NamedTuple
from urllib.parse import quote

from mlflow_compliance.entities import LoggedModel, Run
from mlflow_compliance.store.serving.serving_requests import AJAX, Asking

Files = Mapping[str, tuple[int, str | None]]
"""Path relative to a row's folder -> size in bytes, SHA-256 (hex) where it is known."""

_STRANGERS = 100
"""Folders without a known file to look into, about."""


class Tree(NamedTuple):
    """How the UI asks for files: the call that lists a folder and the one that gives a file, each with what it calls the path."""

    what: str
    list_call: str
    list_key: str
    get_call: str
    get_key: str
    query: Mapping[str, str]


def run_tree(run: Run) -> Tree:
    return Tree("artifact", AJAX + "artifacts/list", "path", "get-artifact", "path", {"run_uuid": run.run_id})


def model_tree(model: LoggedModel) -> Tree:
    call = f"{AJAX}logged-models/{quote(model.model_id, safe='')}/artifacts"
    return Tree(f"file of model {model.name}", f"{call}/directories", "artifact_directory_path", f"{call}/files", "artifact_file_path", {})


def check_files(server: Asking, tree: Tree, files: Files) -> None:
    """Compare the lists of all folders with the files, and download each file that is listed."""
    folders = {"", *(folder for path in files for folder in _above(path))}
    listed, failed = _listed(server, tree, folders)
    for path, known in sorted(files.items()):
        name = f"{tree.what} {path}"
        if path in listed:
            server.same_size(name, listed[path], known[0], "list")
            server.download(name, known, tree.get_call, {tree.get_key: path, **tree.query})
        elif failed.isdisjoint(_above(path)):
            server.problem(f"{name} is in the store but not listed")
    for path in sorted(listed.keys() - files.keys()):
        topmost = next((folder for folder in reversed(_above(path)) if folder and folder not in folders), path)
        server.problem(f"{tree.what} {topmost} is listed but is not among the files that were read")


def _listed(server: Asking, tree: Tree, known: Set[str]) -> tuple[dict[str, int], set[str]]:
    """Every file in the lists of all folders with its size, and the folders whose list is not given. `known` folders hold files that were read."""
    listed: dict[str, int] = {}
    failed: set[str] = set()
    seen, todo = {""}, [""]
    while todo:
        folder = todo.pop()
        for page in server.pages(tree.list_call, {**tree.query, **({tree.list_key: folder} if folder else {})}):
            if page is None:
                failed.add(folder)
                continue
            server.checked += 1
            items = page.get("files", ())
            inside = {item["path"] for item in items if item.get("is_dir")}
            listed.update({item["path"]: int(item.get("file_size", 0)) for item in items if item["path"] not in inside})
            # Of a folder that was not read, one file says enough: links can make folders endless.
            if folder in known or len(inside) == len(items):
                room = len(seen - known) < _STRANGERS
                fresh = sorted(path for path in inside - seen if room or path in known)
                seen.update(fresh)
                todo += fresh
    return listed, failed


def _above(path: str) -> list[str]:
    """The folders that a file lies in, the nearest first, the topmost as ''."""
    found = []
    while path := os.path.dirname(path):
        found.append(path)
    return [*found, ""]
