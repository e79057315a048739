"""Hostile pickles by what they call, how they spell it, by which protocol and in what they are packed: each is told,
none is run.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_compliance.settings.schema import ModelSettings
from mlflow_compliance.store.models.budget import Budget
from mlflow_compliance.store.models.content import content_problems
from mlflow_compliance.store.models.scan import could_run, scan_file, scan_model

STRICT = ModelSettings()
MODEL = (
    "flavors:\n  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle}\n"
    "  python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}\n"
)


def problems_of(folder: Path, data: bytes, name: str = "file") -> tuple[str, ...]:
    """What is told of a file that lies somewhere among the artifacts; it must be told there by its content."""
    path = folder / name
    path.write_bytes(data)
    assert could_run(str(path))
    return scan_file(str(path), STRICT, pickled=False).problems


# ---- opcodes


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def item(value: Any) -> bytes:
    """A plain value as opcodes."""
    return value if isinstance(value, bytes) else pickle.dumps(value, 2)[2:-1]


def items(values: tuple[Any, ...]) -> bytes:
    return b"(" + b"".join(map(item, values)) + b"t"


def named(dotted: str) -> bytes:
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def call(what: bytes | str, *values: Any) -> bytes:
    return (named(what) if isinstance(what, str) else what) + items(values) + b"R"


def made(dotted: str) -> bytes:
    return named(dotted) + b")\x81"


def mapping(**entries: Any) -> bytes:
    return b"}(" + b"".join(text(key) + item(value) for key, value in entries.items()) + b"u"


# ---- what is called


def evil(marker: str) -> str:
    return f"open({marker!r}, 'w').close()"


def calls(marker: str, beside: Path) -> dict[str, tuple[Any, ...]]:
    """Name -> arguments with which it makes the file `marker`; `beside` holds files that others read."""
    stored = evil(marker)
    inner = pickle.dumps(Exec(stored))
    for name, content in {"script.py": stored.encode(), "inner.pkl": inner, "plain": b"x"}.items():
        (beside / name).write_bytes(content)
    touch = ["touch", marker]
    return {
        "os.system": (f"touch {marker}",),
        "posix.system": (f"touch {marker}",),
        "os.popen": (f"touch {marker}",),
        "os.mkdir": (marker,),
        "os.makedirs": (marker,),
        "os.mknod": (marker,),
        "os.symlink": ("nowhere", marker),
        "os.spawnlp": (0, "touch", "touch", marker),
        "posix.mkdir": (marker,),
        "subprocess.Popen": (touch,),
        "subprocess.call": (touch,),
        "subprocess.run": (touch,),
        "subprocess.check_output": (touch,),
        "subprocess.getoutput": (f"touch {marker}",),
        "builtins.exec": (stored,),
        "builtins.eval": (stored,),
        "builtins.open": (marker, "w"),
        "io.open": (marker, "w"),
        "io.FileIO": (marker, "w"),
        "codecs.open": (marker, "w"),
        "gzip.open": (marker, "w"),
        "bz2.open": (marker, "w"),
        "lzma.open": (marker, "w"),
        "tarfile.open": (marker, "w"),
        "zipfile.ZipFile": (marker, "w"),
        "logging.FileHandler": (marker,),
        "sqlite3.connect": (marker,),
        "shutil.copyfile": (str(beside / "plain"), marker),
        "urllib.request.urlretrieve": ((beside / "plain").as_uri(), marker),
        "runpy.run_path": (str(beside / "script.py"),),
        "timeit.timeit": (stored, "pass", b"ctime\nperf_counter\n", 1),
        "cProfile.run": (stored,),
        "profile.run": (stored,),
        "pickle.loads": (call("_codecs.encode", inner.decode("latin1"), "latin1"),),
        "_pickle.loads": (call("_codecs.encode", inner.decode("latin1"), "latin1"),),
        "joblib.load": (str(beside / "inner.pkl"),),
        "joblib.numpy_pickle.load": (str(beside / "inner.pkl"),),
        "numpy.load": (str(beside / "inner.pkl"), None, True),
        "pandas.read_pickle": (str(beside / "inner.pkl"),),
        "pandas.io.pickle.read_pickle": (str(beside / "inner.pkl"),),
        "numpy.memmap": (marker, "uint8", "w+", 0, 8),
        "numpy.testing._private.utils.runstring": (stored, {}),
        "operator.call": (named("os.mkdir"), marker),
        "functools.reduce": (named("os.symlink"), ("nowhere", marker)),
        "mlflow.utils.file_utils.mkdir": (marker,),
    }


class Exec:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


def stacked(dotted: str, values: tuple[Any, ...]) -> bytes:
    module, _, name = dotted.rpartition(".")
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + items(values) + b"R."


def remembered(dotted: str, values: tuple[Any, ...]) -> bytes:
    module, _, name = dotted.rpartition(".")
    start = text(name) + b"q\x07" + b"0" + text(module) + b"\x940"
    return b"\x80\x04" + start + b"h\x01h\x07\x93" + items(values) + b"R."


def unannounced(dotted: str, values: tuple[Any, ...]) -> bytes:
    return call(dotted, *values) + b"."


def instance(dotted: str, values: tuple[Any, ...]) -> bytes:
    module, _, name = dotted.rpartition(".")
    return b"(" + b"".join(map(item, values)) + f"i{module}\n{name}\n.".encode()


def obj(dotted: str, values: tuple[Any, ...]) -> bytes:
    return b"(" + named(dotted) + b"".join(map(item, values)) + b"o."


def broken_off(dotted: str, values: tuple[Any, ...]) -> bytes:
    """It calls before it turns out that it does not end."""
    return call(dotted, *values) + b"\xff\xff"


def after_plain_values(dotted: str, values: tuple[Any, ...]) -> bytes:
    return b"I1\n." * 3 + unannounced(dotted, values)


SPELLINGS: dict[str, Callable[[str, tuple[Any, ...]], bytes]] = {
    "GLOBAL": unannounced,
    "STACK_GLOBAL": stacked,
    "memo": remembered,
    "INST": instance,
    "OBJ": obj,
    "broken off": broken_off,
    "after plain values": after_plain_values,
}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beside")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_called_is_told_however_it_is_spelled(spelling: str, tmp_path: Path, beside: Path) -> None:
    marker = tmp_path / "marker"
    passed = []
    for dotted, values in calls(str(marker), beside).items():
        problems = problems_of(tmp_path, SPELLINGS[spelling](dotted, values))
        if spelling in ("broken off", "after plain values"):
            assert any("cannot be read as a pickle" in problem for problem in problems), dotted
        elif not any(f"{dotted} " in problem for problem in problems):
            passed.append(dotted)
    assert passed == []
    assert not marker.exists()


def test_these_calls_do_what_they_threaten(tmp_path: Path, beside: Path) -> None:
    """The control: loaded for real, each of them makes its file."""
    markers = {}
    for number, (dotted, _) in enumerate(calls("", beside).items()):
        markers[dotted] = tmp_path / f"marker{number}"
        (one := tmp_path / f"beside{number}").mkdir()
        (tmp_path / f"{number}.pkl").write_bytes(unannounced(dotted, calls(str(markers[dotted]), one)[dotted]))
    code = (
        "import contextlib, pathlib, pickle, sys\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.pkl'):\n"
        "    with contextlib.suppress(Exception):\n"
        "        made = pickle.loads(path.read_bytes())\n"
        "        getattr(made, 'wait', bool)()\n"
        "        getattr(made, 'close', bool)()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    assert [dotted for dotted, marker in markers.items() if not os.path.lexists(marker)] == []


# ---- what it is packed in


def zipped(name: str) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
            archive.writestr(name, data)
        return stream.getvalue()

    return pack


def tarred(data: bytes) -> bytes:
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
        member = tarfile.TarInfo("pickle")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def array_of_objects(data: bytes) -> bytes:
    import numpy as np

    np.save(stream := io.BytesIO(), np.array([None], dtype=object), allow_pickle=True)
    return stream.getvalue().partition(b"\n")[0] + b"\n" + data


def behind_an_array(data: bytes) -> bytes:
    """As joblib writes an array, and then, in the place of the end, another object."""
    import joblib
    import numpy as np

    joblib.dump([np.arange(3.0), 1], stream := io.BytesIO(), protocol=2)
    head = stream.getvalue()
    assert head.endswith(b"K\x01e.")
    return head[:-4] + b"0" + data.removeprefix(b"\x80" + data[1:2] if data[:1] == b"\x80" else b"")


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": bytes,
    "gzip": gzip.compress,
    "two of gzip": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "joblib of old": lambda data: b"ZF" + hex(len(data)).encode().ljust(19) + zlib.compress(data),
    "gzip of gzip": lambda data: gzip.compress(gzip.compress(data)),
    "zip": zipped("archive/data"),
    "zip of torch": zipped("archive/data.pkl"),
    "zip in gzip": lambda data: gzip.compress(zipped("a")(data)),
    "npy": array_of_objects,
    "npz": lambda data: zipped("a.npy")(array_of_objects(data)),
    "tar": tarred,
    "tar in bz2": lambda data: bz2.compress(tarred(data)),
    "cut off gzip": lambda data: gzip.compress(data + bytes(os.urandom(2000)))[:-1000],
}


class Evil:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_packed_is_looked_into(container: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for protocol, suffix in itertools.product(range(pickle.HIGHEST_PROTOCOL + 1), ("", ".bin", ".PT", ".csv")):
        data = CONTAINERS[container](pickle.dumps(Evil(str(marker)), protocol))
        problems = problems_of(tmp_path, data, f"file{suffix}")
        told = "mkdir" in " ".join(problems) or container == "cut off gzip"
        assert problems, (protocol, suffix)
        assert told, problems
    assert not marker.exists()


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_model_folder_is_looked_into_by_content(container: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(MODEL)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    assert scan_model(str(tmp_path), STRICT).problems == ()
    (tmp_path / "notes.txt").write_bytes(CONTAINERS[container](pickle.dumps(Evil("marker"), 0)))
    problems = scan_model(str(tmp_path), STRICT).problems
    assert problems
    assert all(problem.startswith("notes.txt: ") for problem in problems)


def test_a_link_is_followed_to_what_it_leads_to(tmp_path: Path) -> None:
    (folder := tmp_path / "model").mkdir()
    (folder / "MLmodel").write_text(MODEL)
    (tmp_path / "blob").write_bytes(pickle.dumps(Evil("marker")))
    (folder / "model.pkl").symlink_to(tmp_path / "blob")
    link, content = scan_model(str(folder), STRICT).problems
    assert link.startswith("model.pkl: is a symbolic link")
    assert content.startswith("model.pkl: posix.mkdir would run")
    assert could_run(str(folder / "model.pkl"))
    (told,) = scan_file(str(folder / "model.pkl"), STRICT, pickled=False).problems
    assert told.startswith("model.pkl: posix.mkdir would run")


@pytest.mark.parametrize(
    ("flavors", "file"),
    [
        ("statsmodels: {statsmodels_version: 0.14.4}", "model.statsmodels"),
        ("statsmodels: {}, python_function: {loader_module: mlflow.statsmodels, data: other}", "model.statsmodels"),
        ("pmdarima: {pmdarima_version: '2.0'}", "model.pmd"),
    ],
)
def test_a_flavor_that_names_no_file_is_followed_to_its_own(flavors: str, file: str, tmp_path: Path) -> None:
    """Told as what cannot be read, although nothing in it says that it is a pickle: MLflow would unpickle it."""
    (tmp_path / "MLmodel").write_text(f"flavors: {{{flavors}}}\n")
    (tmp_path / "other").write_text("x")
    (tmp_path / file).write_bytes(b"neither")
    told = [problem for problem in scan_model(str(tmp_path), STRICT).problems if problem.startswith(f"{file}: ")]
    assert [problem.partition(",")[0] for problem in told] == [f"{file}: cannot be read as a pickle"]
    (tmp_path / file).write_bytes(pickle.dumps(Evil("marker"), 0))
    assert any(f"{file}: posix.mkdir would run" in problem for problem in scan_model(str(tmp_path), STRICT).problems)


# ---- what known names could be used for

LABELS = "sklearn.preprocessing._label.LabelEncoder"
ARRAY = call("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (0,), b"U\x01b")
OBJECTS = call("numpy.dtype", "O8", False, True)
BYTES = b"C\x08" + bytes(range(8))
INNER = b"C" + bytes([len(pickle.dumps(Evil("m"), 2))]) + pickle.dumps(Evil("m"), 2)
ARROW = "pyarrow.lib"


def arrow(length: int, places: bytes, content: bytes) -> bytes:
    def buffer(data: bytes) -> bytes:
        return call(f"{ARROW}.py_buffer", call("builtins.bytearray", b"C" + bytes([len(data)]) + data))

    buffers = b"](N" + buffer(places) + buffer(content) + b"e"
    kind = call(f"{ARROW}.type_for_alias", "large_string")
    return call(f"{ARROW}._restore_array", items((kind, length, 0, 0, buffers, b"]", b"N")))


GADGETS: dict[str, bytes] = {
    "an array at an address, as an index": call(
        "pandas.core.indexes.base._new_Index", named("numpy.ndarray"), mapping(shape=(1,), dtype=OBJECTS, buffer=BYTES)
    ),
    "an index with a buffer": call(
        "pandas.core.indexes.base._new_Index", named("pandas.Index"), mapping(shape=(1,), dtype=OBJECTS, buffer=BYTES)
    ),
    "an index of a class of its own": call("pandas.core.indexes.base._new_Index", named("os.Index"), mapping()),
    "an index that is another class": call(
        "pandas.core.indexes.base._new_Index", named("lightgbm.basic.Booster"), mapping(model_file="/etc/passwd")
    ),
    "an index whose keys are changed later": call(
        "pandas.core.indexes.base._new_Index", named("pandas.Index"), mapping(buffer=1) + b"q\x01"
    )
    + b"0h\x01(X\x04\x00\x00\x00dataNu",
    "a bit generator that opens a file": call(
        "numpy.random._pickle.__generator_ctor", "/etc/passwd", named("xgboost.core.Booster")
    ),
    "a bit generator that is another class": call(
        "numpy.random._pickle.__bit_generator_ctor", named("subprocess.Popen")
    ),
    "a bit generator that is a known class": call(
        "numpy.random._pickle.__bit_generator_ctor", named("lightgbm.basic.Booster")
    ),
    "a seed of another class": call(
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence", named("pandas.DataFrame"), 1, b"N"
    ),
    "an array of another class": call(
        "numpy._core.multiarray._reconstruct", named("lightgbm.basic.Booster"), (0,), "b"
    ),
    "an array of the size of the memory": call(
        "numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (1 << 40,), "b"
    ),
    "an array of objects that are not there": call(
        "numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (9,), "O"
    ),
    "a masked array of another class": call(
        "numpy.ma.core._mareconstruct", named("pandas.DataFrame"), named("numpy.ndarray"), (0,), "b"
    ),
    "a type with fields of its own": call("numpy.dtype", mapping(names=("a",), formats=("O",))),
    "a type that asks a class": call("numpy.dtype", named("lightgbm.basic.Booster")),
    "a number of a type that is none": call("numpy._core.multiarray.scalar", named("numpy.ndarray"), BYTES),
    "a buffer of a class": call("numpy._core.numeric._frombuffer", BYTES, named("numpy.int64"), (1,), "C"),
    "bytes of the size of the memory": call("builtins.bytes", 1 << 40),
    "bytes of a range": call("builtins.bytearray", call("builtins.range", 1 << 40)),
    "a set of a range": call("builtins.set", call("builtins.range", 1 << 40)),
    "a dict with a factory that opens files": call("collections.defaultdict", named("lightgbm.basic.Booster")),
    "a codec of its own": call("_codecs.encode", "x", "evil"),
    "a codec that unpacks": call("_codecs.encode", BYTES, "zlib_codec"),
    "a tree with more outputs than counts": call("sklearn.tree._tree.Tree", 2, ARRAY, 1 << 20),
    "a base that is called": call(
        "copyreg._reconstructor", named(LABELS), named("lightgbm.basic.Booster"), "/etc/passwd"
    ),
    "a base that is a command": call("copyreg._reconstructor", named("subprocess.Popen"), named("subprocess.Popen"), 1),
    "__newobj__ with arguments": call("copyreg.__newobj__", named("lightgbm.basic.Booster"), "/etc/passwd"),
    "__newobj_ex__": call("copyreg.__newobj_ex__", named("lightgbm.basic.Booster"), (), mapping(model_file="x")),
    "NEWOBJ with arguments": named("lightgbm.basic.Booster") + items((b"N", b"N", "/etc/passwd")) + b"\x81",
    "NEWOBJ_EX with arguments": named("xgboost.core.Booster") + b")" + mapping(model_file="/etc/passwd") + b"\x92",
    "OBJ of a known class": b"(" + named("numpy.memmap") + text("/etc/passwd") + b"o",
    "INST of a known class": b"(" + text("/etc/passwd") + b"inumpy\nmemmap\n",
    "another class": made(LABELS) + mapping(__class__=named("subprocess.Popen")) + b"b",
    "another dict": made(LABELS) + mapping(__dict__=mapping(a=1)) + b"b",
    "a way to set a state": made(LABELS) + mapping(__setstate__=named("os.system")) + b"b" + text("true") + b"b",
    "a known way to set a state": made(LABELS) + mapping(__setstate__=named("numpy.memmap")) + b"b",
    "a way to be reduced": made(LABELS) + mapping(__reduce_ex__=named("os.system")) + b"b",
    "a pair of states": made(LABELS) + b"N" + mapping(__class__=named(LABELS)) + b"\x86b",
    "a function of a model": made("sklearn.preprocessing._function_transformer.FunctionTransformer")
    + mapping(func=named("os.system"))
    + b"b",
    "a function in a vectorizer": made("sklearn.feature_extraction.text.CountVectorizer")
    + mapping(analyzer=named("builtins.exec"))
    + b"b",
    "a score that is a command": made("sklearn.feature_selection._univariate_selection.SelectKBest")
    + mapping(score_func=named("os.system"))
    + b"b",
    "a metric that calls": named("sklearn.metrics._dist_metrics.PyFuncDistance64"),
    "a lazy call": call("builtins.set", call("builtins.map", named("os.system"), ("true",))),
    "a lazy call of known names": call("builtins.list", call("builtins.map", named("numpy.memmap"), ("x",))),
    "a partial": call("functools.partial", named("os.system"), "true"),
    "an attribute": call("builtins.getattr", named("os.environ"), "clear"),
    "a getter": call(call("operator.attrgetter", "system"), call("importlib.import_module", "os")),
    "a persistent id": text("os.system") + b"Q",
    "a persistent id of text": b"Pos.system\n",
    "an extension": b"\x82\x01",
    "an extension of two bytes": b"\x83\x01\x00",
    "an extension of four bytes": b"\x84\x01\x00\x00\x00",
    "a buffer from outside": b"\x97",
    "a pickle in a pickle": call("pickle.loads", INNER),
    "a pickle in a pickle of NumPy": call("numpy._core._multiarray_umath.loads", INNER),
    "a name from bytes": call(b"(" + BYTES + text("system") + b"t", "true"),
    "a name of a name": b"\x80\x04" + call("builtins.bytes") + text("x") + b"\x93",
    "text beyond its buffer": arrow(1, struct.pack("<qq", 0, 1 << 30), b"x"),
    "text with places that fall": arrow(2, struct.pack("<qqq", 0, 1, -1), b"x"),
    "more texts than places": arrow(1 << 30, struct.pack("<qq", 0, 1), b"x"),
    "a block of a class": call("pandas._libs.internals._unpickle_block", named("subprocess.Popen"), 1, 1),
    "another old array of joblib": made("joblib.numpy_pickle_compat.NDArrayWrapper") + mapping(filename="x") + b"b",
    "what sklearn downloads": call("sklearn.datasets._base.load_svmlight_file", "/etc/passwd"),
    "what sklearn calls": call("sklearn.metrics.pairwise.pairwise_kernels", 1, 1, named("os.system")),
    "an estimator that is called": call("sklearn.pipeline.Pipeline", b"]"),
    "an expression of pandas": call("pandas.core.computation.eval.eval", "@x"),
    "a frame's query": named("pandas.DataFrame.query"),
    "modules through a known one": named("sklearn.utils._bunch.os.system"),
}


@pytest.mark.parametrize("gadget", GADGETS)
def test_known_names_do_no_more_than_models_need(gadget: str, tmp_path: Path) -> None:
    for head in (b"", b"\x80\x02", b"\x80\x04"):
        problems = problems_of(tmp_path, head + GADGETS[gadget] + b".", "file.pkl")
        assert problems
        assert not any("could not be looked into" in problem for problem in problems), problems


def test_honest_calls_of_the_same_names_are_known(tmp_path: Path) -> None:
    """The other direction: none of the table above is told for its name alone."""
    honest = [
        call("pandas.core.indexes.base._new_Index", named("pandas.RangeIndex"), mapping(start=0, stop=2, step=1)),
        call("numpy.random._pickle.__generator_ctor", "PCG64", named("numpy.random._pickle.__bit_generator_ctor")),
        call("builtins.bytearray", BYTES),
        call("builtins.set", b"](K\x01e"),
        call("collections.defaultdict", named("builtins.list")),
        call("copyreg._reconstructor", named(LABELS), named("builtins.object"), b"N"),
        call("sklearn.tree._tree.Tree", 2, ARRAY + items((1, (1,), OBJECTS, False, b"]")) + b"b", 1),
        arrow(2, struct.pack("<qqq", 0, 1, 2), b"xy"),
        arrow(0, b"", b""),
    ]
    for data in honest:
        assert problems_of(tmp_path, b"\x80\x02" + data + b".", "file.pkl") == ()


# ---- arrays between the opcodes


def dumped(value: Any, protocol: int) -> bytes:
    import joblib

    joblib.dump(value, stream := io.BytesIO(), protocol=protocol)
    return stream.getvalue()


def in_arrays() -> Iterator[tuple[str, bytes]]:
    import numpy as np

    numbers = dumped([np.arange(3.0), 1], 2)
    yield "behind an array", numbers[:-4] + b"0" + unannounced("os.system", ("true",))
    yield "an array of objects", dumped(np.array([Evil("marker")], dtype=object), 4)
    yield "an array that is too large", numbers.replace(b"K\x03\x85", b"K\xf0\x85", 1)
    yield "an array of two sizes", dumped(np.array(["ab"]), 2).replace(b"K\x08K\x04K\x08", b"K\x01K\x04K\x08", 1)
    # An array's bytes are opcodes for pickle itself, where nothing says how many bytes come before them.
    opcodes = b"0" + call("os.system", "true") + b"0"
    content = np.frombuffer(opcodes + b"N" * (-len(opcodes) % 8), dtype=np.uint8)
    plain = dumped([content, 1], 2)
    yield "opcodes in an array", without_padding(plain, content.tobytes())


def without_padding(data: bytes, content: bytes) -> bytes:
    """As joblib wrote before 1.2: the array's bytes follow at once."""
    key = text("numpy_array_alignment_bytes")
    start, end = data.index(key), data.index(b"K\x10", data.index(key)) + 2
    head, place = data[:start] + data[end:], data.index(content)
    return head[: head.index(b"ub", start) + 2] + content + data[place + len(content) :]


@pytest.mark.parametrize("kind", [name for name, _ in in_arrays()])
def test_what_lies_between_or_behind_arrays_is_told(kind: str, tmp_path: Path) -> None:
    assert problems_of(tmp_path, dict(in_arrays())[kind])


def test_an_array_within_a_frame_is_told(tmp_path: Path) -> None:
    """The reader of joblib would go on behind the frame, and take the rest of the frame for opcodes."""
    import numpy as np

    data = dumped([np.arange(3.0), 1], 4)
    assert problems_of(tmp_path, data) == ()
    start = data.index(b"\x95")
    forged = data[: start + 1] + struct.pack("<Q", len(data) - start - 9) + data[start + 9 :]
    (told,) = problems_of(tmp_path, forged)
    assert "an array lies within a frame" in told


# ---- budgets


def test_a_bomb_is_told_and_not_unpacked() -> None:
    bomb = zlib.compress(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 31) + bytes(1 << 22))
    (told,) = content_problems(bomb, "file", STRICT, Budget(room=1 << 20))
    assert told.text == "file: unpacks to more than 1 GiB, so what it does is not known"
    (told,) = content_problems(zipped("a")(bytes(1 << 22)), "file", STRICT, Budget(room=1 << 20))
    assert told.text == "file: unpacks to more than 1 GiB, so what it does is not known"


def test_what_is_packed_too_often_is_told(tmp_path: Path) -> None:
    data = pickle.dumps(1)
    for _ in range(30):
        data = gzip.compress(data)
    (told,) = problems_of(tmp_path, data)
    assert "is packed more than 16 times" in told


def test_all_pickles_of_a_model_share_one_budget() -> None:
    data, budget = b"\x80\x04" + b"N0" * 400 + b"N.", Budget(steps=2000)
    told = [[problem.text for problem in content_problems(data, "file", STRICT, budget)] for _ in range(3)]
    assert told[:2] == [[], []]
    assert "all pickles of the model together take more than" in told[2][0]


@pytest.mark.parametrize(
    ("stream", "harmless"),
    [
        (b"\x80\x02c__builtin__\nset\n0\x80\x04N.", True),
        (b"\x80\x02c__builtin__\nset\n\x80\x04]\x85R.", True),
        (b"\x80\x04c__builtin__\nset\n0N.", False),
        (b"\x80\x04N0\x80\x02c__builtin__\neval\n0N.", False),
        (b"\x80\x02c__builtin__\nset\n\x80\x04N.", False),
    ],
    ids=["named", "called", "a name of Python 2 by protocol 4", "back to protocol 2", "two values at the end"],
)
def test_a_stream_that_changes_its_protocol_is_read_as_an_unpickler_reads_it(
    stream: bytes, harmless: bool, tmp_path: Path
) -> None:
    """PROTO in the midst of a stream changes one thing: up to protocol 2 the names of Python 2 are looked up by their
    new ones. So `__builtin__.set` is the class `set` before it, which may be named and called, and a module that does
    not exist behind it; nothing is gained by the change that a stream of one protocol could not do.
    """
    assert (problems_of(tmp_path, stream, "file.pkl") == ()) == harmless


@pytest.mark.parametrize(
    "plain",
    [
        b"cat\ndog\nhorse\n",
        b"channels:\n- conda-forge\ndependencies:\n- python=3.11\n",
        b"classes\nA\nB\nC\n",
        b"id,name\n1,a\n",
        b"(in\nfinity)\n",
        b"V is a letter\nR.\n",
        b"N.B.: this is no pickle\n",
        b"x^2 + y^2\n",
        b"I1\n.I2\n.",
        b"]\x00\x01",
        b"Please\nRead.me\n",
        b"{}",
        b"\x89PNG\r\n\x1a\n",
        b"0.5\n0.25\n",
    ],
)
def test_plain_data_is_taken_for_what_it_is(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(plain)
    assert scan_file(str(path), STRICT, pickled=False).problems == ()
    (tmp_path / "MLmodel").write_text(MODEL)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(1))
    assert scan_model(str(tmp_path), STRICT).problems == ()


def test_the_hash_of_a_model_is_of_every_file_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(MODEL)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Evil("marker")))
    (tmp_path / "a.txt").write_text("a")
    scan = scan_model(str(tmp_path), STRICT)
    allowing = ModelSettings(allowed_models=(scan.digest,))
    assert scan_model(str(tmp_path), allowing).problems == ()
    assert scan_model(str(tmp_path), allowing).allowed == scan.problems
    changes: dict[str, Callable[[], object]] = {
        "content": lambda: (tmp_path / "a.txt").write_text("b"),
        "name": lambda: (tmp_path / "a.txt").rename(tmp_path / "b.txt"),
        "one more": lambda: (tmp_path / "c.txt").write_text(""),
        "one less": (tmp_path / "c.txt").unlink,
        "a link": lambda: (tmp_path / "a.txt").symlink_to(tmp_path / "b.txt"),
    }
    for kind, change in changes.items():
        change()
        assert scan_model(str(tmp_path), allowing).problems, kind
    assert scan_model(str(tmp_path), STRICT).digest == ""  # a link leads to what may change
