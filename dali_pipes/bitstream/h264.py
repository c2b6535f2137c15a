"""H.264 packets in, facts for pruning out (NAL unit headers, parameter sets, recovery points)."""

from __future__ import annotations

import numpy as np

from .bits import Bits
from .facts import CLOSED, DAMAGED, DISPOSABLE, LONE_FIELD, NEW_HEADERS, NOT_ONE_PICTURE, NOT_SHOWN, OPEN, REORDERED
from .nal_units import ParameterSets, read_sets, remove_emulation, split_units


class H264Reader:
    """H.264 (ISO/IEC 14496-10, 7.3 and 7.4): nal_ref_idc, IDR pictures and recovery point SEI messages."""

    def __init__(self, headers: bytes) -> None:
        self._sets = ParameterSets()
        self._sps: _H264Sps | None = None
        self.reordering_declared = False
        self.may_hold_fields = True  # the sequence parameter set does not rule fields out
        self._field_is_open = False
        self._last_frame_num = -1  # of the last reference picture; -1 before the first picture
        self._length_size = 0
        if headers[:1] == b"\1" and len(headers) >= 7:
            self._length_size = (headers[4] & 3) + 1
            position = 5
            for mask in (0x1F, 0xFF):
                sets, position = read_sets(headers, position + 1, headers[position] & mask)
                for unit in sets:
                    self._add_set(unit)
        elif headers:
            for start, stop in split_units(memoryview(headers), 0):
                self._add_set(headers[start:stop])

    def _add_set(self, unit: bytes) -> None:
        self._sets.add(unit)
        if unit and unit[0] & 31 == 7:
            try:
                self._sps = _H264Sps(unit)
                self.reordering_declared = self._sps.reordering_declared
            except ValueError:
                self._sps = None
            self.may_hold_fields = self._sps is None or not self._sps.frame_mbs_only

    def read(self, packet: memoryview, keyframe: bool) -> int:
        facts, slices, field_starts = DISPOSABLE, 0, 0
        recovery = False
        for start, stop in split_units(packet, self._length_size):
            header = packet[start]
            kind = header & 31
            if kind == 1 or kind == 5 or kind == 2:
                if header & 0x60:
                    facts &= ~DISPOSABLE
                if kind == 5:
                    facts |= CLOSED
                if not slices:
                    if _is_b_slice(packet[start + 1]):
                        facts |= REORDERED
                    if not self._follows(packet, start, stop):
                        facts |= DAMAGED
                slices += 1
                if self.may_hold_fields and packet[start + 1] & 0x80:
                    field_starts += self._starts_field(packet, start, stop)
            elif kind == 7 or kind == 8 or kind == 13 or kind == 15:
                unit = bytes(packet[start:stop])
                if self._sets.are_changed_by(unit):
                    facts |= NEW_HEADERS
                self._add_set(unit)
            elif kind == 6 and keyframe:
                recovery = recovery or _recovers_at_once(bytes(packet[start:stop]))
        if not slices:
            return NOT_ONE_PICTURE | NOT_SHOWN
        if field_starts % 2:  # one field: the frame needs another packet, and only its first packet stands for it
            self._field_is_open = not self._field_is_open
            return LONE_FIELD if self._field_is_open else LONE_FIELD | NOT_SHOWN
        self._sets.note_picture()
        if facts & CLOSED:
            facts &= ~DISPOSABLE
        elif recovery:
            facts = facts & ~DISPOSABLE | OPEN
        return facts

    def _follows(self, packet: memoryview, start: int, stop: int) -> bool:
        """Whether frame_num of a picture's first slice is what it must be after the picture before it (7.4.3).

        Where it is not, a picture is missing, damaged or out of its place, and decoders make up for it from whatever
        they have decoded before.
        """
        if self._sps is None:
            return True  # every packet of such a stream is unsafe, or about to be
        # Bits would take half of the scan's time here.
        header = remove_emulation(bytes(packet[start + 1 : min(stop, start + 17)]))
        value, left = int.from_bytes(header, "big"), 8 * len(header)
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id: Exp-Golomb codes
            zeros = left - (value & ((1 << left) - 1)).bit_length()
            left -= 2 * zeros + 1
            if left <= 0:
                return False
        left -= 2 * self._sps.separate_colour_plane + self._sps.frame_num_bits
        if left < 0:
            return False
        frame_num = (value >> left) & ((1 << self._sps.frame_num_bits) - 1)
        misses_first = not header[0] & 0x80  # first_mb_in_slice is not 0: the first slice is missing
        last, follower = self._last_frame_num, (self._last_frame_num + 1) % (1 << self._sps.frame_num_bits)
        if packet[start] & 0x60:
            self._last_frame_num = frame_num
        if packet[start] & 31 == 5:
            return frame_num == 0 and not misses_first
        fits = last < 0 or frame_num == follower or (frame_num == last and not self._sps.frame_mbs_only)
        return (fits or self._sps.gaps_allowed) and not misses_first

    def _starts_field(self, packet: memoryview, start: int, stop: int) -> bool:
        if self._sps is None:
            return True
        bits = Bits(remove_emulation(bytes(packet[start + 1 : min(stop, start + 24)])))
        bits.ue(), bits.ue(), bits.ue()  # first_mb_in_slice, slice_type, pic_parameter_set_id
        bits.u(2 * self._sps.separate_colour_plane)
        bits.u(self._sps.frame_num_bits)
        return bool(bits.u(1))

    def resume(self) -> None:
        self._last_frame_num = -1

    def finish(self, facts: np.ndarray) -> None:
        pass


def _is_b_slice(byte: int) -> bool:
    """From the first byte of a slice header whose first_mb_in_slice is 0: slice_type is B (1 or 6)."""
    return bool(byte & 0x80) and ((byte >> 4 & 7) == 2 or (byte >> 2 & 31) == 7)


def _recovers_at_once(sei: bytes) -> bool:
    """Recovery point with recovery_frame_cnt = 0 and exact_match_flag = 1 (D.1.8): exact from here in output order."""
    payload = remove_emulation(sei)[1:]
    position = 0
    while position + 2 < len(payload):
        numbers = []
        for _ in range(2):  # payload type, then payload size, both coded as 255s and a rest
            number = 0
            while position < len(payload) and payload[position] == 0xFF:
                number, position = number + 255, position + 1
            if position >= len(payload):
                return False
            numbers.append(number + payload[position])
            position += 1
        kind, size = numbers
        if kind == 6:
            bits = Bits(payload[position : position + size])
            try:
                return bits.ue() == 0 and bits.u(1) == 1
            except ValueError:
                return False
        position += size
    return False


class _H264Sps:
    """seq_parameter_set_data() (7.3.2.1.1) and, of the VUI (E.1.1), bitstream_restriction_flag."""

    _CHROMA_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))

    def __init__(self, unit: bytes) -> None:
        bits = Bits(remove_emulation(unit)[1:])
        profile = bits.u(8)
        constraints = bits.u(8)
        bits.u(8)
        bits.ue()
        self.separate_colour_plane = 0
        if profile in self._CHROMA_PROFILES:
            chroma_format = bits.ue()
            if chroma_format == 3:
                self.separate_colour_plane = bits.u(1)
            bits.ue(), bits.ue(), bits.u(1)
            if bits.u(1):
                for index in range(12 if chroma_format == 3 else 8):
                    if bits.u(1):
                        _skip_scaling_list(bits, 16 if index < 6 else 64)
        self.frame_num_bits = bits.ue() + 4
        poc_type = bits.ue()
        if poc_type == 0:
            bits.ue()
        elif poc_type == 1:
            bits.u(1), bits.se(), bits.se()
            for _ in range(bits.ue()):
                bits.se()
        bits.ue()  # max_num_ref_frames
        self.gaps_allowed = bool(bits.u(1))
        bits.ue(), bits.ue()  # width, height
        self.frame_mbs_only = bool(bits.u(1))
        if not self.frame_mbs_only:
            bits.u(1)
        bits.u(1)
        if bits.u(1):
            for _ in range(4):
                bits.ue()
        intra_profile = profile in (44, 86, 100, 110, 122, 244) and bool(constraints & 0x10)
        self.reordering_declared = poc_type == 2 or profile == 66 or intra_profile or _vui_restricts(bits)


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _vui_restricts(bits: Bits) -> bool:
    """Reads vui_parameters() up to bitstream_restriction_flag; False when there is none."""
    try:
        if not bits.u(1):
            return False
        if bits.u(1) and bits.u(8) == 255:
            bits.u(32)
        if bits.u(1):
            bits.u(1)
        if bits.u(1):
            bits.u(4)
            if bits.u(1):
                bits.u(24)
        if bits.u(1):
            bits.ue(), bits.ue()
        if bits.u(1):
            bits.u(65)
        hrds = 0
        for _ in range(2):
            if bits.u(1):
                hrds += 1
                count = bits.ue() + 1
                bits.u(8)
                for _ in range(count):
                    bits.ue(), bits.ue(), bits.u(1)
                bits.u(20)
        if hrds:
            bits.u(1)
        bits.u(1)
        return bool(bits.u(1))
    except ValueError:
        return False
