"""From the location that a row names to a path on this machine, the way MLflow itself reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from mlflow_compliance.snapshot.presence import Why

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: one letter and a colon is a Windows drive
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
NOT_FILES = ("models", "runs")
"""Schemes that name an entity and not a place."""


class Resolved(NamedTuple):
    """Where a uri is on this machine: `path`, or '' and the `reason`; `prefix` is the [store.relocate] key that was
    used.
    """

    path: str
    reason: str = ""
    prefix: str | None = None
    why: Why | None = None
    """Why the place is unknown; None for a location that names none."""


class Resolver:
    """Turns uris into paths under one set of [store.relocate] prefixes, the longest that matches first.

    `home` is the folder that relative locations start from, None where nobody here knows it: never the working
    directory.
    """

    def __init__(self, relocate: Mapping[str, str], home: str | None = None) -> None:
        self._home = home
        self._relocate = sorted(
            ((key.rstrip("/\\"), key, folder) for key, folder in relocate.items()), key=lambda item: -len(item[0])
        )

    def __call__(self, uri: str) -> Resolved:
        if "\0" in uri or not uri:
            return Resolved("", "its location is not a path")
        for start, key, folder in self._relocate:
            # Only at a separator: /data/mlruns must not take in /data/mlruns-old.
            if uri.startswith(start) and uri[len(start) : len(start) + 1] in ("", "/", "\\"):
                return _inside(folder, uri[len(start) :], uri, key)
        if _is_normal(uri):
            return Resolved(uri)
        scheme = scheme_of(uri)
        if scheme not in ("", "file"):
            if scheme == "mlflow-artifacts":
                reason = (
                    "it lies behind a tracking server: give its address (--tracking-uri), or map it with "
                    "[store.relocate]"
                )
                return Resolved("", reason, None, Why.SERVER)
            return Resolved(
                "", f"{scheme} locations are not read by this version; map it with [store.relocate]", None, Why.SCHEME
            )
        path = unquote(plain(uri))
        if path.startswith("/"):
            return Resolved("/" + os.path.normpath(path).lstrip("/"))
        if self._home is None:
            reason = (
                "its location is relative to a folder that only the server that wrote it knows; map it with "
                "[store.relocate]"
            )
            return Resolved("", reason, None, Why.ELSEWHERE)
        return Resolved(os.path.normpath(os.path.join(self._home, path)))


def _is_normal(uri: str) -> bool:
    """Whether a location is a path just as it stands, as most are: nothing in it is read in another way."""
    return uri[0] == "/" and uri[-1] != "/" and not ("/." in uri or "//" in uri or "%" in uri or "\\" in uri)


def is_file_place(uri: str) -> bool:
    """Whether a location or a prefix of one is in a file system, of whatever machine."""
    return scheme_of(uri) in ("", "file")


def respelled(uri: str, path: str) -> str:
    """A path of this machine as the row that says `uri` must name it: plain, or as a file URI where that is one; ''
    where it cannot.

    A plain path with a percent sign may be read as another one, so that becomes a URI too.
    """
    spellings = [path] if scheme_of(uri) == "" else []
    return next(
        (
            spelling
            for spelling in (*spellings, PurePosixPath(path).as_uri())
            if Resolver({}, None)(spelling).path == path
        ),
        "",
    )


def is_relative(uri: str) -> bool:
    """Whether a location is a path that starts from whatever folder its writer was in."""
    return bool(uri) and scheme_of(uri) in ("", "file") and not unquote(plain(uri)).startswith("/")


def local_folder(uri: str, home: str | None) -> str | None:
    """The real path behind an artifact URI as MLflow writes it on this machine, or None where it is not local;
    `home` as `Resolver` has it.
    """
    path = Resolver({}, home)(uri).path
    return os.path.realpath(path) if path else None


def scheme_of(uri: str) -> str:
    """The scheme in lower case, '' for a plain path (a Windows path too)."""
    found = _SCHEME.match(uri) if uri[:1] != "/" else None
    return found[1].lower() if found else ""


def plain(uri: str) -> str:
    """The path in a file uri or plain path, percent signs as they are. MLflow does not look at the host of a file
    uri either.
    """
    path = urlparse(uri).path if uri[:5].lower() == "file:" else uri
    if _DRIVE.match(path) or _DRIVE.match(path[1:]):
        return "/" + path.lstrip("/").replace("\\", "/")
    return path


def shown(path: str) -> str:
    """A path as its own machine writes it: without the slash that a file uri puts before a Windows drive."""
    return path[1:] if _DRIVE.match(path[1:] + "/") else path


def _inside(folder: str, rest: str, uri: str, key: str) -> Resolved:
    if scheme_of(uri) in ("", "file"):
        rest = unquote(rest)
    if "\\" in rest and (_DRIVE.match(uri) or _DRIVE.match(plain(uri)[1:])):
        rest = rest.replace("\\", "/")
    folder = os.path.normpath(folder)
    path = os.path.normpath(folder + "/" + rest)
    if path != folder and not path.startswith(folder.rstrip("/") + "/"):
        return Resolved("", f"its location leads out of the folder that [store.relocate] maps {key} to", key)
    return Resolved(path, "", key)
