"""What a plan says of itself: which changes are safe, how many of each kind, how many bytes."""

from __future__ import annotations

import pytest
from gates import LabMaker
from repairs import plan_for
from stores import BIG, Lab

from mlflow_compliance.changes import Applicability, Change, EndRun, LinkDuplicate, SetAlias, SetRunTag
from mlflow_compliance.repair.brief import brief
from mlflow_compliance.repair.totals import totals
from mlflow_compliance.words import size_of

SAFE = {"SetExperimentTag", "SetRunTag"}


def own_kinds() -> dict[str, type[Change]]:
    return {name: kind for name, kind in Change.kinds.items() if kind.__module__.startswith("mlflow_compliance.")}


def test_every_kind_of_change_says_what_it_is() -> None:
    """What says nothing would count as reversible, and as 'other'."""
    silent = [name for name, kind in own_kinds().items() if not {"applicability", "in_total"} <= {*vars(kind)}]
    assert silent == []
    assert len(own_kinds()) > 25
    assert {name for name, kind in own_kinds().items() if kind.applicability is Applicability.SAFE} == SAFE


def test_every_kind_is_counted_in_words() -> None:
    for name, kind in own_kinds().items():
        one, more = (kind.in_total.format(s=s, es=es, y=y) for s, es, y in (("", "", "y"), ("s", "es", "ies")))
        assert one != more, name
    assert len({kind.in_total for kind in own_kinds().values()}) == len(own_kinds())


def test_thousands_are_told_apart_and_the_most_come_first(make_lab: LabMaker) -> None:
    lab: Lab = make_lab()
    changes: list[Change] = [EndRun(f"r{number}", "1", "KILLED", 5) for number in range(1234)]
    changes += [SetRunTag("r1", "a", "b", None), SetAlias("m", "a", None, "1"), SetAlias("m", "b", None, "1")]
    told = totals(changes, lab.read())
    assert told == "1,234 runs ended, 2 aliases set, 1 tag of runs set; 1 changes are safe, 1,236 reversible"
    assert totals([], lab.read()) == ""


def test_bytes_are_those_that_no_path_holds_any_more(make_lab: LabMaker) -> None:
    lab: Lab = make_lab()
    key = lab.experiment("credit_delivery")
    for number in range(3):
        lab.run(key, f"run {number}", files={"shap.bin": BIG})
    first, second, third = sorted(lab.mlruns.rglob("shap.bin"))
    # Two paths of one copy: linking both frees it once, linking one of them nothing.
    second.unlink()
    second.hardlink_to(third)
    plan = plan_for(lab, "ART001")
    links = [change for change in plan.changes if isinstance(change, LinkDuplicate)]
    assert [link.path for link in links] == [str(second), str(third)]
    assert "2.0 kB saved" in totals(plan.changes, plan.start)
    assert "saved" not in totals(links[:1], plan.start)
    assert str(first) == links[0].kept


def test_a_long_plan_begins_with_its_totals(make_lab: LabMaker) -> None:
    lab: Lab = make_lab()
    key = lab.experiment("credit_delivery")
    for number in range(60):
        lab.run(key, f"stuck {number}", status="RUNNING")
    lab.stray("26", {"left.bin": b"left behind" * 200})
    lines = list(plan_for(lab, "RUN001", "ART002").lines())
    assert lines[0] == lines[-2]
    assert lines[0].startswith("totals: 60 runs ended, 1 artifact root noted as owned, 1 orphan moved aside, ")
    assert lines[0].endswith("2.2 kB moved aside; 0 changes are safe, 62 reversible")
    assert lines[-1].startswith("62 changes to 62 entities; ")
    short = list(plan_for(lab, "ART002").lines())
    assert [line for line in short if line.startswith("totals: ")] == [short[-2]]


def test_an_example_without_room_is_left_out(make_lab: LabMaker) -> None:
    lab: Lab = make_lab()
    lab.run(lab.experiment("credit_delivery"), "a run that is stuck", status="RUNNING")
    plan = plan_for(lab, "RUN001")
    (wide,), (middle,), (narrow,) = (
        [line for line in brief(plan, width) if line.startswith("    + ")] for width in (200, 70, 50)
    )
    assert narrow == "    + reversible  1 run ended  (RUN001)"
    assert wide.startswith(f"{narrow}  ")
    assert not wide.endswith("…")
    assert middle.endswith("…")
    assert len(middle) == 70
    assert wide.startswith(middle[:-1])


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (4_100_000_000, "4.1 GB"),
        (10**16, "10000 TB"),
    ],
)
def test_sizes_are_told_in_units_of_a_thousand(size: int, said: str) -> None:
    assert size_of(size) == said
