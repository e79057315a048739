"""Finds out what a tracking URI points to and opens it: for reading without a trace, for writing only under a
repair.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from mlflow_compliance.errors import StoreError
from mlflow_compliance.executors import THREADS, executor_of
from mlflow_compliance.progress import Progress, Silent
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.doomed import Doom, Doomed, DoomedFolder
from mlflow_compliance.snapshot.entities import LoggedModel, Run, StoreInfo
from mlflow_compliance.snapshot.files import JOURNALS, in_folder
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.backends.base import Backend, Foretold, Rows

if TYPE_CHECKING:
    from mlflow_compliance.snapshot.files import DuplicateRules
    from mlflow_compliance.store.artifacts.hash_cache import HashCache
    from mlflow_compliance.store.artifacts.session_cache import SessionCache
    from mlflow_compliance.store.evidence.cache import EvidenceCache
    from mlflow_compliance.store.storage.journals import Finder
    from mlflow_compliance.store.storage.storages import Storages


@contextmanager
def without_collecting() -> Iterator[None]:
    """It would go through all that was made so far, again and again: a tenth of the time that a large store takes
    to read.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            # What was made is not young any more: without this the next object that is made would have all of it
            # searched at once.
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


class Condemned(NamedTuple):
    """What gc would destroy in one workspace: the rows, the store around them, and what lies in each thing's place."""

    doom: Doom
    snapshot: Snapshot
    folders: Mapping[tuple[str, str], DoomedFolder]


_SPELLED_OTHERWISE = {"postgres": "postgresql", "mariadb": "mysql+pymysql", "sqlite3": "sqlite"}
"""Schemes that people write for databases, and what MLflow takes."""
_OF_ARTIFACTS = frozenset(
    {"s3", "s3a", "gs", "wasb", "wasbs", "abfs", "abfss", "hdfs", "dbfs", "mlflow-artifacts", "runs", "models"}
)


@dataclass(frozen=True)
class Store:
    """One store, as a place to read Snapshots from. `folder` holds its journals and the hashes on record."""

    backend: Backend
    folder: str
    executor: str = THREADS
    hash_cache: str = "off"
    owned: tuple[str, ...] = ()
    """Real paths of the artifact roots that the user says are this store's."""
    again: bool = False
    """Whether its files will be looked at more than once, so that it is worth remembering what was seen."""

    @property
    def uri(self) -> str:
        return self.backend.uri

    @property
    def settings(self) -> Settings:
        return self.backend.settings

    @property
    def info(self) -> StoreInfo:
        return self.backend.info

    def read(self, *, artifacts: bool, also: Collection[str] = (), progress: Progress | None = None) -> Snapshot:
        """The store now; see `read_rows` and `read_files`."""
        progress = progress or Silent()
        if not artifacts:
            return self.read_metadata(also, progress)[0]
        return self.read_files(*self.read_rows(also, progress), progress)

    def read_metadata(
        self, also: Collection[str] = (), progress: Progress | None = None
    ) -> tuple[Snapshot, Rows | None]:
        """The store for rules that look at no files, and the locations where they came along; see
        `Backend.read_metadata`.
        """
        progress = progress or Silent()
        progress.start("Reading the store", None)
        self.backend.watch(progress)
        try:
            snapshot, rows = self.backend.read_metadata(also)
            return self._with_journals(snapshot), rows
        finally:
            progress.stop()

    def read_rows(self, also: Collection[str] = (), progress: Progress | None = None) -> tuple[Snapshot, Rows]:
        """The store without its files, and where its rows say that files lie. `also` are run ids to bring in full.

        Raises StoreError where the store is missing, locked, foreign or out of reach.
        """
        progress = progress or Silent()
        progress.start("Reading the store", None)
        self.backend.watch(progress)
        try:
            snapshot, rows = self.backend.read(also)
            return self._with_journals(snapshot), rows
        finally:
            progress.stop()

    def doomed(self, options: str, older_than: str | None, progress: Progress) -> list[Condemned]:
        """What `mlflow gc` with these options would destroy, with the files that it would find."""
        return [self._condemned(item, progress) for item in self.backend.doomed(options, older_than)]

    def left_by_repairs(self, homes: Collection[str], more: Iterable[Doomed], progress: Progress) -> Condemned:
        """What repairs left to be purged: see `Backend.left_by_repairs`; `more` lies in quarantines."""
        from mlflow_compliance.store.artifacts.gc_files import put_aside

        found = self.backend.left_by_repairs(homes)
        things = (*put_aside(found.doom.things, self.backend.home), *more)
        return self._condemned(found._replace(doom=replace(found.doom, things=things)), progress)

    def _condemned(self, found: Foretold, progress: Progress) -> Condemned:
        from mlflow_compliance.store.artifacts.gc_files import folders_of

        doom, snapshot, rows = found
        whole = self.with_evidence(self.walk(self._with_journals(snapshot), rows, progress), progress)
        return Condemned(doom, whole, folders_of(doom.things, self.backend.home))

    def _with_journals(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot that knows the journals of its store, and from which those that the store itself keeps are set
        apart.
        """
        from mlflow_compliance.snapshot.set_apart import set_apart

        return set_apart(snapshot, self.finder.journals(snapshot))

    @without_collecting()
    def read_files(self, snapshot: Snapshot, rows: Rows, progress: Progress | None = None) -> Snapshot:
        """A snapshot with its artifact side and evidence for who asks: see `walk` and `with_evidence`."""
        progress = progress or Silent()
        return self.with_evidence(self.walk(snapshot, rows, progress), progress)

    def with_evidence(self, snapshot: Snapshot, progress: Progress) -> Snapshot:
        """A snapshot of which may be asked what files prove: computed then, by whoever asks."""
        from mlflow_compliance.store.evidence.collect import with_evidence

        return with_evidence(snapshot, self.evidence_cache, self.uri, progress, self.folder)

    def walk(self, snapshot: Snapshot, rows: Rows, progress: Progress) -> Snapshot:
        """A snapshot with its files: one walk over the local roots, hashes where files may be duplicates."""
        from mlflow_compliance.snapshot.set_apart import without_files
        from mlflow_compliance.store.artifacts.duplicates import hash_candidates
        from mlflow_compliance.store.artifacts.hash_cache import cache_folder
        from mlflow_compliance.store.artifacts.local import read_artifacts
        from mlflow_compliance.store.artifacts.remote import with_remote
        from mlflow_compliance.store.artifacts.remote_duplicates import hash_remote
        from mlflow_compliance.store.ownership.decide import with_ownership
        from mlflow_compliance.store.ownership.traces import lost_traces
        from mlflow_compliance.store.storage.journals import with_lost
        from mlflow_compliance.store.storage.pointer_files import with_holding
        from mlflow_compliance.store.storage.recorded_hashes import read_lines
        from mlflow_compliance.store.storage.storages import is_remote, split

        base, folder, started, rules = (
            self.settings.base,
            cache_folder(self.hash_cache),
            time.time_ns(),
            self.settings.duplicate_rules(),
        )
        journals = with_lost(snapshot.journals)
        cache = self._cache(folder, rules, started)
        own = [
            self.folder,
            *([str(self.settings.path)] if self.settings.path else []),
            *([folder] if folder else []),
            *self.backend.own(),
        ]
        relocate, roots = self.settings.store.resolved_relocate(base), self.settings.store.resolved_roots(base)
        local, remote = split(rows.locations, relocate, self.uri)
        found = read_artifacts(
            local,
            relocate=relocate,
            roots=[root for root in roots if not is_remote(root)],
            ignore=self.settings.store.ignore,
            rules=rules,
            file_store=self.info.backend == "file",
            ready_models=rows.ready_models,
            folders=rows.folders,
            recorded=journals.on_record({} if journals.unreadable else read_lines(self.folder)),
            progress=progress,
            own=own,
            near=[self.backend.home] if self.backend.home else [],
            cache=cache,
            home=self.backend.home,
            sampled=self.executor == THREADS,  # workers elsewhere read files themselves
        )
        with executor_of(self.executor) as pool:
            found = hash_candidates(found, progress, pool, cache)
        away = [root for root in roots if is_remote(root)]
        if remote or away:
            ignore, ready = self.settings.store.ignore, rows.ready_models
            found = with_remote(
                found, remote, places=self.places, roots=away, ignore=ignore, ready_models=ready, progress=progress
            )
            found = with_holding(hash_remote(found, self.places, progress))
        found = replace(found, states=cache.states(found) if cache is not None else "")
        found = replace(found, elsewhere=rows.elsewhere, newest_row=rows.newest, deleted_runs=rows.deleted_runs)
        found = replace(found, lost_traces=lost_traces(found, self.backend))
        found = with_ownership(found, snapshot, rows, self.backend, self.owned, journals=self.folder)
        return replace(snapshot, artifacts=without_files(found, journals), journals=journals)

    def _cache(self, folder: str | None, rules: DuplicateRules, started: int) -> HashCache | None:
        """What spares reading files again, within the session or from one to the next."""
        from mlflow_compliance.store.artifacts.hash_cache import HashCache

        name = f"{self.info.uri}\0{self.settings.base}"
        if not self.again:
            return HashCache(folder, name, rules, started) if folder else None
        from mlflow_compliance.store.artifacts.session_cache import SessionCache

        before, named = next(iter(self._looks), None), self.settings.production_files()
        self._looks[:] = [SessionCache(folder, name, rules, started, before, named)]
        return self._looks[0]

    @cached_property
    def _looks(self) -> list[SessionCache]:
        """What the last look at its files saw."""
        return []

    @property
    def finder(self) -> Finder:
        """Looks for this store's journals."""
        from mlflow_compliance.store.storage.journals import Finder
        from mlflow_compliance.store.storage.locations import Resolver

        resolve = Resolver(self.settings.store.resolved_relocate(self.settings.base), self.backend.home)
        return Finder(self.info.uri, self.folder, self.places, resolve)

    @cached_property
    def places(self) -> Storages:
        """The object stores and servers that this store's artifacts may lie in."""
        from mlflow_compliance.store.storage.storages import Storages

        return Storages(self.uri)

    @cached_property
    def evidence_cache(self) -> EvidenceCache:
        """What was computed from this store's files, and from those that the settings name."""
        from mlflow_compliance.store.evidence.cache import EvidenceCache

        return EvidenceCache(self.settings, self.places, self.executor, again=self.again)

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        """Runs in full with the logged models that they wrote, as they are now; ids that are not there are left out."""
        return self.backend.details(run_ids)


def open_store(
    uri: str,
    settings: Settings,
    rootdir: str,
    *,
    executor: str = THREADS,
    hash_cache: str | None = None,
    owned_roots: Iterable[str] = (),
    tell: Callable[[str], None] = lambda _: None,
    count: bool = False,
    again: bool = False,
) -> Store:
    """The store behind a tracking URI; it must exist. `rootdir` holds the journals of a store without a folder of its
    own.

    `executor` is what --compliance-executor takes; `hash_cache` wins over the settings; `owned_roots` are artifact
    roots that the user says
    are this store's; `tell` shows a line to whoever waits for a server; `count` has that one show all its runs, also to
    rules that look at no files; `again` is whether the store's files will be looked at more than once.
    """
    backend = _backend(uri, settings, tell, count=count)
    folder = settings.journal.resolved_folder(settings.base) or os.path.join(backend.home or rootdir, JOURNALS)
    return Store(
        backend,
        folder,
        executor,
        hash_cache or settings.artifacts.resolved_cache(settings.base),
        tuple(map(os.path.realpath, owned_roots)),
        again,
    )


def _backend(uri: str, settings: Settings, tell: Callable[[str], None], *, count: bool) -> Backend:
    if not uri:
        raise StoreError(
            "no store is named: give --tracking-uri, set MLFLOW_TRACKING_URI, or write [store] tracking_uri in "
            "compliance.toml"
        )
    try:
        urlsplit(uri)
    except ValueError as error:
        raise StoreError(f"the tracking URI cannot be read as one ({error}): check it") from error
    if uri.startswith(("databricks", "uc:")):
        raise StoreError(
            f"stores of kind {uri.partition(':')[0]!r} are not supported: only what open-source MLflow serves"
        )
    _refuse_what_is_no_store(uri.partition(":")[0].lower() if "://" in uri else "")
    if uri.startswith("sqlite:"):
        from mlflow_compliance.store.backends.sqlite import SqliteBackend

        return SqliteBackend(uri, settings)
    if "://" not in uri or uri.startswith("file:"):
        from mlflow_compliance.store.backends.file_store import FileBackend

        return FileBackend(uri if uri.startswith("file:") else "file://" + os.path.abspath(uri), settings)
    if uri.partition(":")[0].partition("+")[0] in ("postgresql", "mysql"):
        from mlflow_compliance.store.backends.databases import DatabaseBackend

        return DatabaseBackend(uri, settings)
    from mlflow_compliance.store.backends.server import ClientBackend, ServerBackend

    if uri.startswith(("http:", "https:")):
        return ServerBackend(uri, settings, count=count, tell=tell)
    return ClientBackend(uri, settings)


def _refuse_what_is_no_store(scheme: str) -> None:
    """What people write for a database that MLflow spells otherwise, and for the place where artifacts lie."""
    kind = scheme.partition("+")[0]
    if kind in _SPELLED_OTHERWISE:
        raise StoreError(f"no tracking URI begins with '{scheme}:': write '{_SPELLED_OTHERWISE[kind]}:' in its place")
    if kind in _OF_ARTIFACTS:
        raise StoreError(
            f"a URI that begins with '{scheme}:' says where artifacts lie, and not which store knows them: give the "
            "tracking server or the database"
        )


def refuse_writing(store: Store, snapshot: Snapshot) -> None:
    """Raise StoreError for a store that this version only audits, or that the installed MLflow does not take as it
    is.
    """
    store.backend.refuse_writing()
    if snapshot.schema is not None and snapshot.schema.problem:
        store.backend.refuse_other_schema()
    if snapshot.artifacts is not None:
        _refuse_what_is_mapped_for_reading(snapshot.artifacts)
        _refuse_while_something_is_away(snapshot.artifacts)
        store.backend.refuse_other_files(snapshot.artifacts)


def _refuse_what_is_mapped_for_reading(artifacts: Artifacts) -> None:
    """Rows that name a folder are rewritten before anything else is; others use what the rows of buckets and
    servers say.
    """
    if artifacts.relocated and not artifacts.elsewhere:
        prefixes = ", ".join(map(without_secrets, sorted(artifacts.relocated)))
        way = (
            "those of a database are rewritten where they name a folder (ART003); for what a server or a bucket "
            "serves, give its own address"
        )
        raise StoreError(
            f"--fix does not write to a store that says {prefixes} in its rows and is read through "
            f"[store.relocate]: {way}; nothing was changed"
        )


def _refuse_while_something_is_away(artifacts: Artifacts) -> None:
    """What is built while a volume is not mounted is hidden below it when it is back, and what it replaced was
    never gone.
    """
    away = [item for item in artifacts.unreachable if item.why and item.why.brings_back and in_folder(item.place)]
    if away:
        found = {moved.folder for item in away for moved in artifacts.moved_from(item.place) if moved.folder}
        elsewhere = (
            (
                f"; files of those rows lie in {', '.join(sorted(found))}: map that with [store.relocate] if they "
                "were moved (see ART003)"
            )
            if found
            else ""
        )
        reasons = "; ".join(sorted({item.reason for item in away}))
        raise StoreError(
            f"--fix does not write while files that rows speak of are away: {reasons}{elsewhere}; nothing was changed"
        )
