"""What files prove beyond their names: recomputed metrics, what loading a model would do, that it loads and scores.

Every value here was computed from a file whose SHA-256 stands beside it; `problem` says in words why there is none.
"""

from __future__ import annotations

import hashlib
import json
from collections import ChainMap
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

Value = TypeVar("Value")


@dataclass(frozen=True)
class Scored:
    """Metrics recomputed from a file of predictions at a threshold; `values` is empty where there is a `problem`."""

    path: str
    sha256: str = ""
    rows: int = 0
    threshold: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)
    """accuracy, precision, recall, f1, roc_auc, business_cost, tn, fp, fn, tp."""
    problem: str = ""
    """Why nothing could be computed from the file."""
    fault: str = ""
    """What the run itself says that cannot be true of the file: another hash, a threshold that is none."""


@dataclass(frozen=True)
class Scan:
    """What loading a model folder could do, told without loading it. No problems: nothing in it is unknown."""

    problems: tuple[str, ...] = ()
    """One a thing that is not known to be safe, naming the file: 'model.pkl: os.system would run on load'."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Path relative to the folder -> SHA-256 (hex) of every file in it, as it was when it was scanned."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Problem -> the name that would be imported, where that is what it is about."""
    allowable: frozenset[str] = frozenset()
    """Those of the names that the settings may allow."""
    whole: bool = True
    """Whether `hashes` has all that is in the folder: every file was read, and there are no links."""
    allowed: tuple[str, ...] = ()
    """What would be problems, had the settings not allowed this very folder."""

    @property
    def digest(self) -> str:
        """One hash for all files and their names, as the settings allow a model by it; '' where not all was read."""
        if not self.whole:
            return ""
        return f"sha256:{hashlib.sha256(json.dumps(sorted(self.hashes.items())).encode()).hexdigest()}"


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says about itself."""

    inputs: tuple[str, ...] = ()
    """Names of the columns in its signature; empty without one."""
    signed: bool = False
    """Whether its signature says inputs and outputs."""
    example: str = ""
    """Relative path of its input example, empty without one."""
    requirements: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    """Requirements that do not say one version."""
    flavors: tuple[str, ...] = ()
    problem: str = ""
    """Why part of it cannot be read, and is empty here for that."""


@dataclass(frozen=True)
class Probe:
    """What a model did in a process of its own: `problem` is empty where it loaded and scored its input example."""

    problem: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    """`get_params()` of the model, as text; empty where it has none."""
    features: tuple[str, ...] = ()
    """Feature names in the model itself (LightGBM's booster), in order."""
    example: tuple[float, ...] = ()
    """What it gave for its input example: probabilities where it is a classifier."""
    sampled: int = 0
    """Rows of the features at hand that were scored again."""
    worst: float = 0.0
    """The largest difference between a served and a recorded probability among them."""
    sample_problem: str = ""
    unconfined: tuple[str, ...] = ()
    """What that process could not be kept from on this machine."""
    sample_unread: str = ""
    """Why nothing was scored again though the settings name features: a file of it cannot be read, or is not named."""


@dataclass(frozen=True)
class RunEvidence:
    """What the files of a bundle prove, before it is logged."""

    card: ModelCard = ModelCard()
    probe: Probe | None = None
    scored: Scored | None = None


@dataclass(frozen=True)
class Bundle:
    """A production run as it was built beside the store, ready to be logged. Paths in `files` and `model_files` are
    relative.
    """

    folder: str
    """Holds `artifacts/` and `model/`."""
    files: tuple[tuple[str, int, str], ...] = ()
    """(path, size in bytes, SHA-256) of the run's artifacts."""
    model_files: tuple[tuple[str, int, str], ...] = ()
    """The same for the MLflow model."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """'model' and 'predictions' -> SHA-256 of the file that it was built from."""
    scan: Scan = Scan()
    evidence: RunEvidence = RunEvidence()
    origins: Mapping[str, tuple[str, int, str]] = field(default_factory=dict)
    """'model' and 'predictions' -> (path as the settings spell it, size in bytes, SHA-256)."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Name -> version of what wrote the model, and of Python."""
    example: str = ""
    """'recorded' or 'synthetic': where the rows of the input example come from."""
    commit: str = ""
    """The git commit of the folder that the settings lie in, empty where there is none."""


@dataclass(frozen=True)
class Source:
    """What the settings name for a product's production run: the built bundle, or the `problem` that stands against
    it.
    """

    bundle: Bundle | None = None
    problem: str = ""


@dataclass(frozen=True)
class Served:
    """What a tracking server gave when it was asked as the UI asks it."""

    problems: tuple[str, ...] = ()
    checked: int = 0
    """Answers that were compared with the store."""
    unasked: str = ""
    """Why no server was asked; then nothing is known of what one would give."""


class Unsigned(NamedTuple):
    """One way in which a model is not the one that was signed: a code that stays, and words that follow its name."""

    code: str
    text: str


@dataclass(frozen=True)
class Signed:
    """What the bundle at `path`, beside a model folder, says of its files. No problems: they are those that were
    signed.
    """

    path: str
    problems: tuple[Unsigned, ...] = ()
    unknown: str = ""
    """Why it could not be looked at; empty where it was."""


@dataclass(frozen=True)
class Metadata:
    """The model_metadata.json of a run: the document, or the `problem` with it."""

    document: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Digest:
    """What a file holds now: its SHA-256 (hex), or the `problem` that stood against reading it."""

    sha256: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Journalled:
    """What the journal of the repair that built a run says of its model_metadata.json; empty where there is no such
    journal here.
    """

    journal: str = ""
    sha256: str = ""
    tagged: bool = False
    """Whether it says that the hash was put on the run too: earlier versions did not."""


class Computed(Mapping[str, Value]):
    """A mapping whose values are computed when they are first looked up, and once: a session pays for what its
    rules ask.
    """

    def __init__(
        self,
        keys: Iterable[str] | Callable[[], Iterable[str]],
        compute: Callable[[str], Value],
        together: Callable[[Sequence[str]], Mapping[str, Value]] | None = None,
    ) -> None:
        """`together` may compute some of many keys for less, when all are asked for."""
        self._given = keys
        self._compute = compute
        self._together = together
        self._known: dict[str, Value] = {}

    @cached_property
    def _keys(self) -> dict[str, None]:
        return dict.fromkeys(self._given() if callable(self._given) else self._given)

    def __getitem__(self, key: str) -> Value:
        if key not in self._known:
            if key not in self._keys:
                raise KeyError(key)
            self._known[key] = self._compute(key)
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def items(self) -> ItemsView[str, Value]:
        if self._together:
            self._known.update(self._together([key for key in self._keys if key not in self._known]))
        return super().items()


@dataclass(frozen=True)
class Evidence:
    """Everything that can be computed from files for the rules that ask for it."""

    scans: Mapping[str, Scan] = field(default_factory=dict)
    """Model folder -> what loading it could do."""
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    """Model folder of a production run -> what it says about itself."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """Model folder of a production run -> what the model did. One that is not known to be safe was not loaded, and
    says so.
    """
    scored: Mapping[str, Scored] = field(default_factory=dict)
    """Production run id -> its metrics, recomputed. A run is missing here where no predictions are recorded or
    named.
    """
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    """Production run id -> its model_metadata.json. A run is missing here where it has none."""
    served: Mapping[str, Served] = field(default_factory=dict)
    """Production run id -> what a tracking server gave."""
    digests: Mapping[str, Digest] = field(default_factory=dict)
    """Path of a file of a production run or of its model -> what it holds."""
    journalled: Mapping[str, Journalled] = field(default_factory=dict)
    """Production run id -> what a journal says of it, for the runs that name one."""
    signatures: Mapping[str, Signed] = field(default_factory=dict)
    """Model folder -> what its bundle says. Empty where no key is named."""
    judged_by: str = ""
    """Fingerprint of the key that bundles are held to; empty where none is named."""
    signed_by: str = ""
    """Fingerprint of the key that `--fix` signs with; empty where none is named."""

    def with_signature(self, folder: str, signed: Signed) -> Evidence:
        """As this, with another bundle beside a model folder."""
        return replace(self, signatures=ChainMap({folder: signed}, _writable(self.signatures)))

    def with_run(
        self, run_id: str, folder: str, bundle: Bundle, document: Mapping[str, Any], digests: Mapping[str, Digest]
    ) -> Evidence:
        """As this, with what is known beforehand of a run that is going to be logged from a bundle."""
        proved, begin = bundle.evidence, f"{folder}/"
        # MLmodel is written anew with the ids.
        hashes = {path.removeprefix(begin): found.sha256 for path, found in digests.items() if path.startswith(begin)}
        return replace(
            self,
            scans=ChainMap({folder: replace(bundle.scan, hashes=hashes)}, _writable(self.scans)),
            cards=ChainMap({folder: proved.card}, _writable(self.cards)),
            probes=ChainMap({folder: proved.probe} if proved.probe else {}, _writable(self.probes)),
            scored=ChainMap({run_id: proved.scored} if proved.scored else {}, _writable(self.scored)),
            metadata=ChainMap({run_id: Metadata(document)}, _writable(self.metadata)),
            served=ChainMap({run_id: Served()}, _writable(self.served)),
            digests=ChainMap(dict(digests), _writable(self.digests)),
        )


def _writable(mapping: Mapping[str, Value]) -> MutableMapping[str, Value]:
    """As ChainMap's type wants it; only its first map is ever written to, and that one is new."""
    return cast("MutableMapping[str, Value]", mapping)
