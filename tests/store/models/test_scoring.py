from __future__ import annotations

import hashlib
import io
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from mlflow_compliance.production.metrics import COUNTS, RATIOS, agree, differs
from mlflow_compliance.snapshot.evidence import Scored
from mlflow_compliance.store.models import scoring
from mlflow_compliance.store.models.sandbox import Limits
from mlflow_compliance.store.models.scoring import Scoring, score, score_apart

REAL = Path(__file__).parents[4] / "shared" / "data" / "credit_scoring" / "static_model_predictions.parquet"
COSTS = {"false_negative_cost": 10.0, "false_positive_cost": 1.0}
TOLERANCE = 0.0005
KNOWN = {
    # tp, fp, fn, tn; accuracy, precision, recall, f1; cost
    0.338: ((20434, 118861, 4391, 163825), (0.59919, 0.14670, 0.82312, 0.24901), 162771),
    0.48: ((16671, 69996, 8154, 212690), (0.74586, 0.19236, 0.67154, 0.29905), 151536),
}

Write = Callable[..., Path]


def scored(path: Path, threshold: float = 0.5, **given: Any) -> Scored:
    return score(
        str(path), **{"target": "TARGET", "probability": "PROBABILITY", "threshold": threshold, **COSTS, **given}
    )


def table(target: Any, probability: Any, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"TARGET": target, "PROBABILITY": probability, **more})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writing(frame: pd.DataFrame, name: str = "p.parquet") -> Path:
        path = tmp_path / name
        if name.lower().endswith(".csv"):
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return path

    return writing


@pytest.mark.skipif(not REAL.exists(), reason="the shared folder with real predictions is not there")
@pytest.mark.parametrize("threshold", KNOWN)
def test_real_predictions_give_the_known_answers(threshold: float) -> None:
    found = scored(REAL, threshold)
    counts, ratios, cost = KNOWN[threshold]
    assert tuple(found.values[name] for name in ("tp", "fp", "fn", "tn")) == counts
    assert tuple(round(found.values[name], 5) for name in ("accuracy", "precision", "recall", "f1")) == ratios
    assert round(found.values["roc_auc"], 6) == 0.783854
    assert found.values["business_cost"] == cost
    assert (found.rows, found.threshold, found.problem) == (307_511, threshold, "")
    assert found.sha256 == hashlib.sha256(REAL.read_bytes()).hexdigest()


def counted(rows: list[tuple[int, float]], threshold: float) -> dict[str, float]:
    """The metrics in plain Python, pair by pair."""
    tp = sum(target == 1 and probability >= threshold for target, probability in rows)
    fp = sum(target == 0 and probability >= threshold for target, probability in rows)
    positive, negative = ([probability for target, probability in rows if target == label] for label in (1, 0))
    fn, tn = len(positive) - tp, len(negative) - fp
    wins = sum((one > other) + (one == other) / 2 for one in positive for other in negative)
    return {
        "accuracy": (tp + tn) / len(rows),
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / len(positive),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "roc_auc": wins / (len(positive) * len(negative)),
        "tn": tn,
        "fp": fp,
        "fn": fn,
        "tp": tp,
        "business_cost": 10 * fn + fp,
    }


PROBABILITY = st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.3, 0.48, 1.0])
ROWS = st.lists(st.tuples(st.integers(0, 1), PROBABILITY), min_size=2, max_size=30).filter(
    lambda rows: len({target for target, _ in rows}) == 2
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, threshold=PROBABILITY, kind=st.sampled_from(["p.parquet", "p.csv", "text.parquet"]))
@example(rows=[(1, 0.48), (0, 0.47999999999999998)], threshold=0.48, kind="p.csv")
@example(rows=[(1, 0.0), (0, 0.0)], threshold=1.0, kind="p.parquet")
def test_the_metrics_are_those_of_a_plain_count(
    write: Write, rows: list[tuple[int, float]], threshold: float, kind: str
) -> None:
    target, probability = (list(column) for column in zip(*rows, strict=True))
    found = scored(
        write(table(target, [repr(value) for value in probability] if kind == "text.parquet" else probability), kind),
        threshold,
    )
    assert found.problem == ""
    assert found.values == pytest.approx(counted(rows, threshold), abs=1e-12)
    assert list(map(type, found.values.values())) == [float] * 10
    assert agree(found.values, **COSTS, tolerance=0) == []


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, threshold=PROBABILITY)
def test_the_metrics_are_those_of_scikit_learn(rows: list[tuple[int, float]], threshold: float) -> None:
    target, probability = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    decided = (probability >= threshold).astype(float)
    found = scoring._metrics(scoring.Predictions("", target, probability), threshold)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(target, probability), abs=1e-12)
    assert found["accuracy"] == metrics.accuracy_score(target, decided)
    for name in ("precision", "recall", "f1"):
        assert found[name] == getattr(metrics, f"{name}_score")(target, decided, zero_division=0), name


def test_scoring_waits_for_no_large_library(write: Write) -> None:
    """It is asked right after a run was logged; scikit-learn takes a second to import."""
    path = write(FOUR, "p.parquet")
    code = "import sys; from mlflow_compliance.store.models.scoring import score as s; "
    code += "r = s(sys.argv[1], target='TARGET', probability='PROBABILITY', "
    code += "threshold=0.5, false_negative_cost=1, false_positive_cost=1); "
    code += "assert r.values, r; print(sorted({'pandas', 'scipy', 'sklearn', 'mlflow'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FOUR = table([0, 1, 0, 1], [0.1, 0.9, 0.6, 0.2])


@pytest.mark.parametrize(
    "frame",
    [
        FOUR,
        FOUR.astype(object),
        FOUR.astype({"PROBABILITY": str}),
        FOUR.astype({"TARGET": bool}),
        FOUR.astype({"TARGET": "int8"}),
        FOUR.astype({"TARGET": "category"}),
        FOUR.astype({"TARGET": "Int64", "PROBABILITY": "Float64"}),
        FOUR.assign(ID=["a\nb", "c", "d", "e"]),
        FOUR.set_index("TARGET", append=True).reset_index(level=1),
    ],
    ids=["floats", "objects", "text", "booleans", "small", "categories", "nullable", "more columns", "odd index"],
)
@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "P.CSV", "a {b} %s.parquet"])
def test_however_the_columns_are_held(write: Write, frame: pd.DataFrame, name: str) -> None:
    found = scored(write(frame, name))
    assert found.problem == ""
    assert [found.values[name] for name in COUNTS] == [1, 1, 1, 1]


def test_texts_of_several_lines_in_a_large_file(write: Write) -> None:
    found = scored(write(pd.concat([FOUR.assign(NOTE="one\ntwo, three\n" * 5)] * 10_000), "p.csv"))
    assert (found.problem, found.values["tp"]) == ("", 10_000)


def test_a_parquet_file_may_have_any_name(write: Write) -> None:
    path = write(FOUR, "predictions")
    found = scored(path)
    assert (found.path, found.rows, found.sha256) == (str(path), 4, hashlib.sha256(path.read_bytes()).hexdigest())


def test_half_a_probability_is_no_rounding_matter(write: Write) -> None:
    """Single precision is compared as what it is, not as what somebody meant by it."""
    found = scored(write(FOUR.assign(PROBABILITY=FOUR["PROBABILITY"].astype("float32"))), 0.9)
    assert found.values["tp"] == 0


def csv(text: str) -> bytes:
    return text.encode()


def parquet(frame: pd.DataFrame) -> bytes:
    made = io.BytesIO()
    frame.to_parquet(made)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.csv", csv("TARGET,SCORE,ID\n1,0.5,7\n"), "p.csv has no column PROBABILITY; it has TARGET, SCORE, ID"),
        ("p.csv", csv("y;p\n1;0.5\n"), "p.csv has no columns TARGET and PROBABILITY; it has y;p"),
        ("p.parquet", parquet(FOUR[["PROBABILITY"]]), "p.parquet has no column TARGET; it has PROBABILITY"),
        ("p.csv", csv("TARGET,PROBABILITY\n"), "p.csv has no rows"),
        ("p.parquet", parquet(FOUR[:0]), "p.parquet has no rows"),
        (
            "p.csv",
            csv("TARGET,PROBABILITY\n1,0.5\n0,\n0,NaN\n1,high\n"),
            "p.csv: 3 of 4 values of PROBABILITY are missing or no numbers",
        ),
        ("p.csv", csv("TARGET,PROBABILITY\n,0.5\n0,0.1\n"), "p.csv: 1 of 2 values of TARGET are missing or no numbers"),
        (
            "p.parquet",
            parquet(table([0, 1], [0.5, math.nan])),
            "p.parquet: 1 of 2 values of PROBABILITY are missing or no numbers",
        ),
        (
            "p.parquet",
            parquet(table([0, 1], [[0.5], [0.1]])),
            "p.parquet: 2 of 2 values of PROBABILITY are missing or no numbers",
        ),
        (
            "p.parquet",
            parquet(table([0, 1], pd.to_datetime(["2026", "2027"]))),
            "p.parquet: 2 of 2 values of PROBABILITY are missing or no numbers",
        ),
        (
            "p.csv",
            csv("TARGET,PROBABILITY\n1,1.5\n0,-0.1\n0,inf\n1,1\n"),
            "p.csv: 3 of 4 values of PROBABILITY are not between 0 and 1",
        ),
        (
            "p.csv",
            csv("TARGET,PROBABILITY\n2,0.5\n0,0.1\n0.5,0.1\n"),
            "p.csv: 2 of 3 values of TARGET are neither 0 nor 1",
        ),
        (
            "p.csv",
            csv("TARGET,PROBABILITY\n1,0.5\n1,0.1\n"),
            "p.csv: TARGET is 1 in every row, and ROC AUC needs both classes",
        ),
        ("p.txt", csv("TARGET,PROBABILITY\n1,0.5\n"), "p.txt is neither a Parquet file nor named .csv"),
        ("p.parquet", b"", "p.parquet is neither a Parquet file nor named .csv"),
        ("p.parquet", parquet(FOUR)[:-20], "p.parquet cannot be parsed: "),
        ("p.csv", b"", "p.csv cannot be parsed: Empty CSV file"),
        (
            "p.csv",
            b"TARGET,PROBABILITY\n1,\xff\xfe0.5\n",
            "p.csv: 1 of 1 values of PROBABILITY are missing or no numbers",
        ),
        ("p.csv", csv("TARGET,PROBABILITY\n7,1,0.5\n8,0,0.1\n"), "p.csv cannot be parsed: "),
        ("p.csv", csv("TARGET,TARGET,PROBABILITY\n1,0,0.5\n"), "p.csv has more than one column TARGET"),
    ],
)
def test_what_cannot_be_scored_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = scored(tmp_path / name)
    assert found.problem == problem if not problem.endswith(": ") else found.problem.startswith(problem)
    assert "\n" not in found.problem
    assert found.values == {}


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert scored(tmp_path / "gone.csv").problem == "gone.csv cannot be read: no such file or directory"
    assert scored(tmp_path / "folder.csv").problem == "folder.csv cannot be read: is not a regular file"
    assert scored(tmp_path / "link.csv").problem == "link.csv cannot be read: is a symbolic link"
    assert scored(tmp_path / "pipe.csv").problem == "pipe.csv cannot be read: is not a regular file"


# What the recorded metrics say of one another.

TRUE = {
    "tn": 212690.0,
    "fp": 69996.0,
    "fn": 8154.0,
    "tp": 16671.0,
    "accuracy": 0.74586,
    "precision": 0.19236,
    "recall": 0.67154,
    "f1": 0.29905,
    "roc_auc": 0.783854,
    "business_cost": 151536.0,
}


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        ({}, []),
        ({"roc_auc": 0.1}, []),
        ({"f1": 0.31}, ["f1 is 0.31 and follows as 0.299056 from precision and recall"]),
        ({"accuracy": 0.712}, ["accuracy is 0.712 and follows as 0.745863 from tn, fp, fn and tp"]),
        ({"recall": 0.671}, ["recall is 0.671 and follows as 0.671541 from tp and fn"]),
        ({"business_cost": 151530}, ["business_cost is 151530 and follows as 151536 from fn and fp"]),
        ({"business_cost": 151536.4}, []),
        ({"accuracy": math.nan}, ["accuracy is nan and follows as 0.745863 from tn, fp, fn and tp"]),
        (
            {"tp": 0.0, "fp": 0.0},
            [
                "accuracy is 0.74586 and follows as 0.963078 from tn, fp, fn and tp",
                "precision is 0.19236 and follows as 0 from tp and fp",
                "recall is 0.67154 and follows as 0 from tp and fn",
                "business_cost is 151536 and follows as 81540 from fn and fp",
            ],
        ),
    ],
)
def test_metrics_that_contradict_one_another(change: dict[str, float], sentences: list[str]) -> None:
    assert agree({**TRUE, **change}, **COSTS, tolerance=TOLERANCE) == sentences


def test_only_what_is_there_is_compared() -> None:
    assert agree({}, **COSTS, tolerance=0) == []
    assert agree({"f1": 0.9, "precision": 0.1, "tp": 1.0}, **COSTS, tolerance=0) == []
    assert agree({"accuracy": 0.1, "tn": math.nan, "fp": 0, "fn": 0, "tp": 5}, **COSTS, tolerance=0) == []
    counts = {name: TRUE[name] for name in COUNTS}
    assert agree({**counts, "f1": 0.5}, **COSTS, tolerance=TOLERANCE) == [
        "f1 is 0.5 and follows as 0.299053 from tp, fp and fn"
    ]


def test_large_figures_are_told_in_full() -> None:
    found = agree({"business_cost": 7.0, "fn": 123456.0, "fp": 7.0}, **COSTS, tolerance=0)
    assert found == ["business_cost is 7 and follows as 1234567 from fn and fp"]


@given(precision=st.floats(0, 1), recall=st.floats(0, 1), digits=st.integers(2, 6))
@example(precision=0.0, recall=0.0, digits=3)
@example(precision=0.1955, recall=0.99951, digits=3)
def test_rounding_is_no_contradiction(precision: float, recall: float, digits: int) -> None:
    both = precision + recall
    values = {"precision": precision, "recall": recall, "f1": 2 * precision * recall / both if both else 0.0}
    rounded = {name: round(value, digits) for name, value in values.items()}
    assert agree(rounded, **COSTS, tolerance=0.5 * 10**-digits) == []


@pytest.mark.parametrize("name", [*RATIOS, "other"])
def test_ratios_differ_by_the_tolerance(name: str) -> None:
    assert not differs(name, 0.3, 0.1, 0.2)
    assert not differs(name, 0.7455, 0.746, TOLERANCE)
    assert differs(name, 0.7454, 0.746, TOLERANCE)
    assert differs(name, 0.746, 0.7454, TOLERANCE)


@pytest.mark.parametrize("name", [*COUNTS, "business_cost"])
def test_counts_and_cost_differ_by_half(name: str) -> None:
    assert not differs(name, 10.5, 10, 0)
    assert differs(name, 11, 10, 5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_differs_from_every_number(bad: float) -> None:
    assert differs("f1", bad, 0.5, 1)
    assert differs("tn", bad, 0.5, 1)


ROOM = Limits(60, 1024)


def apart(path: Path, limits: Limits = ROOM) -> Scored:
    return score_apart(str(path), Scoring("TARGET", "PROBABILITY", 0.5, 10.0, 1.0), limits)


class TestApart:
    def test_a_process_of_its_own_says_the_same(self, write: Write, tmp_path: Path) -> None:
        path = write(table([0, 1, 1, 0], [0.1, 0.9, 0.3, 0.4]))
        assert apart(path) == scored(path)
        for bad in (write(table([0, 1], [0.1, 7.0])), tmp_path / "gone.parquet"):
            assert apart(bad) == scored(bad)
            assert apart(bad).problem

    def test_numbers_that_stand_once_for_many_rows(self, tmp_path: Path) -> None:
        path, rows = tmp_path / "p.parquet", 100_000_000
        with pq.ParquetWriter(path, pa.schema([("TARGET", pa.int64()), ("PROBABILITY", pa.float64())])) as writer:
            part = pa.table({"TARGET": pa.array([1] * 1_000_000), "PROBABILITY": pa.array([0.5] * 1_000_000)})
            for _ in range(rows // 1_000_000):
                writer.write_table(part)
        assert path.stat().st_size < 1 << 20
        found = apart(path)
        own = "which has limits (models.memory_limit, models.time_limit), needed more than 1024 MiB of memory"
        assert found.problem == f"p.parquet cannot be scored: the process that reads it, {own}"
        assert found.values == {}

    @pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
    def test_a_file_with_more_bytes_than_there_is_room_for(self, tmp_path: Path, name: str) -> None:
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 43)
        assert apart(tmp_path / name).problem.startswith(f"{name} is larger than the 1024 MiB of memory that")

    def test_a_field_that_is_larger_than_a_block(self, tmp_path: Path) -> None:
        path = tmp_path / "p.csv"
        path.write_text("TARGET,PROBABILITY\n" + "1" * (1 << 24) + ",0.5\n0,0.5\n")
        assert "p.csv cannot be parsed" in apart(path).problem

    def test_many_columns_are_told_in_few_words(self, tmp_path: Path) -> None:
        path = tmp_path / "p.csv"
        path.write_text(",".join(f"column{number}" for number in range(20_000)) + "\n")
        assert len(apart(path).problem) < 600

    def test_a_process_that_does_not_end(self, write: Write) -> None:
        found = apart(write(table([0, 1], [0.1, 0.9])), Limits(0.01, 1024))
        assert found.problem.endswith(
            "which has limits (models.memory_limit, models.time_limit), did not finish within 0.01 s"
        )
