"""dali_pipes/bitstream/bits.py: numbers written bit by bit are read back."""

from __future__ import annotations

import pytest
from gridclip.dali_pipes.bitstream.bits import Bits
from hypothesis import given
from hypothesis import strategies as st


def exp_golomb(number: int) -> str:
    code = f"{number + 1:b}"
    return "0" * (len(code) - 1) + code


@given(st.lists(st.tuples(st.sampled_from("u ue se".split()), st.integers(-500, 500)), max_size=20))
def test_numbers_come_back(numbers: list[tuple[str, int]]) -> None:
    digits, written = "", []
    for kind, number in numbers:
        value = number if kind == "se" else abs(number)
        written.append((kind, value))
        if kind == "u":
            digits += f"{value:010b}"
        else:
            digits += exp_golomb(value if kind == "ue" else 2 * value - 1 if value > 0 else -2 * value)
    digits += "0" * (-len(digits) % 8)
    bits = Bits(int(digits or "0", 2).to_bytes(len(digits) // 8, "big"))
    assert [(kind, bits.u(10) if kind == "u" else getattr(bits, kind)()) for kind, _ in numbers] == written


def test_the_end_is_an_error() -> None:
    bits = Bits(b"\xf0")
    assert bits.u(8) == 0xF0
    with pytest.raises(ValueError, match="shorter"):
        bits.u(1)
