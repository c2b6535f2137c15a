"""What H.264 and HEVC share: packets in, their NAL units out, and whether parameter sets change."""

from __future__ import annotations

from collections.abc import Iterator


def split_units(data: memoryview, length_size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each NAL unit; length_size 0 means Annex B start codes."""
    size = len(data)
    if length_size:
        position = 0
        while position + length_size < size:
            start = position + length_size
            position = start + int.from_bytes(data[position:start], "big")
            if position > size or position == start:
                raise ValueError("NAL unit length goes past its packet")
            yield start, position
        return
    payload = bytes(data)
    start = payload.find(b"\0\0\1")
    while start >= 0:
        following = payload.find(b"\0\0\1", start + 3)
        yield start + 3, following if following >= 0 else size
        start = following


def remove_emulation(data: bytes) -> bytes:
    """A NAL unit without its emulation prevention bytes (H.264 7.4.1, HEVC 7.4.2)."""
    return data.replace(b"\0\0\3", b"\0\0")


def read_sets(headers: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    """Parameter sets of avcC or hvcC (ISO/IEC 14496-15), each after its length; also the position behind the last."""
    sets = []
    for _ in range(count):
        start = position + 2
        position = start + int.from_bytes(headers[position:start], "big")
        if position > len(headers):
            raise ValueError("parameter sets go past the end of the headers")
        sets.append(headers[start:position])
    return sets, position


class ParameterSets:
    """The parameter sets a decoder holds: pruning may skip packets only while these never change."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._started = False

    def add(self, unit: bytes) -> None:
        self._known.add(unit.rstrip(b"\0"))

    def note_picture(self) -> None:
        """From now on another set is a change."""
        self._started = True

    def are_changed_by(self, unit: bytes) -> bool:
        """Whether a set in mid-stream is another one than those before the first picture; from now on it is known."""
        unit = unit.rstrip(b"\0")
        if unit in self._known:
            return False
        self._known.add(unit)
        return self._started
