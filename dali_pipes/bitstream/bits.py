"""A few header bytes in, the numbers that a codec's syntax tables read from them out."""

from __future__ import annotations

from collections.abc import Sequence


class Bits:
    """A big-endian bit reader; its methods are called as the standards call the descriptors."""

    def __init__(self, data: bytes | Sequence[int]) -> None:
        self._value = int.from_bytes(bytes(data), "big")
        self._left = 8 * len(data)

    def u(self, count: int) -> int:
        """Unsigned integer of `count` bits; raises ValueError past the end."""
        self._left -= count
        if self._left < 0:
            raise ValueError("header is shorter than its syntax")
        return (self._value >> self._left) & ((1 << count) - 1)

    def ue(self) -> int:
        """Exp-Golomb code (ISO/IEC 14496-10, 9.1)."""
        zeros = 0
        while not self.u(1):
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """Signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)
