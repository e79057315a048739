from __future__ import annotations

import gzip
import hashlib
import io
import json
import marshal
import os
import pickle
import pickletools
import socket
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.snapshot.evidence import Scan
from mlflow_compliance.store.models.pickle_scan import UnreadableError, walk
from mlflow_compliance.store.models.scan import scan_file, scan_model

STORES = Path(__file__).parents[4] / "shared" / "data" / "stores"
STRICT = ModelSettings()
UNREADABLE = "cannot be read as a pickle, so what it does is not known"


def allow(*names: str) -> ModelSettings:
    return ModelSettings(allowed_globals=names)


def problems_of(folder: Path, data: bytes, rules: ModelSettings = STRICT, name: str = "model.pkl") -> tuple[str, ...]:
    path = folder / name
    path.write_bytes(data)
    return scan_file(str(path), rules).problems


# ---- pickles by hand
# ----------------------------------------------------------------------------------------------------

PROTO4, REDUCE, STOP, POP, STACK_GLOBAL, MEMOIZE, BUILD, NEWOBJ, TUPLE2 = (
    b"\x80\x04",
    b"R",
    b".",
    b"0",
    b"\x93",
    b"\x94",
    b"b",
    b"\x81",
    b"\x86",
)


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def name(dotted: str) -> bytes:
    """GLOBAL, as protocols 0 to 3 import."""
    return f"c{dotted.rpartition('.')[0]}\n{dotted.rpartition('.')[2]}\n".encode()


def stacked(module: str, attribute: str) -> bytes:
    """STACK_GLOBAL, as protocols from 4 on import."""
    return text(module) + text(attribute) + STACK_GLOBAL


def call(what: bytes, *arguments: bytes) -> bytes:
    return what + b"(" + b"".join(arguments) + b"t" + REDUCE


def mapping(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def touching(marker: str) -> str:
    return f"open({marker!r}, 'w')"


def command(marker: str) -> bytes:
    return text(f"touch {marker}")


IMPORTED = call(name("importlib.import_module"), text("os"))
ENCODER = name("sklearn.preprocessing._label.LabelEncoder") + b")" + NEWOBJ
BOOSTER = name("lightgbm.basic.Booster")

OBJECTS = call(name("numpy.dtype"), text("O8"))


def forged(parts: bytes, flags: bytes = b"") -> bytes:
    """A dtype of eight bytes with a state of the file's choice: base, names, fields, and flags that say 'no
    objects'.
    """
    return (
        PROTO4
        + call(name("numpy.dtype"), text("V8"))
        + b"(K\x03"
        + text("|")
        + parts
        + b"K\x08K\x01"
        + flags
        + b"t"
        + BUILD
        + STOP
    )


GLOBALS = mapping(__builtins__=name("builtins.__dict__"))

# Each makes a file `marker` where it is loaded with pickle; beside it what the scan says.
WORKING: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "os.system": ("os.system would run", lambda marker: call(name("os.system"), command(marker)) + STOP),
    "posix.system": (
        "posix.system would run",
        lambda marker: PROTO4 + call(stacked("posix", "system"), command(marker)) + STOP,
    ),
    "eval": ("builtins.eval would run", lambda marker: call(name("builtins.eval"), text(touching(marker))) + STOP),
    "exec": (
        "builtins.exec would run",
        lambda marker: PROTO4 + call(stacked("builtins", "exec"), text(touching(marker))) + STOP,
    ),
    "eval of Python 2": (
        "builtins.eval would run",
        lambda marker: b"\x80\x02" + call(name("__builtin__.eval"), text(touching(marker))) + STOP,
    ),
    "a module of Python 2": (
        "subprocess.getoutput",
        lambda marker: b"\x80\x02" + call(name("commands.getoutput"), command(marker)) + STOP,
    ),
    "protocol 0": ("os.system would run", lambda marker: f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()),
    "import_module and getattr_static": (
        "inspect.getattr_static would run",
        lambda marker: call(call(name("inspect.getattr_static"), IMPORTED, text("system")), command(marker)) + STOP,
    ),
    "marshal and FunctionType": (
        "marshal.loads would run",
        lambda marker: (
            call(
                call(
                    name("types.FunctionType"),
                    call(name("marshal.loads"), raw(marshal.dumps(compile(touching(marker), "", "eval")))),
                    GLOBALS,
                ),
            )
            + STOP
        ),
    ),
    "pydoc.locate": (
        "pydoc.locate would run",
        lambda marker: call(call(name("pydoc.locate"), text("os.system")), command(marker)) + STOP,
    ),
    "pkgutil.resolve_name": (
        "pkgutil.resolve_name would run",
        lambda marker: call(call(name("pkgutil.resolve_name"), text("os:system")), command(marker)) + STOP,
    ),
    "operator.methodcaller": (
        "operator.methodcaller would run",
        lambda marker: call(call(name("operator.methodcaller"), text("system"), command(marker)), IMPORTED) + STOP,
    ),
    "functools.partial": (
        "functools.partial would run",
        lambda marker: call(call(name("functools.partial"), name("os.system"), command(marker))) + STOP,
    ),
    "io.open": ("io.open would run", lambda marker: call(name("io.open"), text(marker), text("w")) + STOP),
    "codecs.open": ("codecs.open would run", lambda marker: call(name("codecs.open"), text(marker), text("w")) + STOP),
    "builtins of a module": (
        "numpy.__builtins__.get would run",
        lambda marker: (
            PROTO4 + call(call(stacked("numpy", "__builtins__.get"), text("eval")), text(touching(marker))) + STOP
        ),
    ),
    "a dotted name": (
        "tempfile._os.system would run",
        lambda marker: PROTO4 + call(stacked("tempfile", "_os.system"), command(marker)) + STOP,
    ),
    "_reconstructor": (
        "subprocess.Popen would run",
        lambda marker: (
            call(
                name("copyreg._reconstructor"),
                name("subprocess.Popen"),
                name("subprocess.Popen"),
                b"](" + text("touch") + text(marker) + b"e",
            )
            + STOP
        ),
    ),
    "INST": ("os.system would run", lambda marker: b"(" + command(marker) + b"ios\nsystem\n."),
    "OBJ": ("os.system would run", lambda marker: b"(" + name("os.system") + command(marker) + b"o."),
    "a name from the memo": (
        "os.system would run",
        lambda marker: (
            PROTO4
            + text("os")
            + MEMOIZE
            + POP
            + text("system")
            + b"q\x07"
            + POP
            + call(b"h\x00h\x07" + STACK_GLOBAL, command(marker))
            + STOP
        ),
    ),
    "a memo that is overwritten": (
        "os.system would run",
        lambda marker: (
            PROTO4
            + text("collections")
            + b"q\x000"
            + text("os")
            + b"q\x000"
            + call(b"h\x00" + text("system") + STACK_GLOBAL, command(marker))
            + STOP
        ),
    ),
    "harmless names above": (
        "os.system would run",
        lambda marker: (
            PROTO4
            + call(
                text("os") + text("system") + text("collections") + text("OrderedDict") + POP + POP + STACK_GLOBAL,
                command(marker),
            )
            + STOP
        ),
    ),
    "harmless names behind a mark": (
        "os.system would run",
        lambda marker: (
            PROTO4
            + call(
                text("os") + text("system") + b"(" + text("collections") + text("OrderedDict") + b"1" + STACK_GLOBAL,
                command(marker),
            )
            + STOP
        ),
    ),
    "a frame between the names": (
        "os.system would run",
        lambda marker: (
            PROTO4 + call(text("os") + b"\x95" + bytes(8) + text("system") + STACK_GLOBAL, command(marker)) + STOP
        ),
    ),
    "a name that is decoded": (
        "makes up a name",
        lambda marker: (
            PROTO4
            + call(
                call(stacked("_codecs", "encode"), text("bf"), text("rot13")) + text("system") + STACK_GLOBAL,
                command(marker),
            )
            + STOP
        ),
    ),
    "a late PROTO": (
        "subprocess.getoutput",
        lambda marker: PROTO4 + b"N0\x80\x00" + call(name("commands.getoutput"), command(marker)) + STOP,
    ),
    "truncated": (UNREADABLE, lambda marker: call(name("os.system"), command(marker))),
    "garbage behind": (UNREADABLE, lambda marker: call(name("os.system"), command(marker)) + STOP + b"\xff\xff"),
}

# These run nothing in plain pickle.loads, or nothing that a test could see, and must be told all the same.
OTHERS: dict[str, tuple[str, bytes]] = {
    "a second pickle": ("more follows after its end", pickle.dumps(1) + call(name("os.system"), text("true")) + STOP),
    "a persistent id": ("asks whoever loads it", PROTO4 + b"Nq\x00Q."),
    "a persistent id in text": ("asks whoever loads it", b"Pos.system\n."),
    "an extension code": ("asks whoever loads it", b"\x80\x02\x82\x01."),
    "a buffer from outside": ("asks whoever loads it", b"\x80\x05\x97."),
    "gzip": ("model.pkl: unpacked: posix.system would run", gzip.compress(b"cposix\nsystem\n(Vtrue\ntR.")),
    "gzip that is cut off": ("is compressed and cut off, so", gzip.compress(pickle.dumps(1))[:-9]),
    "gzip that is damaged": ("is compressed and damaged, so", gzip.compress(pickle.dumps(1))[:-9] + bytes(9)),
    "a pickle that joblib would unpack": ("is compressed", b"BZh9" + bytes(20)),
    "text": (UNREADABLE, b"no pickle at all"),
    "nothing": (UNREADABLE, b""),
    "two values at the end": (UNREADABLE, b"NN."),
    "the stack runs dry": (UNREADABLE, b"R."),
    "a mark taken for a value": (UNREADABLE, PROTO4 + text("os") + b"(" + STACK_GLOBAL + STOP),
    "a mark in a tuple": (UNREADABLE, b"(\x85."),
    "names that one reader loses": (
        "hides what it imports from one of two readers",
        PROTO4 + text("collections") + b"N0" + text("OrderedDict") + STACK_GLOBAL + STOP,
    ),
    "an estimator made with arguments": (
        "calls sklearn.preprocessing._label.LabelEncoder with arguments of its own",
        name("sklearn.preprocessing._label.LabelEncoder") + b"N\x85" + NEWOBJ + STOP,
    ),
    "a memo of nothing": (UNREADABLE, b"h\x00."),
    "a mark that was never set": (UNREADABLE, b"t."),
    "a name with an escape": (UNREADABLE, b"ccollections\nOrdered\\x44ict\n."),
    "too many names": (UNREADABLE, b"".join(name(f"m.n{number}") + POP for number in range(1001)) + b"N."),
    "too many steps": (UNREADABLE, PROTO4 + b"N0" * 1_000_001 + b"N."),
    "a Booster that opens a file": (
        "calls lightgbm.basic.Booster with arguments of its own",
        call(BOOSTER, b"N", b"N", text("/etc/passwd")) + STOP,
    ),
    "a class that is changed": (
        "changes something that it did not make",
        BOOSTER + mapping(predict=name("collections.OrderedDict")) + BUILD + STOP,
    ),
    "another __setstate__": (
        "attributes that have a meaning to Python",
        PROTO4 + ENCODER + mapping(__setstate__=name("builtins.bytearray")) + BUILD + STOP,
    ),
    "a state that is set twice": (
        "sets the state of an object twice",
        PROTO4 + ENCODER + mapping() + BUILD + mapping() + BUILD + STOP,
    ),
    "an object of another class": (
        "sets the state of an object as no pickler does",
        PROTO4
        + name("sklearn._loss.link.LogitLink")
        + b")"
        + NEWOBJ
        + b"N"
        + mapping(__class__=BOOSTER)
        + TUPLE2
        + BUILD
        + STOP,
    ),
    "a state that is another object": (
        "sets the state of an object as no pickler does",
        PROTO4 + ENCODER + ENCODER + BUILD + STOP,
    ),
    "an array at an address": (
        "attributes that have a meaning to Python",
        PROTO4 + ENCODER + mapping(__array_interface__=mapping(version=b"K\x03")) + BUILD + STOP,
    ),
    "an address in a Bunch": (
        "attributes that have a meaning to Python",
        PROTO4 + name("sklearn.utils._bunch.Bunch") + b")" + NEWOBJ + text("__array_interface__") + b"}s" + STOP,
    ),
    "items for an estimator": (
        "puts items into sklearn.preprocessing._label.LabelEncoder",
        PROTO4 + ENCODER + b"Na" + STOP,
    ),
    "a call of what was made": ("calls an object that it made itself", PROTO4 + call(ENCODER) + STOP),
    "bytes taken for objects": (
        "a numpy.dtype that may lie",
        forged(b"N(" + text("a") + b"t}" + text("a") + b"(" + OBJECTS + b"K\x00ts", b"K\x00"),
    ),
    "bytes taken for rows of objects": ("a numpy.dtype that may lie", forged(b"(" + OBJECTS + b"K\x01tNN", b"K\x00")),
    "a type with a state of old": ("a numpy.dtype that may lie", forged(b"NNN")),
    "a type whose fields are no dict": ("a numpy.dtype that may lie", forged(b"NN]", b"K\x00")),
    "items after a state": (
        "puts items into something that is no container",
        PROTO4 + call(name("collections.OrderedDict")) + mapping(extend=name("builtins.set")) + BUILD + b"Na" + STOP,
    ),
    "items for a class": ("puts items into something that is no container", PROTO4 + BOOSTER + b"Na" + STOP),
}


@pytest.mark.parametrize("case", WORKING)
def test_a_hostile_pickle_is_told_and_not_run(case: str, tmp_path: Path) -> None:
    expected, made = WORKING[case]
    marker = tmp_path / "marker"
    problems = problems_of(tmp_path, made(str(marker)))
    assert any(problem.startswith("model.pkl: ") and expected in problem for problem in problems), problems
    assert not marker.exists()


def test_these_pickles_do_what_they_threaten(tmp_path: Path) -> None:
    """The control: loaded for real, each of them makes its file."""
    pytest.importorskip("numpy")
    for case, (_, made) in WORKING.items():
        (tmp_path / f"{case}.pkl").write_bytes(made(str(tmp_path / case.replace(" ", "_"))))
    code = (
        "import contextlib, pathlib, pickle, sys, time\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.pkl'):\n"
        "    with contextlib.suppress(Exception):\n"
        "        made = pickle.loads(path.read_bytes())\n"
        "        getattr(made, 'wait', bool)()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    assert [case for case in WORKING if not (tmp_path / case.replace(" ", "_")).exists()] == []


@pytest.mark.parametrize("case", OTHERS)
def test_what_no_pickler_writes_is_told(case: str, tmp_path: Path) -> None:
    expected, data = OTHERS[case]
    problems = problems_of(tmp_path, data)
    assert any(problem.startswith("model.pkl: ") and expected in problem for problem in problems), problems


def test_a_frame_may_begin_between_the_two_halves_of_a_name(tmp_path: Path) -> None:
    """As the C pickler writes it now and then in a large model."""
    assert (
        problems_of(
            tmp_path,
            PROTO4 + text("collections") + b"\x95" + struct.pack("<Q", 30) + text("OrderedDict") + STACK_GLOBAL + STOP,
        )
        == ()
    )


def test_the_bulk_of_a_pickle_is_not_kept() -> None:
    data = pickle.dumps(["x" * 1_000_000, b"y" * 1_000_000, 1 << 100_000])
    assert len(walk(data).condensed) < 100


def test_a_pickle_that_names_everything_is_told_in_a_few_lines(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path, b"".join(name(f"m.n{number}") + POP for number in range(500)) + name("os.system") + STOP
    )
    assert len(problems) == 21
    assert problems[0].startswith("model.pkl: os.system would run")  # the worst comes first
    assert problems[-1] == "model.pkl: more than these 20 things are wrong with it"


def test_what_a_file_says_stays_in_one_line(tmp_path: Path) -> None:
    (told,) = problems_of(tmp_path, PROTO4 + stacked("evil\x1b[31m\n", "x" * 900) + STOP, name="a\nb.pkl")
    assert told.isprintable()
    assert len(told) < 400


def test_a_setting_allows_one_name_and_no_other(tmp_path: Path) -> None:
    both = (
        PROTO4
        + call(stacked("fractions", "Fraction"), b"K\x01")
        + POP
        + call(stacked("decimal", "Decimal"), b"K\x01")
        + STOP
    )
    (told,) = problems_of(tmp_path, both, allow("fractions.Fraction"))
    assert told.startswith("model.pkl: decimal.Decimal would run on load: name it in allowed_globals under [models]")
    assert problems_of(tmp_path, both, allow("fractions.Fraction", "decimal.Decimal")) == ()
    assert (
        len(
            problems_of(
                tmp_path,
                both,
                allow("fractions", "fractions.*", "Fraction", "decimal.DecimalTuple", "fractions.Fractio"),
            )
        )
        == 2
    )


def test_an_allowed_container_may_hold_anything(tmp_path: Path) -> None:
    for value in (deque([1, "__class__"]), Counter([1, 1])):
        assert problems_of(tmp_path, pickle.dumps(value), allow("collections.deque", "collections.Counter")) == ()


@pytest.mark.parametrize("dangerous", ["os.system", "builtins.eval", "subprocess.Popen", "functools.partial"])
def test_no_setting_allows_what_is_known_to_be_dangerous(dangerous: str, tmp_path: Path) -> None:
    (told,) = problems_of(tmp_path, name(dangerous) + STOP, allow(dangerous))
    assert told.startswith(f"model.pkl: {dangerous} would run on load, and is known to run")


def test_a_setting_does_not_reach_through_an_attribute(tmp_path: Path) -> None:
    """'decimal.Decimal.from_float' could be an attribute of a class, or a module `decimal.Decimal`: what was meant
    is not known.
    """
    assert problems_of(
        tmp_path, PROTO4 + stacked("decimal", "Decimal.from_float") + STOP, allow("decimal.Decimal.from_float")
    )


def test_a_dict_that_is_the_state_of_many_objects_is_looked_at_once(tmp_path: Path) -> None:
    """Twenty thousand objects times twenty thousand keys would take minutes."""
    state = b"}q\x00(" + b"".join(text(f"key{number}") + b"N" for number in range(20_000)) + b"u0"
    objects = (ENCODER + b"h\x00" + BUILD + POP) * 20_000
    assert problems_of(tmp_path, PROTO4 + state + objects + b"N.") == ()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.binary(max_size=40).map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4).map(OrderedDict)
        | st.sets(st.integers(), max_size=4)
        | st.frozensets(st.binary(max_size=4), max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL), st.booleans())
@example(b"PK\x05\x06" + b"\xff" * 18, 5, False)  # as an archive ends
@example(b"\x93NUMPY", 5, True)
def test_plain_data_is_harmless_in_every_protocol(
    tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int, shared: bool
) -> None:
    data = pickle.dumps([value, value] if shared else value, protocol)
    folder = tmp_path_factory.getbasetemp()
    assert problems_of(folder, data) == ()
    assert problems_of(folder, pickletools.optimize(data)) == ()


NOISE = st.lists(
    st.sampled_from(
        [
            b"N0",
            b"(0",
            b"K\x072" + POP + POP,
            b"(N1",
            b"]q\x150",
            text("os") + b"q\x160",
            text("system") + b"r\x00\x01\x00\x000",
            b"\x80\x04",
            b"(t0",
        ]
    ),
    max_size=5,
).map(b"".join)
NAMES = st.sampled_from(
    [
        *[
            ("collections", "OrderedDict"),
            ("builtins", "set"),
            ("numpy", "dtype"),
            ("lightgbm.sklearn", "LGBMClassifier"),
            ("sklearn.pipeline", "Pipeline"),
        ],
        *[
            ("os", "system"),
            ("collections", "namedtuple"),
            ("builtins", "getattr"),
            ("numpy", "load"),
            ("sklearn.pipeline", "make_pipeline"),
        ],
        *[
            ("Collections", "OrderedDict"),
            ("collections ", "OrderedDict"),
            ("collections", "OrderedDict.fromkeys"),
            ("builtins", "Set"),
            ("", "set"),
        ],
    ]
)


@settings(max_examples=60, deadline=None)
@given(NAMES, st.sampled_from(["GLOBAL", "STACK_GLOBAL", "memo"]), NOISE, NOISE)
def test_a_name_is_told_exactly_where_it_is_not_known(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, str], way: str, before: bytes, after: bytes
) -> None:
    module, attribute = pair
    found = {
        "GLOBAL": f"c{module}\n{attribute}\n".encode(),
        "STACK_GLOBAL": stacked(module, attribute),
        "memo": text(attribute) + b"q\x20" + POP + text(module) + b"q\x21" + b"h\x20" + STACK_GLOBAL,
    }[way]
    problems = problems_of(tmp_path_factory.getbasetemp(), PROTO4 + before + found + after + STOP)
    known = pair in {
        ("collections", "OrderedDict"),
        ("builtins", "set"),
        ("numpy", "dtype"),
        ("lightgbm.sklearn", "LGBMClassifier"),
    }
    assert bool(problems) != (known or pair == ("sklearn.pipeline", "Pipeline")), problems


class Recorder(pickle.Unpickler):
    """A real unpickler that imports nothing: each name gives a class that writes down what is done to it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.found: set[tuple[str, str]] = set()
        self.called: set[tuple[str, str]] = set()
        self.states: set[tuple[str, str]] = set()
        self.filled: set[tuple[str, str]] = set()

    def find_class(self, module: str, attribute: str) -> Any:
        pair, recorder = (module, attribute), self
        recorder.found.add(pair)

        class Stand:
            def __new__(cls, *arguments: Any) -> Any:
                return super().__new__(cls)

            def __init__(self, *arguments: Any) -> None:
                recorder.called.add(pair)

            def __setstate__(self, state: Any) -> None:
                recorder.states.add(pair)

            def append(self, item: Any) -> None:
                recorder.filled.add(pair)

            def __setitem__(self, key: Any, value: Any) -> None:
                recorder.filled.add(pair)

            extend = add = append

        return Stand


STEPS = st.sampled_from(
    [
        *[
            text("a"),
            text("b"),
            b"\x8c\x01c",
            b"Vd\n",
            b"U\x01e",
            b"S'f'\n",
            b"cm\nn\n",
            b"(im\no\n",
            STACK_GLOBAL,
            STACK_GLOBAL,
            text("g") + text("h") + STACK_GLOBAL,
        ],
        *[
            REDUCE,
            b"(o",
            b")R",
            b")" + NEWOBJ,
            NEWOBJ,
            b"}" + BUILD,
            BUILD,
            b"a",
            b"e",
            b"s",
            b"u",
            b"\x90",
            b"\x91",
            b"l",
            b"d",
            b"o",
            b"}\x92",
        ],
        *[b"(", b"(", b"t", b"1", POP, b"2", b")", b"]", b"}", b"\x8f", b"N", b"K\x01", b"\x85", TUPLE2, b"\x87"],
        *[
            MEMOIZE,
            MEMOIZE,
            b"q\x00",
            b"q\x01",
            b"r\x02\x00\x00\x00",
            b"p3\n",
            b"h\x00",
            b"h\x01",
            b"j\x02\x00\x00\x00",
            b"g3\n",
            PROTO4,
        ],
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=40).map(b"".join))
def test_a_walk_misses_nothing_that_an_unpickler_does(steps: bytes) -> None:
    data = b"\x80\x04" + steps + STOP
    real = Recorder(data)
    loaded = True
    try:
        real.load()
    except Exception:  # noqa: BLE001 - most of these streams are no pickles
        loaded = False
    try:
        seen = walk(data)
    except UnreadableError:
        return  # told as a problem
    assert real.found <= seen.imported
    assert real.called <= seen.called
    assert seen.tricks or real.states <= {made.source for made, _ in seen.states}
    assert seen.tricks or real.filled <= {made.source for made, _ in seen.fills}
    assert not loaded or real.found == seen.imported


# ---- models as MLflow writes them
# ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a kind of model, each written by MLflow."""
    import lightgbm
    import mlflow.lightgbm
    import mlflow.pyfunc
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    folder = tmp_path_factory.mktemp("models")
    frame = pd.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) % 7, "c": ["x", "y", "z"] * 20})
    target = (frame["b"] > 3).map({True: "bad", False: "good"})
    numbers = frame[["a", "b"]]
    classifier = lightgbm.LGBMClassifier(
        n_estimators=3, min_child_samples=2, verbose=-1, random_state=np.random.RandomState(1)
    )
    classifier.fit(numbers, target, eval_set=[(numbers, target)])
    columns = ColumnTransformer(
        [("n", make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]), ("c", OneHotEncoder(), ["c"])]
    )
    forest = Pipeline([("columns", columns), ("model", RandomForestClassifier(3))]).fit(frame, target)
    pinned = {"pip_requirements": ["mlflow"]}
    for way in ("skops", "cloudpickle", "pickle"):
        mlflow.lightgbm.save_model(classifier, str(folder / f"lightgbm {way}"), serialization_format=way, **pinned)
        trusted = ["sklearn.tree._tree.Tree", "numpy.dtype"] if way == "skops" else None
        mlflow.sklearn.save_model(
            forest, str(folder / f"forest {way}"), serialization_format=way, skops_trusted_types=trusted, **pinned
        )
    mlflow.lightgbm.save_model(classifier.booster_, str(folder / "booster"), input_example=numbers[:2], **pinned)
    mlflow.sklearn.save_model(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, target), str(folder / "linear"), **pinned
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its type hints

        class Own(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
            def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
                return model_input

        mlflow.pyfunc.save_model(str(folder / "own"), python_model=Own(), **pinned)
    (folder / "script.py").write_text("import mlflow\nmlflow.models.set_model(lambda model_input: model_input)\n")
    (folder / "help.py").write_text("")
    mlflow.pyfunc.save_model(
        str(folder / "script"), python_model=str(folder / "script.py"), code_paths=[str(folder / "help.py")], **pinned
    )
    return folder


CLEAN = [
    "booster",
    "forest cloudpickle",
    "forest pickle",
    "forest skops",
    "lightgbm cloudpickle",
    "lightgbm pickle",
    "lightgbm skops",
    "linear",
]


@pytest.mark.parametrize("kind", CLEAN)
def test_what_mlflow_writes_of_known_libraries_is_harmless(kind: str, models: Path) -> None:
    folder = models / kind
    assert scan_model(str(folder), STRICT) == Scan((), {path.name: digest(path) for path in folder.iterdir()})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_python_model_brings_code_in_its_pickle(models: Path) -> None:
    problems = scan_model(str(models / "own"), STRICT).problems
    assert all(problem.startswith("python_model.pkl: ") for problem in problems)
    assert any(
        "cloudpickle.cloudpickle._make_function would run on load, and is known to run" in problem
        for problem in problems
    )


def test_a_model_from_code_brings_files(models: Path) -> None:
    (told,) = scan_model(str(models / "script"), STRICT).problems
    assert told == (
        "code/help.py: brings code of its own (2 files), which runs on load: set allow_code under [models] if "
        "you know that it is harmless"
    )
    assert scan_model(str(models / "script"), ModelSettings(allow_code=True)).problems == ()


def test_every_file_of_a_folder_is_hashed(models: Path) -> None:
    folder = models / "script"
    files = {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*") if path.is_file()}
    assert scan_model(str(folder), STRICT).hashes == files


def test_a_file_by_itself(models: Path) -> None:
    for kind, file in (("lightgbm pickle", "model.pkl"), ("lightgbm skops", "model.skops")):
        path = models / kind / file
        assert scan_file(str(path), STRICT) == Scan((), {file: digest(path)})
    assert "is no skops file" in " ".join(problems_of(models, b"x", name="a.skops"))
    (told,) = scan_file(str(models / "none.pkl"), STRICT).problems
    assert told.startswith("none.pkl: cannot be read (no such file or directory)")


# ---- hostile folders
# ----------------------------------------------------------------------------------------------------

SKLEARN = "  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle}\n"
PYFUNC = "  python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}\n"
EVIL = call(name("os.system"), text("true")) + STOP


def folder_of(place: Path, document: str, **files: bytes) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "MLmodel").write_text(document)
    for file, content in {"model.pkl": pickle.dumps(1), **files}.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)
    return place


FINE = "flavors:\n" + SKLEARN + PYFUNC
DOCUMENTS: dict[str, tuple[str, str]] = {
    "a loader of its own": (
        "MLmodel: os is not known to load data only: name it in loaders",
        FINE.replace("mlflow.sklearn", "os"),
    ),
    "a loader that is lists of lists": (
        "MLmodel: cannot be read as an MLmodel",
        "a0: &a0 [x]\n"
        + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
        + "flavors: {python_function: {loader_module: *a59}}",
    ),
    "no loader": ("MLmodel: loader_module is not known", "flavors: {python_function: {data: model.pkl}}"),
    "a loader that is no text": (
        "MLmodel: loader_module is not known",
        "flavors: {python_function: {loader_module: [os]}}",
    ),
    "a loader that looks like one": (
        "mlflow.sklearn.evil is not known",
        FINE.replace("mlflow.sklearn", "mlflow.sklearn.evil"),
    ),
    "a flavor of its own": (
        "MLmodel: the flavor keras is not known to load data only: name mlflow.keras in loaders",
        FINE + "  keras: {data: data}\n",
    ),
    "data above": (
        "MLmodel: ../model.pkl leads out of the folder",
        FINE.replace("model_path: model.pkl", "model_path: ../model.pkl"),
    ),
    "data elsewhere": (
        "MLmodel: /tmp/model.pkl leads out of the folder",
        FINE.replace("pickled_model: model.pkl", "pickled_model: /tmp/model.pkl"),
    ),
    "data that comes back": (
        "MLmodel: a/../../b/model.pkl leads out",
        FINE.replace("model_path: model.pkl", "model_path: a/../../b/model.pkl"),
    ),
    "an artifact elsewhere": (
        "../a leads out",
        "flavors: {python_function: {loader_module: mlflow.pyfunc.model, artifacts: {x: {path: ../a}}}}",
    ),
    "an example elsewhere": (
        "/etc/passwd leads out",
        FINE + "saved_input_example_info: {artifact_path: /etc/passwd}\n",
    ),
    "data in a subfolder": (
        "sub/model.pkl is not a file in the folder itself",
        FINE.replace("model_path: model.pkl", "data: sub/model.pkl"),
    ),
    "the folder as data": (". is not a file in the folder itself", FINE.replace("model_path: model.pkl", "data: .")),
    "a class for XGBoost": (
        "posix.system would run on load, and is known",
        "flavors: {xgboost: {data: x, model_class: posix.system}}",
    ),
    "another class for XGBoost": (
        "xgboost.core.DMatrix would run on load",
        "flavors: {xgboost: {data: x, model_class: xgboost.core.DMatrix}}",
    ),
    "no class for XGBoost": ("model_class would run on load", "flavors: {xgboost: {data: x, model_class: [1]}}"),
    "libraries for ONNX": (
        "gives options to ONNX Runtime",
        "flavors: {onnx: {data: x, providers: [[TensorrtExecutionProvider, {a: b}]]}}",
    ),
    "settings for ONNX": (
        "gives options to ONNX Runtime",
        "flavors: {onnx: {data: x, onnx_session_options: {extra_session_config: {a: b}}}}",
    ),
    "trusted types": (
        "MLmodel: has skops trust posix.system, which would run on load, and is known",
        FINE[:-2] + ", skops_trusted_types: [posix.system]}\n",
    ),
    "a trusted type": ("has skops trust functools.partial", FINE[:-2] + ", skops_trusted_types: functools.partial}\n"),
    "trust in no names": ("skops_trusted_types is no list of names", FINE[:-2] + ", skops_trusted_types: [{a: b}]}\n"),
    "no flavors": ("MLmodel: describes no flavors", "a: 1\n"),
    "flavors that are none": ("MLmodel: describes no flavors", "flavors: {sklearn: [1]}\n"),
    "no YAML": ("MLmodel: cannot be read as an MLmodel", "flavors: [\n"),
    "a Python object": ("MLmodel: cannot be read as an MLmodel", "flavors: !!python/object/apply:os.system [true]\n"),
    "a wrong tag": ("MLmodel: cannot be read as an MLmodel", "flavors: !!bool x\n"),
    "brackets": ("MLmodel: cannot be read as an MLmodel", "flavors: " + "[" * 100_000),
    "merges of merges": (
        "MLmodel: cannot be read as an MLmodel",
        "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)) + FINE,
    ),
    "too much": ("MLmodel: cannot be read as an MLmodel", FINE + "#" * (1 << 20)),
    "too many parts": ("MLmodel: cannot be read as an MLmodel", FINE + "more:\n" + "- a\n" * 100_000),
    "nothing": ("MLmodel: cannot be read as an MLmodel", ""),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_hostile_mlmodel_is_told(case: str, tmp_path: Path) -> None:
    expected, document = DOCUMENTS[case]
    problems = scan_model(str(folder_of(tmp_path / "model", document)), STRICT).problems
    assert any(expected in problem for problem in problems), problems


def test_that_mlmodel_is_fine_without_the_hostile_part(tmp_path: Path) -> None:
    assert scan_model(str(folder_of(tmp_path / "model", FINE)), STRICT).problems == ()


@pytest.mark.parametrize(
    ("flavors", "file"),
    [
        ("sklearn: {pickled_model: x.dat}", "x.dat"),
        ("sklearn: {pickled_model: x.dat, serialization_format: other}", "x.dat"),
        ("lightgbm: {data: x.dat, model_class: lightgbm.sklearn.LGBMClassifier}", "x.dat"),
        ("statsmodels: {data: x.dat}", "x.dat"),
        ("python_function: {loader_module: mlflow.sklearn, data: x.dat}", "x.dat"),
        ("python_function: {loader_module: mlflow.pyfunc.model, python_model: deep/x.dat}", "deep/x.dat"),
        (
            (
                "lightgbm: {data: x, model_class: lightgbm.sklearn.LGBMClassifier}, python_function: {loader_module: "
                "mlflow.lightgbm, data: x.dat}"
            ),
            "x.dat",
        ),
    ],
)
def test_what_an_mlmodel_has_unpickled_is_looked_at_whatever_its_name(flavors: str, file: str, tmp_path: Path) -> None:
    """In protocol 0, so that nothing in the file says that it is a pickle."""
    folder = folder_of(tmp_path / "model", f"flavors: {{{flavors}}}", **{file: EVIL})
    assert any(
        problem.startswith(f"{file}: os.system would run") for problem in scan_model(str(folder), STRICT).problems
    )


def test_a_native_booster_is_no_pickle(tmp_path: Path) -> None:
    native = (
        "flavors: {lightgbm: {data: model.lgb}, python_function: {loader_module: mlflow.lightgbm, data: model.lgb}}"
    )
    folder = folder_of(tmp_path / "model", native, **{"model.lgb": b"tree\nversion=v4\n"})
    assert scan_model(str(folder), STRICT).problems == ()
    (folder / "model.lgb").write_bytes(PROTO4 + call(stacked("os", "system"), text("true")) + STOP)
    (told,) = scan_model(str(folder), STRICT).problems
    assert told.startswith("model.lgb: os.system would run")


@pytest.mark.parametrize(
    "suffix", [".pkl", ".pickle", ".joblib", ".cloudpickle", ".pt", ".pth", ".bin", ".ckpt", ".PKL"]
)
def test_a_suffix_makes_a_pickle(suffix: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", FINE, **{f"deep/other{suffix}": EVIL})
    (told,) = scan_model(str(folder), STRICT).problems
    assert told.startswith(f"deep/other{suffix}: os.system would run")


def test_an_mlmodel_in_a_subfolder_counts(tmp_path: Path) -> None:
    """MLflow reads the one that lies beside the data."""
    inner = "flavors: {sklearn: {pickled_model: x.dat}, python_function: {loader_module: os}}"
    folder = folder_of(tmp_path / "model", FINE, **{"sub/MLmodel": inner.encode(), "sub/x.dat": EVIL})
    problems = scan_model(str(folder), STRICT).problems
    assert [problem.partition(" ")[0] for problem in problems] == ["sub/MLmodel:", "sub/x.dat:"]
    (folder / "MLmodel").write_text(FINE.replace("model_path: model.pkl", "data: sub"))
    assert any(
        "MLmodel: sub is not a file in the folder itself" in problem
        for problem in scan_model(str(folder), STRICT).problems
    )


@pytest.mark.parametrize("file", ["code/a.txt", "a.py", "deep/a.pyc", "a.so"])
def test_code_is_told(file: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", FINE.replace("{loader", "{code: code, loader"), **{file: b""})
    (told,) = scan_model(str(folder), STRICT).problems
    assert told.startswith(f"{file}: brings code of its own (1 files)")


def test_settings_allow_loaders_and_flavors(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "model",
        "flavors: {keras: {data: data}, python_function: {loader_module: mlflow.keras, data: data}}",
        **{"data/a.h5": b"x"},
    )
    assert len(scan_model(str(folder), STRICT).problems) == 3
    assert scan_model(str(folder), ModelSettings(loaders=("mlflow.keras",))).problems == ()


def test_a_description_that_is_a_pickle_too(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    both = f"V: '\ncos\nsystem\n(Vtouch {marker}\ntR.'\nflavors: {{sklearn: {{pickled_model: MLmodel}}}}\n"
    folder = folder_of(tmp_path / "model", both)
    (told,) = scan_model(str(folder), STRICT).problems
    assert told == "MLmodel: is named as the model itself, so what it does is not known"
    assert not marker.exists()
    pickle.loads((folder / "MLmodel").read_bytes())
    assert marker.exists()


def test_a_loader_that_is_allowed_twice_is_looked_at_as_before(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", FINE.replace("model_path: model.pkl", "data: sub/model.pkl"))
    assert scan_model(str(folder), ModelSettings(loaders=("mlflow.sklearn",))).problems


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(EVIL)
    folder = folder_of(tmp_path / "model", FINE)
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.pkl")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    problems = sorted(scan_model(str(folder), STRICT).problems)
    kinds = [
        "folder: is a symbolic link",
        "link: is a symbolic link",
        "pipe.pkl: is neither a file",
        "socket: is neither a file",
    ]
    assert [problem.startswith(kind) for problem, kind in zip(problems, kinds, strict=True)] == [True] * 4
    (told,) = scan_file(str(folder / "pipe.pkl"), STRICT).problems
    assert told.startswith("pipe.pkl: cannot be read (is not a regular file)")
    assert scan_file(str(folder / "link"), STRICT).problems


def test_a_folder_without_an_mlmodel(tmp_path: Path) -> None:
    (told,) = scan_model(str(tmp_path), STRICT).problems
    assert told.startswith("MLmodel: is not there")
    missing, told = scan_model(str(tmp_path / "none"), STRICT).problems
    assert missing.startswith("none: cannot be read (no such file or directory)")


def test_what_may_not_be_read_is_told(tmp_path: Path, ordinary_user: Callable[..., str]) -> None:
    folder = folder_of(tmp_path / "model", FINE, **{"closed/x": b""})
    (folder / "model.pkl").chmod(0)
    (folder / "closed").chmod(0)
    code = (
        "import sys\n"
        "from mlflow_compliance.settings.schema import ModelSettings\n"
        "from mlflow_compliance.store.models.scan import scan_model\n"
        "import picklescan.scanner\n"
        "drop()\n"
        "print(*scan_model(sys.argv[1], ModelSettings()).problems, sep='\\n')\n"
    )
    closed, model = ordinary_user(code, folder).splitlines()
    (folder / "closed").chmod(0o755)
    assert closed == "closed: cannot be read (permission denied), so what it does is not known"
    assert model == "model.pkl: cannot be read (permission denied), so what it does is not known"


def test_a_deep_folder_is_looked_at_to_its_end(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", FINE)
    place = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=place)
        above, place = place, os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(above)
    file = os.open("x.pkl", os.O_WRONLY | os.O_CREAT, dir_fd=place)
    os.write(file, EVIL)
    os.close(file)
    os.close(place)
    try:
        (told,) = scan_model(str(folder), STRICT).problems
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)  # too deep for shutil.rmtree
    assert "os.system would run" in told


# ---- archives
# ----------------------------------------------------------------------------------------------------


def zipped(*, stored: bool = False, **members: bytes) -> bytes:
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return made.getvalue()


def numpy_file(value: Any) -> bytes:
    import numpy as np

    np.save(made := io.BytesIO(), value, allow_pickle=True)
    return made.getvalue()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def archives() -> dict[str, tuple[str, bytes]]:
    import numpy as np

    objects = numpy_file(np.array([Evil(), None]))
    good = zipped(**{"a.pkl": pickle.dumps(1)})
    central = good.rindex(b"PK\x01\x02")
    return {
        "a pickle by its name": (
            "model.zip: a.pkl: posix.system would run",
            zipped(**{"a.pkl": pickle.dumps(Evil(), 0)}),
        ),
        "a pickle by its content": ("model.zip: a/b: posix.system would run", zipped(**{"a/b": pickle.dumps(Evil())})),
        "an archive in an archive": (
            "model.zip: b.npz: c.npz: a.npy: posix.system",
            zipped(**{"b.npz": zipped(**{"c.npz": zipped(**{"a.npy": objects})})}),
        ),
        "objects for NumPy": ("model.zip: a.npy: posix.system would run", zipped(**{"a.npy": objects})),
        "a damaged array": ("model.zip: a.npy: is a damaged NumPy file", zipped(**{"a.npy": objects[:40]})),
        "a damaged archive": ("model.zip: is a damaged zip archive", good[:36] + b"\xff" * 5 + good[41:]),
        "a damaged archive behind something": (
            "model.zip: is a damaged zip archive",
            b"text" + good[:36] + b"\xff" * 5 + good[41:],
        ),
        "too many members": (
            "model.zip: holds more than 100,000 members",
            zipped(a=b"PK\x01\x02" * 100_001, stored=True),
        ),
        "half an archive": (UNREADABLE, good[10:]),
        "a password": (
            "model.zip: is a damaged zip archive",
            good[:6] + b"\x01" + good[7 : central + 8] + b"\x01" + good[central + 9 :],
        ),
        "a bomb": (
            "model.zip: unpacks to more than 1 GiB",
            good[: central + 24] + struct.pack("<I", 1 << 31) + good[central + 28 :],
        ),
        "a pickle before an archive": (UNREADABLE, pickle.dumps(1) + good),
    }


@pytest.mark.parametrize("case", archives())
def test_an_archive_is_looked_into(case: str, tmp_path: Path) -> None:
    expected, data = archives()[case]
    problems = problems_of(tmp_path, data, name="model.zip")
    assert any(expected in problem for problem in problems), problems


def test_two_members_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(made := io.BytesIO(), "w") as archive:
        archive.writestr("a.pkl", EVIL)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.pkl", pickle.dumps(1))
    (told,) = problems_of(tmp_path, made.getvalue(), name="model.zip")
    assert told.startswith("model.zip: holds two members of one name")


def test_arrays_of_numbers_are_harmless(tmp_path: Path) -> None:
    import numpy as np

    array = numpy_file(np.arange(3))
    folder = folder_of(tmp_path / "model", FINE, **{"a.npy": array, "b.npz": zipped(**{"a.npy": array, "c.txt": b"x"})})
    assert scan_model(str(folder), STRICT).problems == ()
    (folder / "a.npy").write_bytes(numpy_file(np.array([Evil()], dtype=object)))
    (told,) = scan_model(str(folder), STRICT).problems
    assert told.startswith("a.npy: posix.system would run on load, and is known")


def test_what_is_compressed_is_unpacked_and_looked_at(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "model",
        FINE,
        **{
            "a.pkl.gz": gzip.compress(pickle.dumps(1)),
            "b.csv.gz": gzip.compress(b"a,b\n1,2\n"),
            "c.7z": b"7z\xbc\xaf\x27\x1c",
            "d.gz": gzip.compress(EVIL),
        },
    )
    seven, evil = scan_model(str(folder), STRICT).problems
    assert seven.startswith("c.7z: is compressed in a way that is not looked into")
    assert evil.startswith("d.gz: unpacked: os.system would run on load")


def test_a_pickle_beyond_the_limit_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    scan = scan_file(str(path), STRICT)
    assert [problem.partition(";")[0] for problem in scan.problems] == [
        "model.pkl: cannot be read (not hashed: a sparse file with more than 268,435,456 bytes of holes"
    ]


# ---- skops
# ----------------------------------------------------------------------------------------------------


def node(loader: str, dotted: str, **more: Any) -> dict[str, Any]:
    return {
        "__loader__": loader,
        "__module__": dotted.rpartition(".")[0],
        "__class__": dotted.rpartition(".")[2],
        **more,
    }


def tuple_of(*items: Any) -> dict[str, Any]:
    return node("TupleNode", "builtins.tuple", content=list(items))


def dict_of(**items: Any) -> dict[str, Any]:
    keys = node("ListNode", "builtins.list", content=[node("TypeNode", "builtins.str") for _ in items])
    return node("DictNode", "builtins.dict", content=items, key_types=keys)


def skops_file(root: dict[str, Any], protocol: int = 2) -> bytes:
    return zipped(**{"schema.json": json.dumps({**root, "protocol": protocol, "_skops_version": "0.11"}).encode()})


TEXT = node("JsonNode", "builtins.str", content='"true"', is_json=True)
SKOPS: dict[str, tuple[str, bytes]] = {
    "a function": ("posix.system would run on load, and is known", skops_file(node("FunctionNode", "posix.system"))),
    "a function of old": (
        "posix.system would run",
        skops_file(
            node("FunctionNode", "posix.system", content={"module_path": "posix", "function": "system"}), protocol=0
        ),
    ),
    "a type": ("subprocess.Popen would run", skops_file(node("TypeNode", "subprocess.Popen"))),
    "a call": (
        "subprocess.Popen would run",
        skops_file(node("ConstructorFromReduceNode", "subprocess.Popen", content=tuple_of(TEXT))),
    ),
    "an object": (
        "fractions.Fraction would run",
        skops_file(node("ObjectNode", "fractions.Fraction", content=dict_of())),
    ),
    "an operator": (
        "operator.methodcaller would run",
        skops_file(node("OperatorFuncNode", "operator.methodcaller", attrs=tuple_of(TEXT))),
    ),
    "a Booster that opens a file": (
        "lightgbm.basic.Booster would run",
        skops_file(node("ConstructorFromReduceNode", "lightgbm.basic.Booster", content=tuple_of(TEXT, TEXT, TEXT))),
    ),
    "a Booster as a function of old": (
        "lightgbm.basic.Booster would run",
        skops_file(
            node("FunctionNode", "builtins.len", content={"module_path": "lightgbm.basic", "function": "Booster"}),
            protocol=0,
        ),
    ),
    "a Booster as a function": (
        "lightgbm.basic.Booster would run",
        skops_file(node("FunctionNode", "lightgbm.basic.Booster")),
    ),
    "an array at an address": (
        "attributes that have a meaning to Python",
        skops_file(node("ObjectNode", "sklearn.dummy.DummyClassifier", content=dict_of(__array_interface__=dict_of()))),
    ),
    "an array at an address beside a loader": (
        "attributes that have a meaning to Python",
        skops_file(
            node(
                "ObjectNode",
                "sklearn.dummy.DummyClassifier",
                content=dict_of(__loader__=dict_of(), __array_interface__=dict_of()),
            )
        ),
    ),
    "something behind an id": (
        "posix.system would run",
        skops_file(tuple_of({**TEXT, "__id__": 1}, node("FunctionNode", "posix.system", __id__=1))),
    ),
    "something in an attribute __id__": (
        "posix.system would run",
        skops_file(
            node(
                "ObjectNode",
                "sklearn.dummy.DummyClassifier",
                content=dict_of(__id__=node("FunctionNode", "posix.system")),
            )
        ),
    ),
    "a loader of its own": ("cannot be read as a skops file", skops_file(node("EvilNode", "os.system"))),
    "no schema": ("cannot be read as a skops file", zipped(a=b"")),
    "a schema that is none": ("cannot be read as a skops file", zipped(**{"schema.json": b"{"})),
    "brackets": ("cannot be read as a skops file", zipped(**{"schema.json": b"[" * 500_000})),
    "too many parts": ("is too large for a skops file", zipped(**{"schema.json": b"[" + b"1," * 1_000_000 + b"1]"})),
    "no archive": ("is no skops file", pickle.dumps(1)),
    "a pickle beside": (
        "a.pkl: os.system would run",
        zipped(**{"schema.json": json.dumps({**TEXT, "protocol": 2}).encode(), "a.pkl": EVIL}),
    ),
}


@pytest.mark.parametrize("case", SKOPS)
def test_a_hostile_skops_file_is_told(case: str, tmp_path: Path) -> None:
    expected, data = SKOPS[case]
    problems = problems_of(tmp_path, data, name="model.skops")
    assert any(problem.startswith("model.skops: ") and expected in problem for problem in problems), problems


def test_a_skops_file_is_known_by_its_content(tmp_path: Path) -> None:
    (told,) = problems_of(tmp_path, SKOPS["a function"][1], name="model.zip")
    assert told.startswith("model.zip: posix.system would run")


def test_plain_bytes_in_a_skops_file_are_no_pickle(tmp_path: Path) -> None:
    content = zipped(
        **{
            "schema.json": json.dumps({**node("BytesNode", "builtins.bytes", file="x.bin"), "protocol": 2}).encode(),
            "x.bin": b"plain",
        }
    )
    assert problems_of(tmp_path, content, name="model.skops") == ()


def test_trust_that_the_model_claims_is_not_taken_over(tmp_path: Path) -> None:
    document = (
        "flavors: {sklearn: {pickled_model: model.dat, serialization_format: skops, skops_trusted_types: "
        "[posix.system]}}"
    )
    folder = folder_of(tmp_path / "model", document, **{"model.dat": SKOPS["a function"][1]})
    assert [problem.partition(", ")[0] for problem in scan_model(str(folder), STRICT).problems] == [
        "MLmodel: has skops trust posix.system",
        "model.dat: posix.system would run on load",
    ]


def test_a_setting_allows_a_type_in_skops_files(tmp_path: Path) -> None:
    assert problems_of(tmp_path, SKOPS["an object"][1], allow("fractions.Fraction"), "model.skops") == ()
    assert problems_of(tmp_path, SKOPS["a function"][1], allow("posix.system"), "model.skops")


def test_nodes_that_share_nodes_take_no_time(tmp_path: Path) -> None:
    """Each tuple holds the one before twice: to look at every path would take two to the power of sixty steps."""
    shared: dict[str, Any] = {**TEXT, "__id__": 1}
    for number in range(2, 62):
        shared = {**tuple_of(shared, {"__id__": number - 1}), "__id__": number}
    (told,) = problems_of(tmp_path, skops_file(shared), name="model.skops")
    assert told.startswith("model.skops: cannot be read as a skops file")


# ---- stores that nobody made for this program
# ----------------------------------------------------------------------------------------------------


def public_models() -> Iterator[Path]:
    yield from (path.parent for path in sorted(STORES.rglob("MLmodel")) if path.parent.name != "metadata")


@pytest.mark.skipif(not STORES.is_dir(), reason=f"needs the real stores in {STORES}")
def test_real_models_of_strangers_are_known_to_the_scan() -> None:
    """Five pickled LightGBM classifiers, and three XGBoost models whose file is lost."""
    found = {folder.relative_to(STORES).as_posix(): scan_model(str(folder), STRICT) for folder in public_models()}
    assert len(found) == 8
    assert {place: scan.problems for place, scan in found.items() if scan.problems} == {}
    assert sum("model.pkl" in scan.hashes for scan in found.values()) == 5
