"""One walk of the local artifact roots: every file, whose it is, and what nobody owns."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack
from fnmatch import translate
from itertools import repeat
from typing import NamedTuple

from mlflow_compliance.progress import Progress
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import is_elsewhere
from mlflow_compliance.snapshot.files import (
    JOURNALS,
    LINK,
    META,
    MLMODEL,
    OWNER_NOTE,
    QUARANTINE,
    TRASH,
    ArtifactFile,
    ArtifactRoot,
    DuplicateRules,
    ModelFolder,
    Ownerless,
    upwards,
)
from mlflow_compliance.snapshot.litter import is_litter
from mlflow_compliance.snapshot.presence import Unknown, Why
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.store.artifacts.hash_cache import HashCache
from mlflow_compliance.store.artifacts.quarantined import read_quarantines
from mlflow_compliance.store.backends.sqlite_file import is_sqlite
from mlflow_compliance.store.models.mlmodel import inspect
from mlflow_compliance.store.ownership import orphans
from mlflow_compliance.store.ownership.moved import find_moved
from mlflow_compliance.store.ownership.outdated import Dates
from mlflow_compliance.store.ownership.rows import Missing, Ownership, read_ownership
from mlflow_compliance.store.storage.atomic_write import TEMPORARY
from mlflow_compliance.store.storage.folder_scan import Found, Verifier, Visitor
from mlflow_compliance.store.storage.worker_pool import MOST_PARTS, WorkerPool, sharing

SKIPPED = frozenset({QUARANTINE, OWNER_NOTE, JOURNALS, TRASH})
_UPLOADING = ".artifact.uploading."
_OF_FILE_STORE = re.compile(r"/[0-9a-f]{32}/(metrics|params|tags)/")
"""What only a file store keeps beside the artifacts of a run: it may be all that is left of one without a row."""
_ID = 33
_FILE_STORE_OWN = (META, "tags", "datasets")


class Where(NamedTuple):
    """Where the walk is: below which root, and in whose folder or in which topmost folder that is nobody's."""

    root: str
    owner: EntityRef | None = None
    artifacts: str = ""
    logged: bool = False
    stray: str = ""


def read_artifacts(
    locations: Sequence[Location],
    *,
    relocate: Mapping[str, str],
    roots: Sequence[str],
    ignore: Sequence[str],
    rules: DuplicateRules,
    file_store: bool,
    ready_models: Collection[str],
    recorded: Mapping[str, str],
    progress: Progress,
    own: Collection[str] = (),
    folders: Sequence[Location] = (),
    near: Sequence[str] = (),
    cache: HashCache | None = None,
    sampled: bool = False,
    home: str | None = None,
) -> Artifacts:
    """Walk every root once and put each file to its row. `locations` names all rows, deleted ones too: what has no row
    is nobody's.

    `own` are files and folders of the store itself (its database, settings, journals): they are passed over wherever
    they lie.
    `folders` belong to rows that keep no artifacts there.
    `near` are the folders near which files are looked for whose rows name a place that is not here.
    `home` is the folder that relative locations start from.
    `sampled` files are looked into while the walk is there: samples of those that may have equals spare the search a
    second way to them.
    """
    with ExitStack() as stack:
        many, known = are_many(locations), cache is not None and len(cache)
        share = None if known else stack.enter_context(sharing(Visitor, helped=many))
        verifying = stack.enter_context(sharing(Verifier, helped=bool(known) and many))
        if cache is not None:
            cache.begin(verifying)
        ownership = read_ownership(
            locations, relocate, roots, ready_models, recorded=recorded, folders=folders, home=home
        )
        asked = (rules.min_size if sampled else -1, tuple(rules.boilerplate), cache is not None)
        walk = _Walk(
            ownership, ignore, frozenset(os.path.realpath(path) for path in own), asked, cache, file_store=file_store
        )
        progress.start("Reading artifact folders", None)
        try:
            walk.run(share, verifying, progress)
        finally:
            progress.stop()
        near = (*near, *roots)
        aside, illegible = read_quarantines(ownership)
        _forget_what_is_not_mounted(walk, ownership, locations, near, {item.root for item in aside.values()})
    ownerless = {item.path: item for item in walk.orphans.entries(ownership.roots, walk.keys)}
    _keep_what_links_lead_into(ownerless, walk.links)
    return Artifacts(
        roots=tuple(ArtifactRoot(key, root, _device(root)) for root, key in walk.keys.items()),
        files=walk.files,
        locations=ownership.locations,
        ownerless=ownerless,
        emptied=dict(walk.orphans.emptied),
        quarantined=aside,
        illegible=illegible,
        unknown=ownership.unknown,
        unreachable=ownership.unreachable(),
        moved=find_moved(locations, ownership.unknown, near, ownership.roots),
        relocated=dict(ownership.relocated),
        # MLflow keeps a second MLmodel in `metadata`, without the files that it names.
        models={
            folder: walk.judged.get(folder) or inspect(folder, owner, walk.files)
            for folder, owner in walk.models.items()
            if not is_elsewhere(owner)
            and (os.path.basename(folder) != "metadata" or os.path.dirname(folder) not in walk.models)
        },
        recorded=recorded,
        newest=walk.newest,
        coming={
            folder: _device(next(filter(os.path.exists, upwards(folder))))
            for folder in ownership.experiments
            if not any(above in ownership.roots for above in upwards(folder))
        },
        linked_outside=walk.linked_outside(),
        hard_links=walk.hard_links(),
        links=walk.links,
        unread=walk.unread,
        rules=rules,
        samples=walk.samples,
        dated=walk.dates.dated(),
    )


def _keep_what_links_lead_into(ownerless: dict[str, Ownerless], links: Mapping[str, str]) -> None:
    """What was moved aside could not be opened through a link any more."""
    for path, target in links.items():
        for above in upwards(target):
            item = ownerless.get(above)
            if item is not None and not item.keep and above not in upwards(path):
                ownerless[above] = item._replace(keep=f"{path} is a link into it: put the file itself there first")


def _forget_what_is_not_mounted(
    walk: _Walk, ownership: Ownership, locations: Sequence[Location], near: Sequence[str], mounted: Collection[str]
) -> None:
    """A root without any file, though files were written there, is what a volume that is not mounted leaves: of such
    nothing is known.

    The same where its rows' own folders are found in another place: the store was moved from there. Those that are
    `mounted` hold what
    rows miss, in quarantine.
    """
    bare = dict.fromkeys(root for root in ownership.roots if root not in mounted)
    for path, file in walk.files.items():
        if not bare:
            break  # as soon as each root showed a file: of a million files hardly any is looked at
        if file.owner is not None and not is_litter(os.path.basename(path)):
            for root in [root for root in bare if path.startswith(root.rstrip("/") + "/")]:
                del bare[root]
    for root in ownership.roots:
        closed, proof = walk.unread.get(root), ownership.proven(root) if root in bare else ""
        if closed:
            reason = f"the artifact root {root} cannot be looked into ({closed}): see to its permissions"
            ownership.forget(root, Missing(reason, Why.CLOSED), locations)
        elif proof:
            reason = (
                f"the artifact root {root} holds nothing of what was written there, such as "
                f"{os.path.relpath(proof, root)}"
            )
            ownership.forget(
                root, Missing(f"{reason}: bring it back (is its volume mounted?)", Why.EMPTY_ROOT), locations
            )
        elif root in bare and (moved := _moved_from(root, ownership, locations, near)):
            reason = f"the artifact root {root} holds nothing, and folders with the ids of its rows lie in {moved}"
            ownership.forget(root, Missing(f"{reason}: map it with [store.relocate]", Why.EMPTY_ROOT), locations)


def _moved_from(root: str, ownership: Ownership, locations: Sequence[Location], near: Sequence[str]) -> str:
    """A folder in which the folders of the rows below an empty root are, '' where there is none."""
    empty = Unknown(Why.EMPTY_ROOT, root, "")
    below = {place: empty for place, path in ownership.locations.items() if path.startswith(root.rstrip("/") + "/")}
    found = find_moved(locations, below, near, ownership.roots)
    return found[0].folders[0] if found else ""


class _Walk:
    def __init__(
        self,
        ownership: Ownership,
        ignore: Sequence[str],
        own: frozenset[str],
        asked: Asked,
        cache: HashCache | None,
        *,
        file_store: bool,
    ) -> None:
        self.samples: dict[str, str] = {}
        self.judged: dict[str, ModelFolder] = {}  # those whose MLmodel was read on the way
        self._asked, self._cache = asked, cache
        self.newest: dict[tuple[str, str], int] = {}
        self._names: dict[str, int] = {}  # physical copy -> how many hard links it has, where it has several
        self.links: dict[str, str] = {}
        self._real = {os.path.realpath(root): root for root in ownership.roots}
        self._own = own
        self._above_own = {above for path in own for above in upwards(os.path.dirname(path))}
        self.files: dict[str, ArtifactFile] = {}
        self.models: dict[str, EntityRef | None] = {}
        self.unread = dict(ownership.unread)
        self.orphans = orphans.Orphans()
        self.dates = Dates()
        self.keys = {root: str(index) for index, root in enumerate(sorted(ownership.roots))}
        self._holdings = ownership
        self._ignored = re.compile("|".join(map(translate, ignore)) or r"(?!)")
        self._file_store = file_store
        self._stack: list[tuple[str, Where]] = []
        self._plain: list[tuple[str, Where]] = []  # rows' folders in which nothing of another row's is

    def run(self, share: WorkerPool | None, verifying: WorkerPool, progress: Progress) -> None:
        """Visit every folder below the outermost roots, without recursion: a tree may be deeper than Python's stack."""
        roots = self._holdings.roots
        for root in roots:
            if not any(root.startswith(other.rstrip("/") + "/") for other in roots if other != root):
                self._stack.append((root, self._below(root, Where(root))))
        self._empty_stack(progress)
        plain, self._plain = self._plain, []
        if self._cache is not None:
            plain = self._recall(self._cache, plain, verifying, progress)
        folders = [(folder, where.artifacts) for folder, where in plain]
        for number, found in visited(folders, self._asked, share, progress.advance):
            if found is None:
                self._stack.append(plain[number])
            else:
                folder, where = plain[number]
                self._take(where, found)
                if self._cache is not None:
                    self._cache.note(folder, where.artifacts, found)
        self._empty_stack(progress)

    def _recall(
        self, cache: HashCache, plain: list[tuple[str, Where]], verifying: WorkerPool, progress: Progress
    ) -> list[tuple[str, Where]]:
        """Take in what an earlier audit saw and nobody changed; gives back the other folders."""
        recalled = cache.recall(
            {folder: (where.artifacts, where.owner) for folder, where in plain if where.owner}, verifying
        )
        self.files.update(recalled.files)
        self._names.update(recalled.links)
        for folder, (owner, judged) in recalled.models.items():
            self.models[folder] = owner
            if judged is not None:
                self.judged[folder] = judged
        for owner, newest in recalled.newest.values():
            self._note_newest(owner, newest)
        progress.advance(len(recalled.files))
        return [(folder, where) for folder, where in plain if folder not in recalled.newest]

    def _note_newest(self, owner: EntityRef, written: int) -> None:
        """`written` in nanoseconds, 0 where nothing is."""
        if written:
            key = (owner.kind, owner.key)
            self.newest[key] = max(self.newest.get(key, 0), written // 1_000_000)

    def _empty_stack(self, progress: Progress) -> None:
        seen = 0
        while self._stack:
            seen += self._visit(*self._stack.pop())
            if seen > 1000:
                progress.advance(seen)
                seen = 0
        progress.advance(seen)

    def _take(self, where: Where, found: Found) -> None:
        """What was found in a row's folder that holds nothing but ordinary files and folders."""
        owner = where.owner
        assert owner is not None
        paths, sizes, copies, logged, newest, names, models, samples, _ = found
        # What ArtifactFile(...) does, without a call of Python's a file.
        self.files.update(
            zip(
                paths, map(tuple.__new__, repeat(ArtifactFile), zip(sizes, copies, repeat(owner), logged)), strict=False
            )
        )
        self._names.update(names)
        self.samples.update(samples)
        for folder, document in models.items():
            self.models[folder] = owner
            if document is not None:
                self.judged[folder] = inspect(folder, owner, self.files, document)
        self._note_newest(owner, newest)

    def _is_plain(self, folder: str, where: Where) -> bool:
        ownership = self._holdings
        return (
            where.artifacts != ""
            and folder in ownership.claims
            and folder not in ownership.containers
            and folder not in ownership.roots
            and folder not in self._above_own
        )

    def _visit(self, folder: str, where: Where) -> int:
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except FileNotFoundError:
            return 0
        except OSError as error:
            self._failed(folder, error, where)
            return 0
        if where.owner and not where.stray and folder != where.root and folder not in self._above_own:
            others = self._owned(folder, entries, where)
        else:
            others = entries
        bookkeeping = {} if where.owner else self._bookkeeping(folder, entries)
        for entry in others:
            name = entry.name
            if name.startswith(TEMPORARY) or (name in SKIPPED and folder == where.root) or entry.path in self._own:
                continue
            try:
                link = entry.is_symlink()
                if link and entry.path in self._holdings.links:
                    continue
                here: Where | None = where
                folder_itself = not link and entry.is_dir(follow_symlinks=False)
                if where.owner is None and not where.stray and not folder_itself and is_litter(name):
                    continue
                if where.owner is None:
                    here = self._enter(entry.path, name, where, bookkeeping)
                elif folder_itself:
                    here = self._below(entry.path, where)
                if here is None:
                    continue
                if folder_itself:
                    if here.stray:
                        self.dates.folder(entry.path, here.root, entry.stat(follow_symlinks=False).st_mtime_ns)
                    (self._plain if self._is_plain(entry.path, here) else self._stack).append((entry.path, here))
                else:
                    self._file(entry, here, folder, link=link)
            except FileNotFoundError:
                continue  # removed since the folder was listed: it is simply not there
            except OSError as error:
                self._failed(entry.path, error, where)
        return len(entries)

    def _owned(self, folder: str, entries: Sequence[os.DirEntry[str]], where: Where) -> list[os.DirEntry[str]]:
        """Take in the ordinary files of an owner's folder, which most files of a store are; gives back what is to
        be looked at closely.
        """
        others, newest = [], 0
        owner, logged, files = where.owner, where.logged, self.files
        assert owner is not None
        for entry in entries:
            name = entry.name
            try:
                if name[0] == "." or not entry.is_file(follow_symlinks=False):
                    others.append(entry)
                    continue
                facts = entry.stat(follow_symlinks=False)
            except OSError:
                others.append(entry)
                continue
            written = facts.st_mtime_ns
            if facts.st_nlink > 1 or not stat.S_ISREG(facts.st_mode):
                others.append(entry)
                continue
            copy, path = f"{facts.st_dev}:{facts.st_ino}", entry.path
            newest = max(written, newest)
            files[path] = ArtifactFile(facts.st_size, copy, owner, logged)
            if name == MLMODEL:
                self.models[folder] = owner
        self._note_newest(owner, newest)
        return others

    def _file(self, entry: os.DirEntry[str], here: Where, folder: str, *, link: bool) -> None:
        path, name = entry.path, entry.name
        facts = entry.stat(follow_symlinks=False)
        copy, size, refused = f"{facts.st_dev}:{facts.st_ino}", facts.st_size, ""
        uploading = name.startswith(_UPLOADING)
        if link:
            copy, (size, refused) = LINK + copy, _target(path)
            self.links[path] = self._as_read(os.path.realpath(path))
        elif not stat.S_ISREG(facts.st_mode):
            size, refused = 0, "it is a socket, a pipe or a device"
        if here.owner and not is_litter(name):
            self._note_newest(here.owner, facts.st_mtime_ns)
        if facts.st_nlink > 1 and not link:
            self._names[copy] = facts.st_nlink
        if refused:
            if not is_elsewhere(here.owner):
                self.unread[path] = refused
        else:
            self.files[path] = ArtifactFile(size, copy, here.owner, here.logged and not uploading and not link)
            if name == MLMODEL:
                self.models[folder] = here.owner
        if here.stray:
            self.orphans.add(here.stray, path, size)
            self.dates.file(path, here.root, facts.st_mtime_ns)
            if link:
                self.orphans.mark(here.stray, path, orphans.LINK)
            elif refused:
                self.orphans.mark(here.stray, path)
            elif uploading:
                self.orphans.mark(here.stray, path, orphans.UPLOADING)
            elif path == here.stray and folder == here.root:
                self.orphans.mark(here.stray, path, orphans.LOOSE)
            elif is_sqlite(path):
                self.orphans.mark(here.stray, path, orphans.DATABASE)
            elif (name == META and "/artifacts/" not in path[len(here.stray) :]) or _OF_FILE_STORE.search(
                path, len(here.stray) - _ID
            ):
                self.orphans.mark(here.stray, path, orphans.UNLISTED if self._file_store else orphans.FILE_STORE)

    def _as_read(self, real: str) -> str:
        """A real path as the walk names it: a root may be reached through a link."""
        for above in upwards(real):
            if above in self._real:
                return self._real[above] + real[len(above) :]
        return real

    def hard_links(self) -> frozenset[str]:
        return frozenset(self._names)

    def linked_outside(self) -> frozenset[str]:
        """The copies with more hard links than were found below the roots."""
        found = Counter(file.copy for file in self.files.values() if file.copy in self._names)
        return frozenset(copy for copy, names in self._names.items() if names > found[copy])

    def _below(self, path: str, where: Where) -> Where:
        """A folder in an owner's folder."""
        if path in self._holdings.claims:
            return self._claimed(path, where.root)
        if path in self._holdings.roots and path != where.root:
            where = where._replace(root=path)
        return where._replace(logged=True) if path == where.artifacts else where

    def _enter(self, path: str, name: str, where: Where, bookkeeping: Mapping[str, EntityRef]) -> Where | None:
        """An entry of a folder that is not any row's own. None where it is not looked at."""
        ownership, root, top = self._holdings, where.root, where.stray
        if not top:
            if path in ownership.claims:
                return self._claimed(path, root)
            if path in ownership.roots:
                return Where(path)
            if name in bookkeeping:
                return Where(root, bookkeeping[name])
            # A temporary file of MLflow's may be an upload under way: nobody's, but not reported.
            if path in ownership.containers or path in self._above_own or name.startswith(_UPLOADING):
                return Where(root)
        if self._ignored.match(path, len(root.rstrip("/")) + 1):
            if top:
                self.orphans.protect(top, path)
            return None
        if top:
            return where
        if not ownership.roots[root] and not orphans.IDENTIFIER.fullmatch(name):
            return None  # a project's folder used as artifact root: the rest of the project is none of our business
        self.orphans.open(path, root)
        return Where(root, stray=path)

    def _claimed(self, path: str, root: str) -> Where:
        claim = self._holdings.claims[path]
        return Where(
            path if path in self._holdings.roots else root, claim.owner, claim.artifacts, path == claim.artifacts
        )

    def _bookkeeping(self, folder: str, entries: Sequence[os.DirEntry[str]]) -> dict[str, EntityRef]:
        """The entries of a folder that belong to the experiment or to the root, though they are no artifacts."""
        own = {}
        experiment = self._holdings.experiments.get(folder)
        if experiment:
            own["traces"] = experiment
            # A store that was migrated from files has the old ones still.
            if self._file_store or any(entry.name == META for entry in entries) or _is_of_file_store(folder, entries):
                own.update(dict.fromkeys(_FILE_STORE_OWN, experiment))
        elif self._file_store and folder in self.keys:
            own["models"] = EntityRef("artifact_root", self.keys[folder], folder)  # the file registry
        return own

    def _failed(self, path: str, error: OSError, where: Where) -> None:
        if not is_elsewhere(where.owner):
            self.unread[path] = (error.strerror or "cannot be read").lower()
        if where.stray:
            self.orphans.mark(where.stray, path)


def _is_of_file_store(folder: str, entries: Sequence[os.DirEntry[str]]) -> bool:
    """Whether an experiment's folder has lost the meta.yaml that it had as a file store's: its runs have theirs."""
    return any(entry.name == "tags" for entry in entries) and any(
        os.path.exists(os.path.join(folder, entry.name, META)) for entry in entries
    )


def _target(path: str) -> tuple[int, str]:
    """Size of the file that a symbolic link leads to, or why it is not looked at."""
    try:
        facts = os.stat(path)
    except OSError:
        return 0, "a symbolic link that leads nowhere"
    if stat.S_ISDIR(facts.st_mode):
        return 0, "a symbolic link to a folder is not followed"
    return (
        (facts.st_size, "") if stat.S_ISREG(facts.st_mode) else (0, "a symbolic link to a socket, a pipe or a device")
    )


def _device(root: str) -> int:
    try:
        return os.stat(root).st_dev
    except OSError:
        return -1


FEWEST = 600
"""Folders below which a helper costs more than it spares."""

Folder = tuple[str, str]
"""A row's folder, and where in it its artifacts are."""
Asked = tuple[int, tuple[str, ...], bool]
"""The arguments of a `Visitor`."""


def are_many(folders: Sized) -> bool:
    """Whether a helper is worth its start."""
    return len(folders) >= FEWEST


def visited(
    folders: Sequence[Folder], asked: Asked, share: WorkerPool | None, seen: Callable[[int], None]
) -> Iterator[tuple[int, Found | None]]:
    """The number of every folder and what is in it; None where it is to be looked at closely. `seen` is told how many
    files were found.

    `share` is of helpers that started before it was known what there is to do.
    """
    if share is None:
        with sharing(Visitor, helped=are_many(folders)) as own:
            yield from visited(folders, asked, own, seen)
        return
    size = max(1, min(16, len(folders) // 8), -(-len(folders) // MOST_PARTS))
    share.begin(asked, [list(folders[start : start + size]) for start in range(0, len(folders), size)])
    for number, found in share.told():
        seen(sum(len(one[0]) for one in found if one))
        yield from enumerate(found, number * size)
