from __future__ import annotations

import ctypes
import hashlib
import json
import os
import select
import shutil
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import pytest
from gates import state
from kernels import PRCTL, UNSHARE, can_be_older, without
from sklearn.linear_model import LogisticRegression

from mlflow_compliance.snapshot.evidence import Probe
from mlflow_compliance.store.models import probe as probing
from mlflow_compliance.store.models import probe_child, sandbox
from mlflow_compliance.store.models.probe import Sample, probe
from mlflow_compliance.store.models.probe_child import compared, features_of, scored
from mlflow_compliance.store.models.sandbox import Limits, run_limited

ENOUGH = Limits(120, 4096)
SHORT = Limits(1, 1024)
NAMES = ["income", "own car", "age"]
LIGHTGBM_NAMES = ("income", "own_car", "age")
SMALL_THINGS = """
import gc
gc.disable()
sys.held = ()
for size in range(512, 0, -16):
    try:
        while True: sys.held = (sys.held, bytes(size))
    except MemoryError: pass
raise MemoryError
"""
"""Leave not even the room for a sentence."""
LANDLOCK: int = ctypes.CDLL(None).syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
OLDER = pytest.mark.skipif(not can_be_older(), reason="this machine cannot play an older one")

Run = Callable[..., str]


@pytest.fixture(scope="module")
def features() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(7).normal(size=(120, 3)), columns=NAMES)


@pytest.fixture(scope="module")
def credit(features: pd.DataFrame) -> lgb.LGBMClassifier:
    target = (features["income"] + features["age"] > 0).astype(int)
    return lgb.LGBMClassifier(n_estimators=4, num_leaves=7, n_jobs=-1, verbose=-1).fit(features, target)


@pytest.fixture(scope="module")
def models(credit: lgb.LGBMClassifier, features: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models as MLflow saves them."""
    folder, example = tmp_path_factory.mktemp("models"), features.head(5)
    regression = LogisticRegression(C=0.5).fit(features, credit.predict(features))
    saved: dict[str, Any] = {"pip_requirements": ["lightgbm"]}
    mlflow.lightgbm.save_model(credit, folder / "lightgbm", input_example=example, **saved)
    mlflow.lightgbm.save_model(credit.booster_, folder / "booster", input_example=example, **saved)
    mlflow.sklearn.save_model(regression, folder / "sklearn", input_example=example.iloc[0].to_dict(), **saved)
    mlflow.sklearn.save_model(
        regression, folder / "pickled", input_example=example, serialization_format="cloudpickle", **saved
    )
    mlflow.lightgbm.save_model(credit.booster_, folder / "no example", **saved)
    wrapper = folder / "wrapper.py"
    wrapper.write_text(
        "import mlflow\nclass Sum(mlflow.pyfunc.PythonModel):\n    def predict(self, model_input): return "
        "model_input.sum(axis=1)\n"
    )
    wrapper.write_text(wrapper.read_text() + "mlflow.models.set_model(Sum())\n")
    mlflow.pyfunc.save_model(folder / "pyfunc", python_model=str(wrapper), input_example=example, **saved)
    return folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made: nothing may be left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def run(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script under limits, as a module that the user has installed, in the folder where it lies; gives the
    problem.
    """
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "USER_SITE", str(folder))

    def running(script: str, *arguments: object, limits: Limits = ENOUGH) -> str:
        (folder / "script.py").write_text("import json, os, signal, socket, sys\n" + dedent(script))
        return run_limited("script", [*map(str, arguments)], str(folder), limits)

    return running


def scanned(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def tried(folder: Path, limits: Limits = ENOUGH, sample: Sample | None = None) -> Probe:
    return probe(str(folder), scanned(folder), limits, sample)


def sample_of(folder: Path, rows: pd.DataFrame, recorded: Sequence[object], kind: str = "parquet") -> Sample:
    paths = folder / f"features.{kind}", folder / f"predictions.{kind}"
    for path, table in zip(paths, (rows, pd.DataFrame({"PROBABILITY": recorded})), strict=True):
        table.to_parquet(path) if kind == "parquet" else table.to_csv(path, index=False)
    return Sample(str(paths[0]), "ROW", str(paths[1]), "PROBABILITY")


class TestRealModels:
    def test_classifier_is_asked_for_everything(
        self, models: Path, credit: lgb.LGBMClassifier, features: pd.DataFrame, tmp_path: Path, temporary: Path
    ) -> None:
        probabilities = credit.predict_proba(features)[:, 1]
        shuffled = features[NAMES[::-1]].assign(ROW=range(120), note="x").iloc[[5, 3, 119, 0]]
        before = state(models)
        found = tried(models / "lightgbm", sample=sample_of(tmp_path, shuffled, probabilities))
        assert (found.problem, found.sample_problem) == ("", "")
        assert found.params == {name: str(value) for name, value in credit.get_params().items()}
        assert found.params["num_leaves"] == "7"
        assert found.features == LIGHTGBM_NAMES
        assert found.example == tuple(probabilities[:5])
        assert (found.sampled, found.worst) == (4, 0.0)
        assert state(models) == before

    def test_problem_with_the_sample_does_not_hide_what_a_booster_gave(
        self, models: Path, credit: lgb.LGBMClassifier, features: pd.DataFrame, tmp_path: Path
    ) -> None:
        found = tried(models / "booster", sample=sample_of(tmp_path, features.assign(ROW=0).drop(columns="age"), [0.5]))
        assert found == Probe(
            features=LIGHTGBM_NAMES,
            example=tuple(credit.predict_proba(features.head(5))[:, 1]),
            sample_problem="features.parquet lacks 1 of the model's 3 columns: age",
        )


class TestKindsOfModels:
    """What is tried, in this process: its own does the same."""

    def test_example_may_be_one_row_as_json(
        self, models: Path, credit: lgb.LGBMClassifier, features: pd.DataFrame
    ) -> None:
        found = probe_child.tried(str(models / "sklearn"), ())
        regression = LogisticRegression(C=0.5).fit(features, credit.predict(features))
        assert (found["features"], found["params"]["C"]) == (NAMES, "0.5")
        assert found["example"] == pytest.approx(regression.predict_proba(features.head(1))[:, 1])

    def test_what_most_programs_call_is_tried_too(self, models: Path, tmp_path: Path) -> None:
        """The native library loads it, and mlflow.pyfunc, which MLflow's own server calls, does not."""
        shutil.copytree(models / "sklearn", tmp_path / "model")
        path = tmp_path / "model" / "MLmodel"
        path.write_text(path.read_text().replace("predict_fn: predict", "predict_fn: no_such_method"))
        assert "no_such_method" in path.read_text()
        problem = probe_child.tried(str(tmp_path / "model"), ())["problem"]
        assert "by mlflow.pyfunc" in problem
        assert "no_such_method" in problem

    def test_wrapper_is_called_as_it_is_served(self, models: Path, features: pd.DataFrame, tmp_path: Path) -> None:
        totals = features.sum(axis=1)
        found = probe_child.tried(
            str(models / "pyfunc"), sample_of(tmp_path, features.assign(ROW=features.index), totals + 0.25)
        )
        assert found.pop("example") == pytest.approx(totals[:5])
        assert found.pop("worst") == pytest.approx(0.25)
        assert found == {"params": {}, "features": [], "sampled": 120}

    @pytest.mark.parametrize("native", [False, True])
    def test_xgboost_forgets_what_it_was_made_with(
        self, features: pd.DataFrame, tmp_path: Path, *, native: bool
    ) -> None:
        xgboost = pytest.importorskip("xgboost")
        model = xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(features, features["age"] > 0)
        mlflow.xgboost.save_model(
            model.get_booster() if native else model,
            tmp_path / "model",
            input_example=features.head(5),
            pip_requirements=["xgboost"],
        )
        found = probe_child.tried(str(tmp_path / "model"), ())
        assert found["features"] == NAMES
        assert found["example"] == pytest.approx(model.predict_proba(features.head(5))[:, 1])
        assert "n_estimators" not in found["params"]

    def test_model_without_names_is_given_the_columns_of_its_signature(
        self, features: pd.DataFrame, tmp_path: Path
    ) -> None:
        model = LogisticRegression().fit(features.to_numpy(), features["age"] > 0)
        mlflow.sklearn.save_model(
            model, tmp_path / "model", input_example=features.head(2), pip_requirements=["scikit-learn"]
        )
        sample = sample_of(
            tmp_path, features[NAMES[::-1]].assign(ROW=features.index), model.predict_proba(features.to_numpy())[:, 1]
        )
        found = probe_child.tried(str(tmp_path / "model"), sample)
        assert (found["features"], found["sampled"]) == ([], 120)
        assert found["worst"] == pytest.approx(0)

    def test_text_of_a_parameter_is_bounded_and_can_be_written(self) -> None:
        model = LogisticRegression(C="\ud800" + "x" * 9999)
        assert probe_child._params(model)["C"] == "\\ud800" + "x" * 5999

    def test_model_without_example_has_nothing_to_score(self, models: Path) -> None:
        found = probe_child.tried(str(models / "no example"), ())
        assert found == {"params": {}, "features": [*LIGHTGBM_NAMES], "problem": "has no input example to score"}

    @pytest.mark.parametrize("classes", [[0, 1], ["no", "yes"], ["high", "low", "middle"]])
    def test_classifier_is_scored_by_probability(self, features: pd.DataFrame, classes: list[Any]) -> None:
        target = pd.qcut(features["age"], len(classes), labels=classes)
        model = LogisticRegression().fit(features, target)
        expected = model.predict_proba(features)
        assert scored(model, features) == list(expected[:, 1] if len(classes) == 2 else expected.max(axis=1))


class TestSample:
    """What is compared, in this process: the model's own has been shown to do the same."""

    @pytest.mark.parametrize("kind", ["parquet", "csv"])
    def test_worst_difference_is_that_of_the_rows_named(
        self, credit: lgb.LGBMClassifier, features: pd.DataFrame, tmp_path: Path, kind: str
    ) -> None:
        recorded = credit.predict_proba(features)[:, 1]
        recorded[[3, 4, 5]] += (0.125, -0.25, 0.5)
        rows = features.assign(ROW=features.index)
        for wanted, worst in (([0, 1, 2], 0.0), ([2, 3], 0.125), ([4, 3, 0], 0.25)):
            sample = sample_of(tmp_path, rows.iloc[wanted], recorded, kind)
            scored_rows, found = compared(credit, features_of(credit), *sample)
            assert scored_rows == len(wanted)
            assert found == pytest.approx(worst)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (
                lambda rows: rows.assign(ROW=rows["ROW"] - 1),
                "ROW in features.parquet holds what is no position in predictions.parquet",
            ),
            (
                lambda rows: rows.assign(ROW=rows["ROW"] + 118),
                "ROW in features.parquet holds what is no position in predictions.parquet",
            ),
            (
                lambda rows: rows.assign(ROW=0.5),
                "ROW in features.parquet holds what is no position in predictions.parquet",
            ),
            (
                lambda rows: rows.assign(ROW=None),
                "ROW in features.parquet holds what is no position in predictions.parquet",
            ),
            (
                lambda rows: rows.assign(ROW=7),
                "PROBABILITY in predictions.parquet is no finite number in every row of the sample",
            ),
            (lambda rows: rows.drop(columns="ROW"), "features.parquet has no column ROW"),
            (
                lambda rows: rows.drop(columns=["age", "income"]),
                "features.parquet lacks 2 of the model's 3 columns: income, age",
            ),
            (lambda rows: rows.head(0), "features.parquet has no rows"),
        ],
    )
    def test_sample_that_cannot_be_compared(
        self,
        credit: lgb.LGBMClassifier,
        features: pd.DataFrame,
        tmp_path: Path,
        change: Callable[[pd.DataFrame], pd.DataFrame],
        problem: str,
    ) -> None:
        recorded = credit.predict_proba(features)[:, 1]
        recorded[7] = np.nan
        sample = sample_of(tmp_path, change(features.assign(ROW=features.index).head(3)), recorded)
        with pytest.raises(Exception, match=problem):
            compared(credit, features_of(credit), *sample)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"PAR1 and no more", "predictions.parquet cannot be read: "),
            (b"", "predictions.parquet cannot be read: "),
            (b"TARGET\n1\n", "predictions.parquet has no column PROBABILITY"),
            (None, "predictions.parquet cannot be read: .*No such file"),
        ],
    )
    def test_file_that_cannot_be_read(
        self, credit: lgb.LGBMClassifier, features: pd.DataFrame, tmp_path: Path, content: bytes | None, problem: str
    ) -> None:
        sample = sample_of(tmp_path, features.assign(ROW=0), [0.5])
        Path(sample.predictions).unlink()
        if content is not None:
            Path(sample.predictions).write_bytes(content)
        with pytest.raises(Exception, match=problem):
            compared(credit, features_of(credit), *sample)


class TestHostileModels:
    """Pickled estimators as anybody can make them, in folders that MLflow saved."""

    @pytest.fixture
    def hostile(self, models: Path, tmp_path: Path, temporary: Path) -> Callable[..., Path]:
        def made(load: str = "pass", predict: str = "return data.sum(axis=1)") -> Path:
            names = {"__name__": "nowhere"}  # so that the class itself is pickled, not its address
            source = f"""
                import ctypes, json, os, sys, numpy
                class Model:
                    def __init__(self): self.weight = 1
                    def __setstate__(self, state): {load}
                    def predict(self, data): {predict}
            """
            exec(dedent(source), names)
            folder = tmp_path / "hostile"
            shutil.copytree(models / "pickled", folder)
            (folder / "model.pkl").write_bytes(cloudpickle.dumps(names["Model"]()))  # type: ignore[operator]
            return folder

        return made

    @pytest.mark.parametrize(
        ("load", "predict", "problem"),
        [
            ("pass", "return [numpy.empty(1 << 26) for _ in range(1000)]", "needed more than 2000 MiB of memory"),
            ("os._exit(0)", "pass", "called exit"),
        ],
    )
    def test_ends_in_one_sentence(self, hostile: Callable[..., Path], load: str, predict: str, problem: str) -> None:
        assert tried(hostile(load, predict), Limits(120, 2000)) == Probe(problem)

    @pytest.mark.parametrize(
        ("load", "predict", "problem"),
        [
            (
                "import no_such_library",
                "pass",
                "a library that it needs is not installed here: No module named 'no_such_library'",
            ),
            ("raise ValueError('x' * 99999 + '\\nmore')", "pass", f"loading failed: {'x' * 500}"),
            ("sys.exit()", "pass", "loading called exit"),
            ("pass", "sys.exit(0)", "scoring its input example called exit"),
            ("pass", "raise KeyboardInterrupt", "scoring its input example failed: KeyboardInterrupt"),
            ("pass", "return [0.5, float('nan')]", "its output is not finite numbers"),
            ("pass", "return ['good'] * len(data)", "its output is not finite numbers"),
            ("pass", "return []", "its output is not finite numbers"),
        ],
    )
    def test_exception_becomes_one_sentence(
        self, hostile: Callable[..., Path], load: str, predict: str, problem: str
    ) -> None:
        """In this process, which these do not harm."""
        assert probe_child.tried(str(hostile(load, predict)), ())["problem"] == problem

    def test_does_not_score_for_ever(self, hostile: Callable[..., Path]) -> None:
        assert tried(hostile(predict="all(True for _ in iter(int, 1))"), Limits(4, 4096)) == Probe(
            "did not finish within 4 s"
        )

    def test_cannot_change_the_store_and_leaves_nothing(self, hostile: Callable[..., Path]) -> None:
        load = "; ".join(
            (
                "open(sys.argv[1] + '/model.pkl', 'wb').close()",
                "os.unlink(sys.argv[1] + '/conda.yaml')",
                "os.mkdir(sys.argv[1] + '/new')",
                "open(sys.argv[1] + '/new/file', 'w').close()",
                "os.chmod(sys.argv[1] + '/new', 0)",
                "os.symlink('/', 'root')",
            )
        )
        folder = hostile(load)
        before = state(folder)
        found = tried(folder)
        assert found.example != (), "it was loaded and scored once"
        assert "by mlflow.pyfunc" in found.problem, "its own copy is broken by the time that it is loaded again"
        assert state(folder) == before


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no JSON",
        b"[" * 100_000,
        b"{}",
        b'{"problem": 5}',
        b'{"example": ["0.5"]}',
        b'{"example": [NaN]}',
        b'{"example": [0.5], "sampled": -1}',
        b'{"example": [0.5], "worst": Infinity}',
        b'{"example": [0.5], "more": 1}',
        b'{"example": [0.5], "params": {"a": 1}}',
        b'{"problem": "' + b"x" * 2000 + b'"}',
        b'{"example": [0.5], "features": ["' + b"x" * (1 << 22) + b'"]}',
    ],
)
def test_answer_that_is_no_result(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(answer)
    assert probing._read(str(path)).problem == "its process did not write a result that can be used"
    path.write_bytes(b'{"example": [0.5]}')
    assert probing._read(str(path)) == Probe(example=(0.5,))
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    assert probing._read(str(path)).problem == "its process did not write a result that can be used"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / "MLmodel").write_text("other"), "MLmodel was changed after it was scanned"),
        (lambda folder: (folder / "MLmodel").unlink(), "MLmodel was removed after the folder was scanned"),
        (
            lambda folder: (folder / "code").mkdir() or (folder / "code" / "new.py").touch(),
            "code/new.py was added after the folder was scanned",
        ),
        (lambda folder: (folder / "code").symlink_to("/etc"), "code was added after the folder was scanned"),
        (
            lambda folder: (folder / "MLmodel").unlink() or (folder / "MLmodel").symlink_to("/etc/passwd"),
            "MLmodel could not be copied",
        ),
        (lambda folder: pipe_instead(folder / "MLmodel"), "MLmodel could not be copied (is not a regular file)"),
    ],
)
def test_nothing_is_loaded_but_what_was_scanned(
    models: Path, tmp_path: Path, temporary: Path, change: Callable[[Path], object], problem: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models / "booster", folder)
    hashes = scanned(folder)
    change(folder)
    assert probe(str(folder), hashes, ENOUGH).problem.startswith(problem)


class TestLimits:
    @pytest.mark.parametrize(
        ("script", "limits", "problem"),
        [
            ("open('here', 'w').write('done')", ENOUGH, ""),
            ("while True: pass", SHORT, "did not finish within 1 s"),
            ("while True: [os.write(pipe, b'noise' * 9999) for pipe in (1, 2)]", SHORT, "did not finish within 1 s"),
            ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass", SHORT, "did not finish within 1 s"),
            (
                "held = [bytearray(1 << 24) for _ in range(1000)]",
                ENOUGH._replace(megabytes=300),
                "needed more than 300 MiB of memory",
            ),
            pytest.param(
                SMALL_THINGS, ENOUGH._replace(megabytes=300), "needed more than 300 MiB of memory", id="small things"
            ),
            (
                "os.truncate('script.py', 400 << 20)",
                ENOUGH._replace(megabytes=300),
                "its process failed: [Errno 27] File too large: 'script.py'",
            ),
            ("os.write(2, b'a lie\\n')\nos._exit(3)", ENOUGH, "called exit (3)"),
            ("os.kill(os.getpid(), signal.SIGTERM)", ENOUGH, "the process died by signal 15 (terminated)"),
            ("import ctypes\nctypes.string_at(0)", ENOUGH, "the process died by signal 11 (segmentation fault)"),
            ("sys.exit(0)", ENOUGH, "its process called exit"),
            ("raise ValueError('first\\nsecond')", ENOUGH, "its process failed: first"),
            (
                "import no_such_library",
                ENOUGH,
                "a library that it needs is not installed here: No module named 'no_such_library'",
            ),
        ],
    )
    def test_problem(self, run: Run, script: str, limits: Limits, problem: str) -> None:
        assert run(script, limits=limits) == problem

    def test_no_secret_reaches_the_process(
        self, run: Run, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in (
            "AWS_SECRET_ACCESS_KEY",
            "MLFLOW_TRACKING_PASSWORD",
            "MY_TOKEN",
            "HTTPS_PROXY",
            "PYTHONPATH",
            "LD_PRELOAD",
            "XPATH",
        ):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("LC_ALL", "C.UTF-8")
        assert run("json.dump(dict(os.environ), open('environment', 'w'))") == ""
        seen = json.loads((tmp_path / "work" / "environment").read_text())
        assert seen["HOME"] == seen["TMPDIR"]
        assert os.path.dirname(seen["HOME"]) == str(temporary)
        allowed = {
            "PATH",
            "LANG",
            "LD_LIBRARY_PATH",
            "HOME",
            "TMPDIR",
            "DO_NOT_TRACK",
            "MLFLOW_DISABLE_TELEMETRY",
            "MLFLOW_TRACKING_URI",
            "JOBLIB_MULTIPROCESSING",
        }
        assert {
            name for name in seen if not name.startswith("LC_") and not name.endswith(("_THREADS", "_LIMIT"))
        } <= allowed
        assert (seen["LC_ALL"], seen["MLFLOW_TRACKING_URI"], seen["OMP_THREAD_LIMIT"]) == ("C.UTF-8", "none://", "1")

    @pytest.mark.skipif(LANDLOCK < 1, reason="this kernel has no Landlock")
    def test_nothing_but_its_folders_can_be_written_to(self, run: Run, tmp_path: Path) -> None:
        outside = tmp_path / "store"
        outside.mkdir()
        (outside / "file").write_text("kept")
        script = """
            import tempfile
            outside, done = sys.argv[1], []
            for number, attempt in enumerate((
                lambda: open(f"{outside}/new", "w"),
                lambda: open(f"{outside}/file", "a"),
                lambda: os.truncate(f"{outside}/file", 0),
                lambda: os.unlink(f"{outside}/file"),
                lambda: os.rename(f"{outside}/file", "taken"),
                lambda: os.rename("script.py", f"{outside}/script.py"),
                lambda: os.symlink("x", f"{outside}/link"),
                lambda: os.mkdir(f"{outside}/folder"),
                lambda: open(os.devnull, "w"),
                lambda: tempfile.NamedTemporaryFile().write(b"x"),
                lambda: os.mkdir("mine"),
            )):
                try:
                    attempt()
                    done.append(number)
                except OSError:
                    pass
            json.dump(done, open("done", "w"))
        """
        assert run(script, outside) == ""
        assert json.loads((tmp_path / "work" / "done").read_text()) == [8, 9, 10]
        assert [path.name for path in outside.iterdir()] == ["file"]
        assert (outside / "file").read_text() == "kept"

    @pytest.mark.skipif(LANDLOCK < 6, reason="this kernel's Landlock does not hold back signals")
    def test_this_process_can_neither_be_signalled_nor_looked_into(self, run: Run, tmp_path: Path) -> None:
        script = """
            refused = []
            for pid in (int(sys.argv[1]), os.getppid()):
                attempts = [lambda: os.kill(pid, 0), lambda: open(f"/proc/{pid}/environ").read()]
                for attempt in (*attempts, lambda: os.readlink(f"/proc/{pid}/fd/0")):
                    try:
                        attempt()
                    except OSError:
                        refused.append(pid)
            json.dump(len(refused), open("refused", "w"))
        """
        assert run(script, os.getpid()) == ""
        assert json.loads((tmp_path / "work" / "refused").read_text()) == 6

    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    def test_network_is_out_of_reach(self, run: Run, tmp_path: Path, kind: int) -> None:
        cut = (
            "import ctypes, sys; libc = ctypes.CDLL(None); sys.exit(libc.unshare(0x40000000) and "
            "libc.unshare(0x50000000))"
        )
        if subprocess.run([sys.executable, "-c", cut]).returncode:
            pytest.skip("this kernel gives no network of their own to processes")
        with socket.socket(socket.AF_INET, kind) as listener:
            listener.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                listener.listen()
            script = """
                try:
                    socket.socket(socket.AF_INET, int(sys.argv[1])).connect(("127.0.0.1", int(sys.argv[2])))
                    open("answer", "w").write("connected")
                except OSError as error:
                    open("answer", "w").write("refused")
            """
            assert run(script, int(kind), listener.getsockname()[1]) == ""
        assert (tmp_path / "work" / "answer").read_text() == "refused"

    @OLDER
    @pytest.mark.parametrize(
        ("end", "limits", "problem"),
        [
            ("pass", ENOUGH, ""),
            ("os.abort()", ENOUGH, "the process died by signal 6 (aborted)"),
            ("signal.pause()", SHORT._replace(seconds=3), "did not finish within 3 s"),
        ],
    )
    def test_nobody_outlives_it(self, run: Run, tmp_path: Path, end: str, limits: Limits, problem: str) -> None:
        """On a kernel that takes no filter of system calls: else there is nobody."""
        script = f"""
            child = os.fork()
            if not child:
                signal.pause()
            reader, writer = os.pipe()
            middle = os.fork()
            if not middle:
                os.setsid()
                if os.fork():
                    os._exit(0)
                os.write(writer, str(os.getpid()).encode())
                signal.pause()
            os.waitpid(middle, 0)
            json.dump([os.getpid(), os.getppid(), child, int(os.read(reader, 20))], open("pids", "w"))
            {end}
        """
        assert without(PRCTL, do=lambda: run(script, limits=limits)) == problem
        pids = json.loads((tmp_path / "work" / "pids").read_text())
        assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []

    def test_there_is_one_process_of_many_threads(self, run: Run, tmp_path: Path) -> None:
        """So that its limit of memory is that of all. Locks between processes can be made all the same."""
        script = """
            import multiprocessing, subprocess, threading
            from concurrent.futures import ThreadPoolExecutor
            refused = []
            ways = (os.fork, lambda: subprocess.run(["true"]), lambda: os.posix_spawn("/bin/true", ["true"], {}),
                    lambda: multiprocessing.Process(target=int).start(), lambda: multiprocessing.Pool(2),
                    lambda: os.system("true") and os.kill(1, 0))
            for way in ways:
                try:
                    way()
                except PermissionError:
                    refused.append(1)
            multiprocessing.Lock().acquire()
            with ThreadPoolExecutor(4) as pool:
                refused += pool.map(abs, range(4))
            if os.uname().machine == "x86_64":
                import ctypes
                libc = ctypes.CDLL(None)
                # vfork, clone3, clone without a thread, and fork by its x32 number
                ways = (58,), (435, bytes(64), 64), (56, 17), (0x40000039,)
                refused.append(all(libc.syscall(*way) == -1 for way in ways))
            json.dump(refused, open("refused", "w"))
        """
        assert run(script) == ""
        there = [True] if os.uname().machine == "x86_64" else []
        assert json.loads((tmp_path / "work" / "refused").read_text()) == [1] * 6 + [0, 1, 2, 3, *there]

    def test_memory_of_threads_and_of_files_without_a_name_is_within_the_limit(self, run: Run) -> None:
        limits = ENOUGH._replace(megabytes=400)
        threads = """
            import threading
            held, errors, started = [], [], threading.Barrier(4)
            def hold():
                started.wait()  # a thread that starts when nothing is left is refused in other words
                try:
                    for _ in range(40): held.append(bytearray(1 << 22))
                except MemoryError as error: errors.append(error)
            threads = [threading.Thread(target=hold) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            del held[:]
            raise errors[0]
        """
        assert run(threads, limits=limits) == "needed more than 400 MiB of memory"
        assert "Function not implemented" in run("os.memfd_create('held')", limits=limits)

    def test_files_can_be_copied_with_their_modes_and_times(self, run: Run, tmp_path: Path) -> None:
        script = """
            import shutil, tempfile
            os.mkdir("folder")
            shutil.copy("script.py", "folder/one")
            shutil.copy2("script.py", "folder/two")
            shutil.copytree("folder", "again")
            shutil.copytree("again", tempfile.mkdtemp() + "/again")
        """
        assert run(script) == ""
        assert sorted(path.name for path in (tmp_path / "work" / "again").iterdir()) == ["one", "two"]

    @pytest.mark.parametrize("missing", [(), pytest.param((UNSHARE,), marks=OLDER)])
    def test_an_ordinary_user_is_held_alike(
        self, tmp_path: Path, ordinary_user: Callable[..., str], missing: tuple[int, ...]
    ) -> None:
        """What is taken from the process is taken here: another user may not look to where the interpreter lies."""
        (tmp_path / "file").write_text("kept")
        (tmp_path / "work").mkdir()
        code = f"""
import ctypes, os, socket, sys
from mlflow_compliance.store.models import sandbox_child
sys.path.append({str(Path(__file__).parents[2] / "support")!r})
from kernels import without
drop()
ctypes.CDLL(None).prctl(4, 1)  # whoever was root before may not look into itself
os.chdir(sys.argv[1] + "/work")
def work():
    sandbox_child._confine(60, 4096, (os.getcwd(),))
    os.chmod("../file", 0o777)
    os.utime("../file", (1, 1))
    refused = []
    ways = {{
        "socket": lambda: socket.socket(socket.AF_UNIX),
        "fork": os.fork,
        "signal": lambda: os.kill(os.getppid(), 0),
        "write": lambda: open("../file", "w"),
        "own": lambda: open("own", "w"),
        "shm": lambda: os.mkdir("/dev/shm/of-an-ordinary-user"),
    }}
    for name, way in ways.items():
        try:
            way()
        except OSError:
            refused.append(name)
    print(*refused)
without(*{missing}, do=work) if {missing} else work()  # no space of users for one thread alone
"""
        before = (tmp_path / "file").stat()
        shared = [] if not missing else ["shm"]
        assert ordinary_user(code, tmp_path).split() == ["socket", "fork", "signal", "write", *shared]
        after = (tmp_path / "file").stat()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
        assert not os.path.exists("/dev/shm/of-an-ordinary-user")

    @pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_it_dies_with_whoever_started_it(self, tmp_path: Path, blow: int) -> None:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        os.mkfifo(tmp_path / "pids")
        (tmp_path / "script.py").write_text(
            "import os, signal\npids = open('pids', 'w')\nprint(os.getpid(), os.getppid(), "
            "file=pids, flush=True)\nsignal.pause()"
        )
        starter = f"""
            import signal, site
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job was told to ignore it
            from mlflow_compliance.store.models.probe import Limits, run_limited
            site.ENABLE_USER_SITE, site.USER_SITE = True, {str(tmp_path)!r}
            try:
                run_limited("script", [], {str(tmp_path)!r}, Limits(600, 1024))
            except KeyboardInterrupt:
                print("interrupted")
        """
        pipe = os.open(tmp_path / "pids", os.O_RDONLY | os.O_NONBLOCK)
        with subprocess.Popen(
            [sys.executable, "-c", dedent(starter)],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert readable(pipe)
            pids = [int(pid) for pid in os.read(pipe, 100).split()]
            watched = [os.pidfd_open(pid) for pid in pids]
            process.send_signal(blow)
            said, _ = process.communicate()
        assert all(readable(pid) for pid in watched)
        if blow == signal.SIGINT:
            assert said == "interrupted\n"
            assert list(temporary.iterdir()) == []
        for file in (pipe, *watched):
            os.close(file)

    def test_modules_come_from_where_packages_are_installed(
        self, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "installed").mkdir()
        (tmp_path / "installed" / "installed_by_the_user.py").write_text("import mlflow_compliance")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
        missing = "its process failed: No module named installed_by_the_user"
        assert run_limited("installed_by_the_user", [], str(tmp_path / "installed"), ENOUGH) == missing
        monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
        monkeypatch.setattr(site, "USER_SITE", str(tmp_path / "installed"))
        assert run_limited("installed_by_the_user", [], str(tmp_path), ENOUGH) == ""

    def test_supervisor_that_does_not_answer_is_ended_with_all_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sandbox, "_GRACE", 0)
        deaf = (
            "import os, signal\nsignal.signal(15, signal.SIG_IGN)\nchild = os.fork()\nif child: print(child, "
            "flush=True)\nsignal.pause()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", deaf],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert process.stdout
        child = os.pidfd_open(int(process.stdout.readline()))
        sandbox._end(process)
        assert process.returncode == -signal.SIGKILL
        assert readable(child)
        os.close(child)

    def test_it_runs_the_program_that_started_it(self, tmp_path: Path) -> None:
        """Not another version of it that is installed."""
        shutil.copytree(Path(sandbox.__file__).parents[2], tmp_path / "src" / "mlflow_compliance")
        starter = f"""
            from mlflow_compliance.store.models.probe import Limits, run_limited
            print(run_limited("mlflow_compliance.where", [], {str(tmp_path)!r}, Limits(60, 1024)))
        """
        (tmp_path / "src" / "mlflow_compliance" / "where.py").write_text(
            "import sys\nwith open('path', 'w') as f: print(*sys.path, file=f)"
        )
        done = subprocess.run(
            [sys.executable, "-c", dedent(starter)],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("\n", "")
        assert str(tmp_path) not in (tmp_path / "path").read_text()

    def testtemporary_folder_is_removed_whatever_its_rights(
        self, tmp_path: Path, ordinary_user: Callable[..., str]
    ) -> None:
        code = """
import os, sys
from mlflow_compliance.store.models.sandbox import temporary_folder
drop()
with temporary_folder() as folder:
    os.makedirs(folder + "/one/two")
    os.symlink(sys.argv[1], folder + "/one/two/link")
    for path in ("/one/two", "/one", ""):
        os.chmod(folder + path, 0)
print(os.path.lexists(folder))
"""
        (tmp_path / "outside").mkdir(mode=0o500)
        assert ordinary_user(code, tmp_path / "outside") == "False"
        assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o500


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def readable(file: int) -> bool:
    """Whether it becomes so, in a minute at most."""
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    return bool(waiting.poll(60_000))
