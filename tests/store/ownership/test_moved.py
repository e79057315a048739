from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_compliance.settings.toml import parse, quoted
from mlflow_compliance.snapshot.moved import Moved, PlaceInRow, begins_with
from mlflow_compliance.snapshot.presence import Unknown, Why
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.store.ownership import moved
from mlflow_compliance.store.ownership.moved import find_moved, stem

RUN, OTHER = "a" * 32, "b" * 32
MODEL = "m-" + "d" * 32


@pytest.mark.parametrize(
    ("uri", "key", "prefix", "tail"),
    [
        (f"/data/mlruns/1/{RUN}/artifacts", RUN, "/data/mlruns", ("1", RUN)),
        (f"file:///C:/a%20b/1/{RUN}/artifacts", RUN, "file:///C:/a%20b", ("1", RUN)),
        (f"C:\\mlruns\\1\\{RUN}\\artifacts", RUN, "C:\\mlruns", ("1", RUN)),
        (f"mlflow-artifacts:/1/{RUN}/artifacts", RUN, "mlflow-artifacts:", ("1", RUN)),
        (f"mlflow-artifacts://host:5000/1/{RUN}/artifacts", RUN, "mlflow-artifacts://host:5000", ("1", RUN)),
        (f"/data/mlruns/1/models/{MODEL}/artifacts", MODEL, "/data/mlruns", ("1", "models", MODEL)),
        (f"/data/of its own/{RUN}/artifacts", RUN, "/data/of its own", (RUN,)),
        (f"/data/{OTHER}/mlruns/1/{RUN}/artifacts/model", "scorer/1", f"/data/{OTHER}/mlruns", ("1", RUN)),
        (f"/data/mlruns/1/{RUN}/artifacts/{OTHER}", "scorer/1", "/data/mlruns", ("1", RUN)),
        ("/data/mlruns/1", "1", "/data/mlruns/1", ()),
        ("s3://bucket/somewhere", "scorer/1", "s3://bucket/somewhere", ()),
    ],
)
def test_a_location_is_cut_before_its_ids(uri: str, key: str, prefix: str, tail: tuple[str, ...]) -> None:
    assert stem(uri, "1", key) == (prefix, tail)


def found_in(folder: Path, *uris: str, why: Why = Why.ELSEWHERE) -> list[Moved]:
    rows = [
        Location(
            EntityRef("run", next(part for part in uri.replace("\\", "/").split("/") if len(part) == 32)), "1", uri
        )
        for uri in uris
    ]
    return list(find_moved(rows, {row.owner.place: Unknown(why, "there", "") for row in rows}, [str(folder)], []))


@pytest.mark.parametrize("below", ["", "mlruns", "backup/mlruns"])
def test_the_folder_that_bears_the_ids_is_found_near_the_store(tmp_path: Path, below: str) -> None:
    (tmp_path / below / "1" / RUN).mkdir(parents=True)
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts", f"/old/1/{OTHER}/artifacts") == [
        Moved("/old", (os.path.normpath(tmp_path / below),), 1, 2, ("there",))
    ]


def test_it_is_not_looked_for_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b" / "c" / "1" / RUN).mkdir(parents=True)
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts") == []
    for number in range(20):
        (tmp_path / f"folder {number}").mkdir()
    (tmp_path / "z" / "1" / RUN).mkdir(parents=True)
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts")
    monkeypatch.setattr(moved, "MOST", 10)
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts") == []


@pytest.mark.parametrize("why", [Why.SCHEME, Why.CLOSED, Why.NOT_READ])
def test_what_is_known_to_lie_elsewhere_is_not_looked_for(tmp_path: Path, why: Why) -> None:
    (tmp_path / "1" / RUN).mkdir(parents=True)
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts", why=why) == []


def test_another_experiment_with_the_same_number_is_no_match(tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "1" / OTHER).mkdir(parents=True)
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts") == []


@pytest.mark.parametrize(
    "uri",
    [
        f"1/{RUN}/artifacts",
        f"/1/{RUN}/artifacts",
        f"file:///1/{RUN}/artifacts",
        f"file://ann:secret@host/old/1/{RUN}/artifacts",
    ],
)
def test_what_no_line_can_say_is_not_told(tmp_path: Path, uri: str) -> None:
    (tmp_path / "1" / RUN).mkdir(parents=True)
    assert found_in(tmp_path, uri) == []


def test_a_folder_whose_name_is_no_text_is_passed_over(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9/1/" + RUN.encode())
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts") == []


def test_one_folder_under_two_names_is_one(tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "1" / RUN).mkdir(parents=True)
    (tmp_path / "zlink").symlink_to(tmp_path / "mlruns")
    assert found_in(tmp_path, f"/old/1/{RUN}/artifacts")[0].folder == str(tmp_path / "mlruns")


@pytest.mark.parametrize(
    "text", ["/app/mlruns", "C:\\Users\\anna", 'a"b', 'it\'s "so" \\', "tab\t and \x1b", "größe", "a\u202eb", ""]
)
def test_a_text_is_written_as_toml_reads_it(text: str) -> None:
    assert parse(f"{quoted(text)} = {quoted(text)}") == {text: text}
    assert quoted(text).isprintable()


def test_a_windows_path_is_written_without_escapes() -> None:
    assert quoted("C:\\Users\\anna") == "'C:\\Users\\anna'"


def test_a_prefix_holds_at_separators_alone() -> None:
    assert [begins_with(uri, "/old/") for uri in ("/old", "/old/1", "/older/1", "/new/old")] == [
        True,
        True,
        False,
        False,
    ]
    assert PlaceInRow("model_version", ("a/b", "1"), "", "", "").row == ("model_version", "a/b/1")
