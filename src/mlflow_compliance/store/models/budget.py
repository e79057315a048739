"""How much of one model may be unpacked and read, so that no file keeps an audit busy for ever."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST = 1 << 30
"""Bytes of one file that are looked at: a pickle or archive is read into memory."""
MOST_STEPS = 2_000_000
"""A pickle with more opcodes is not looked at: each takes some 200 bytes of memory and five microseconds."""
_A_MEMBER = 1 << 20


class UnreadableError(ValueError):
    """What the bytes do cannot be told; the message says why, in a few words."""


@dataclass
class Budget:
    """What is left for one model, or one file that is none: bytes unpacked from all its archives, opcodes of all its
    pickles.
    """

    room: int = LARGEST
    steps: int = 5 * MOST_STEPS

    def unpack(self, size: int) -> bool:
        """Whether so many bytes more may be unpacked, as one member."""
        self.room -= size + _A_MEMBER
        return self.room >= 0

    def step(self) -> None:
        """One opcode. Raises UnreadableError where there were too many."""
        self.steps -= 1
        if self.steps < 0:
            raise UnreadableError(f"all pickles of the model together take more than {5 * MOST_STEPS:,} steps")
