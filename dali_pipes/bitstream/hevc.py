"""HEVC packets in, facts for pruning out (NAL unit types, temporal layers, parameter sets)."""

from __future__ import annotations

import numpy as np

from .facts import (
    CLOSED,
    DISPOSABLE,
    LEADING_DROPPABLE,
    NEW_HEADERS,
    NOT_ONE_PICTURE,
    OPEN,
    UNDECODABLE,
    UNKNOWN_SYNTAX,
)
from .nal_units import ParameterSets, read_sets, remove_emulation, split_units


class HevcReader:
    """HEVC (ISO/IEC 23008-2, 7.4.2.2): NAL unit types and temporal layers.

    A sub-layer non-reference picture may still serve higher temporal layers, so only those of the highest layer that
    occurs in the stream are disposable.
    """

    reordering_declared = True
    _RASL, _BLA, _IDR, _CRA = (8, 9), (16, 17, 18), (19, 20), 21

    def __init__(self, headers: bytes) -> None:
        self.may_hold_fields = _declares_fields(headers)
        self._sets = ParameterSets()
        self._length_size = 0
        self._layers: list[int] = []  # temporal layer of a sub-layer non-reference picture, else -1
        self._highest_layer = 0
        self._skips_rasl = True
        self._restarts = True  # the next picture is the first, or follows an end of sequence
        if headers[:1] == b"\1" and len(headers) >= 23:
            self._length_size = (headers[21] & 3) + 1
            position = 23
            for _ in range(headers[22]):
                count = int.from_bytes(headers[position + 1 : position + 3], "big")
                sets, position = read_sets(headers, position + 3, count)
                for unit in sets:
                    self._sets.add(unit)
        elif headers:
            for start, stop in split_units(memoryview(headers), 0):
                self._sets.add(headers[start:stop])

    def read(self, packet: memoryview, keyframe: bool) -> int:
        self._layers.append(-1)  # before anything can go wrong: one entry a packet, whatever the packet holds
        facts, picture, layer, ends = 0, -1, 0, False
        for start, stop in split_units(packet, self._length_size):
            kind = packet[start] >> 1 & 63
            if kind < 32:
                if picture >= 0 and kind != picture:
                    facts |= NOT_ONE_PICTURE
                picture, layer = kind, (packet[start + 1] & 7) - 1
                if (packet[start] & 1) << 5 | packet[start + 1] >> 3:
                    facts |= UNKNOWN_SYNTAX  # a second layer (scalable or multiview)
            elif 32 <= kind <= 34:
                if self._sets.are_changed_by(bytes(packet[start:stop])):
                    facts |= NEW_HEADERS
            elif kind == 36 or kind == 37:
                ends = True
        self._sets.note_picture()
        non_reference = 0 <= picture < 16 and picture % 2 == 0
        if non_reference:
            self._layers[-1] = layer
        self._highest_layer = max(self._highest_layer, layer)
        if picture < 0:
            return facts | NOT_ONE_PICTURE
        if picture in self._RASL and self._skips_rasl:
            facts |= UNDECODABLE  # its references come before the point where decoding began: decoders skip it
        elif picture in self._IDR or picture in self._BLA:
            facts |= CLOSED
            self._skips_rasl = picture in self._BLA
        elif picture == self._CRA:
            facts |= OPEN | LEADING_DROPPABLE
            self._skips_rasl = self._restarts
        self._restarts = ends
        return facts

    def resume(self) -> None:
        self._restarts = False  # an end of sequence just before would be in a packet that was read, see packets.needed

    def finish(self, facts: np.ndarray) -> None:
        facts[np.array(self._layers, int) == self._highest_layer] |= DISPOSABLE


def _declares_fields(headers: bytes) -> bool:
    """general_interlaced_source_flag, from hvcC (ISO/IEC 14496-15, 8.3.3.1) or the video parameter set (7.3.2.1)."""
    flags = 6
    if headers[:1] != b"\1":
        headers = remove_emulation(headers[headers.find(b"\0\0\1\x40") :])
        # The start code, two bytes of NAL unit header, four of identifiers, then profile (1) and compatibility (4).
        flags = 3 + 2 + 4 + 1 + 4
    return flags < len(headers) and bool(headers[flags] & 0x40)
