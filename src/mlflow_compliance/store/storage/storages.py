"""Which place a location is in: a bucket, a server, or none that this version reads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence

from mlflow_compliance.snapshot.refs import Location
from mlflow_compliance.store.storage.base import Place, RemoteError
from mlflow_compliance.store.storage.locations import Resolver, scheme_of
from mlflow_compliance.store.storage.proxied import ServedArtifacts
from mlflow_compliance.store.storage.s3 import Bucket


def put(places: Storages, path: str, content: bytes) -> None:
    """Write a small object to where nothing is yet."""
    with tempfile.NamedTemporaryFile(prefix="mlflow-compliance-") as file:
        file.write(content)
        file.flush()
        places.of(path).upload(file.name, path)


SCHEMES = ("s3", "mlflow-artifacts")


class Storages:
    """The places of one session, each opened once. `tracking_uri` is the server that mlflow-artifacts: locations
    leave unnamed.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._places: dict[str, Place] = {}

    def of(self, path: str) -> Place:
        """The place that a path lies in; nothing is asked of it yet."""
        name = place_name(path)
        if name not in self._places:
            scheme = scheme_of(path)
            if scheme not in SCHEMES or name == "s3://":
                raise RemoteError(f"{path} is not a location that this version reads")
            self._places[name] = (
                Bucket(name[len("s3://") :]) if scheme == "s3" else ServedArtifacts(name, self._tracking_uri)
            )
        return self._places[name]


def is_remote(path: str) -> bool:
    """Whether a path, as a Snapshot has it, is not one of this machine's."""
    return scheme_of(path) in SCHEMES


def place_name(path: str) -> str:
    """The bucket or server in a path: 's3://bucket', 'mlflow-artifacts:' or 'mlflow-artifacts://host:port'."""
    scheme, _, rest = path.partition(":")
    return f"{scheme}://{rest[2:].partition('/')[0]}" if rest.startswith("//") else f"{scheme}:"


def remote_path(uri: str) -> str:
    """A row's location as paths are written here: the scheme in lower case, no slash at the end."""
    scheme, _, rest = uri.partition(":")
    place = place_name(f"{scheme.lower()}:{rest}")
    key = f"{scheme.lower()}:{rest}"[len(place) :].strip("/")
    return f"{place}/{key}" if key else place


def split(
    locations: Sequence[Location], relocate: Mapping[str, str], tracking_uri: str
) -> tuple[list[Location], list[Location]]:
    """Rows whose files lie in folders or nowhere that can be looked at, and those whose files are remote and not
    mapped to a folder.
    """
    resolve = Resolver(relocate)
    local: list[Location] = []
    remote: list[Location] = []
    for location in locations:
        away = is_remote(location.uri) and resolve(location.uri).prefix is None
        if (
            away
            and location.uri.startswith("mlflow-artifacts:/")
            and not location.uri.startswith("mlflow-artifacts://")
        ):
            away = tracking_uri.startswith(("http:", "https:"))  # only the server itself knows which one they mean
        (remote if away else local).append(location)
    return local, remote
