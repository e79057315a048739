"""One fact, one value: how values are compared, and where they are looked for."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compliance.production.facts import number


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.48", "0.480"),
        ("189", "189.0"),
        ("1e3", "1000"),
        (" 5 ", "5"),
        ("-0", "0"),
        ("balanced", " balanced"),
        ("NaN", "nan"),
    ],
)
def test_the_same_value_in_two_spellings(one: str, other: str) -> None:
    assert number(one) == number(other)


@pytest.mark.parametrize(
    ("one", "other"), [("0.48", "0.338"), ("None", "0"), ("True", "1"), ("0.1", "0.10000000001"), ("inf", "-inf")]
)
def test_different_values(one: str, other: str) -> None:
    assert number(one) != number(other)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6), st.integers(0, 5))
def test_zeros_at_the_end_say_nothing(value: Decimal, zeros: int) -> None:
    assert number(f"{value:f}" + "0" * zeros) == number(str(value))
