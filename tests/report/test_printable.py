"""Text from a store, made safe to print."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from mlflow_compliance.safe_text import LIMIT, printable

ANY = st.text(st.characters(codec=None), max_size=LIMIT * 2) | st.text(
    "\x00\x1b\x7f\x85\u200b\u2028\u202e\u2066\ufeff\ud800ab\n\r\t", max_size=50
)


@given(ANY)
def test_nothing_in_it_steers_a_terminal_or_an_eye(text: str) -> None:
    safe = printable(text)
    assert not {unicodedata.category(char) for char in safe} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    assert len(safe.splitlines()) <= 1
    safe.encode()


@given(ANY, st.integers(2, 50))
def test_its_length_is_bounded(text: str, limit: int) -> None:
    """An escape may be longer than its character, so the bound is on what is shown of the text."""
    safe = printable(text, limit)
    assert len(safe) <= limit * len("\\U000e0001")
    assert safe.endswith("…") or len(text) <= limit


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M", "Zs"], exclude_characters="@=%#?"), max_size=LIMIT))
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(ANY)
def test_twice_is_once(text: str) -> None:
    safe = printable(text)
    assert printable(safe, len(safe)) == safe


@given(st.characters(categories=["Cc", "Cf", "Zl", "Zp"]))
def test_what_was_there_can_still_be_read(char: str) -> None:
    assert printable(f"a{char}b") == "a" + char.encode("unicode_escape").decode() + "b"
