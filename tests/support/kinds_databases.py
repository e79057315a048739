"""Stores in databases behind a server of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from databases import SERVERS, Server
from places import Kind, Place


def on(server: Callable[[], Server]) -> Kind:
    """Stores on one server."""

    @contextmanager
    def store(folder: Path) -> Iterator[Place]:
        artifacts = str(folder / "mlruns")
        yield Place(server().store(artifacts), artifacts)

    return store


KINDS: dict[str, Kind] = {name: on(server) for name, server in SERVERS.items()}
