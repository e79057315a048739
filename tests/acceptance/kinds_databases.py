"""Stores in databases behind a server of their own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from databases import SERVERS, Server
from places import Kind, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def on(server: Callable[[], Server]) -> Kind:
    """Stores on one server."""

    @contextmanager
    def store(folder: Path) -> Iterator[Place]:
        artifacts = str(folder / "mlruns")
        yield Place(server().store(artifacts), artifacts)

    return store


KINDS: dict[str, Kind] = {name: on(server) for name, server in SERVERS.items()}
