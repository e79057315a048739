"""What loading a model could do, told without loading it: every file is read once, hashed, and looked at for what
it would run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.snapshot.evidence import Scan
from mlflow_compliance.snapshot.files import MLMODEL
from mlflow_compliance.store.models.budget import LARGEST, Budget
from mlflow_compliance.store.models.content import HEAD, PICKLES, Use, content_problems, is_plain, is_zip, use_of
from mlflow_compliance.store.models.mlmodel_scan import Description, describe
from mlflow_compliance.store.models.problems import UNKNOWN, Problem, shown
from mlflow_compliance.store.storage.safe_io import ChangedError, digest_of, opened, why_unread

_CODE = (".py", ".pyc", ".pyd", ".so", ".pyz", ".egg", ".whl")
_MOST_TOLD = 20
"""Problems a file."""
_ALLOW_CODE = "set allow_code under [models] if you know that it is harmless"


def scan_model(folder: str, rules: ModelSettings) -> Scan:
    """What loading an MLflow model folder could do. Whatever cannot be read or is not known is a problem; nothing
    is raised.
    """
    looker = _Looker(rules)
    files = dict(sorted(looker.files_in(folder)))
    described = Description()
    for name in [name for name in files if os.path.basename(name) == MLMODEL]:
        data = looker.content(name, files.pop(name), _always)
        if data is not None:
            one = describe(data, name, looker.folders, rules)
            described.add(one)
            looker.tell(name, one.problems)
    both = sorted((described.pickles | described.skops) & looker.hashes.keys())  # only MLmodel files were read yet
    looker.problems += (Problem(f"{shown(name)}: is named as the model itself, {UNKNOWN}") for name in both)
    if MLMODEL not in looker.hashes:
        looker.fail(f"{MLMODEL}: is not there or cannot be read, so how the model is loaded is not known")
    code = [name for name in files if described.brings(name) or _suffix(name) in _CODE]
    if code and not rules.allow_code:
        looker.problems.append(
            Problem(f"{shown(code[0])}: brings code of its own ({len(code)} files), which runs on load: {_ALLOW_CODE}")
        )
    for name, path in files.items():
        looker.look(name, path, use_of(name, Use(name in described.pickles, name in described.skops)))
    for name, path in sorted(looker.links.items()):
        looker.look(name, path, use_of(name, Use(name in described.pickles, name in described.skops)))
    return looker.scan()


def scan_file(path: str, rules: ModelSettings, *, pickled: bool = True) -> Scan:
    """What loading one file could do, by pickle where it is no skops file; with `pickled=False` by whatever its
    content is for. `hashes` has its name alone. Nothing is raised.
    """
    name = os.path.basename(path)
    looker = _Looker(rules)
    use = use_of(name)
    looker.look(name, os.path.realpath(path), use._replace(pickled=pickled and not use.skops))
    return looker.scan()


def could_run(path: str) -> bool:
    """Whether a file is more than plain data, told by how it begins: a pickle, an archive, what is compressed; also
    where it cannot be read.
    """
    if _suffix(path) in (*PICKLES, ".skops"):
        return True
    try:
        with opened(os.path.realpath(path)) as file:
            head = os.pread(file, HEAD, 0)
            return bool(head) and not is_plain(head, whole=os.fstat(file).st_size <= HEAD)
    except OSError:
        return True


class _Looker:
    """Collects the problems and the hashes of files that are looked at one by one."""

    def __init__(self, rules: ModelSettings) -> None:
        self.rules = rules
        self.problems: list[Problem] = []
        self.hashes: dict[str, str] = {}
        self.folders: set[str] = set()
        self.links: dict[str, str] = {}
        self.budget = Budget()
        self.whole = True

    def scan(self) -> Scan:
        """What was found. A model that the settings allow as it is has no problems."""
        found = Scan(
            tuple(problem.text for problem in self.problems),
            self.hashes,
            {problem.text: problem.name for problem in self.problems if problem.name},
            frozenset(problem.name for problem in self.problems if problem.allowable),
            self.whole,
        )
        if found.problems and found.digest in self.rules.allowed_models:
            return Scan((), self.hashes, whole=self.whole, allowed=found.problems)
        return found

    def fail(self, problem: str) -> None:
        """Say that something was not read, so that nobody can say that this is the model that was allowed."""
        self.problems.append(Problem(problem))
        self.whole = False

    def files_in(self, folder: str) -> Iterator[tuple[str, str]]:
        """Relative and absolute path of every regular file at or below a folder; anything else than a folder is a
        problem.
        """
        rest = [""]
        while rest:
            below = rest.pop()
            try:
                with os.scandir(os.path.join(folder, below)) as found:
                    entries = list(found)
            except OSError as error:
                self.fail(
                    f"{shown(below or os.path.basename(os.path.abspath(folder)))}: cannot be read "
                    f"({why_unread(error)}), {UNKNOWN}"
                )
                continue
            for entry in entries:
                name = os.path.join(below, entry.name)
                if entry.is_symlink():
                    self.fail(f"{shown(name)}: is a symbolic link, so what is loaded in its place is not known")
                    if entry.is_file():
                        self.links[name] = os.path.realpath(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    self.folders.add(name)
                    rest.append(name)
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry.path
                else:
                    self.fail(f"{shown(name)}: is neither a file nor a folder, {UNKNOWN}")

    def look(self, name: str, path: str, use: Use) -> None:
        """Hash a file, and say what loading it could do."""
        forced = use.pickled or use.skops or _suffix(name) in PICKLES

        def wanted(file: int) -> bool:
            if forced:
                return True
            head = os.pread(file, HEAD, 0)
            with os.fdopen(os.dup(file), "rb") as stream:
                return not is_plain(head, whole=os.fstat(file).st_size <= HEAD) or is_zip(stream)

        data = self.content(name, path, wanted)
        if data is not None:
            self.tell(name, content_problems(data, shown(name), self.rules, self.budget, use))

    def content(self, name: str, path: str, wanted: Callable[[int], bool]) -> bytes | None:
        """The bytes of a file, hashed; None where they are not wanted, or are too many, or cannot be read."""
        try:
            with opened(path) as file:
                size = os.fstat(file).st_size
                if not wanted(file):
                    self.hashes[name] = digest_of(file, path)
                    return None
                if size > LARGEST:
                    self.hashes[name] = digest_of(file, path)
                    self.fail(f"{shown(name)}: is larger than {LARGEST >> 30} GiB, {UNKNOWN}")
                    return None
                with os.fdopen(os.dup(file), "rb") as stream:
                    stream.seek(0)
                    data = stream.read(size + 1)
                if len(data) != size:
                    raise ChangedError(path)
        except OSError as error:
            self.fail(f"{shown(name)}: cannot be read ({why_unread(error)}), {UNKNOWN}")
            return None
        self.hashes[name] = hashlib.sha256(data).hexdigest()
        return data

    def tell(self, name: str, problems: Iterable[Problem]) -> None:
        """Keep the first problems of a file."""
        told = list(islice(_all_of(problems, name), _MOST_TOLD + 1))
        if len(told) > _MOST_TOLD:
            told[_MOST_TOLD] = Problem(f"{shown(name)}: more than these {_MOST_TOLD} things are wrong with it")
        self.problems += told


def _all_of(problems: Iterable[Problem], name: str) -> Iterator[Problem]:
    """Every problem; that the search for them failed is one itself."""
    try:
        yield from problems
    except Exception as error:  # noqa: BLE001 - a file that nobody foresaw must not end an audit, nor pass
        yield Problem(f"{shown(name)}: could not be looked into ({type(error).__name__}), {UNKNOWN}")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _always(_: int) -> bool:
    return True
