"""AV1 temporal units in, facts for pruning out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .bits import Bits
from .facts import BAD_HEADERS, CLOSED, DISPOSABLE, NEW_HEADERS, NOT_ONE_PICTURE, NOT_SHOWN, UNKNOWN_SYNTAX

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY_FRAME, _INTRA_ONLY_FRAME, _SWITCH_FRAME = 0, 2, 3
_SELECT = 2  # seq_choose_*: each frame header says


def _split(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(obu_type, payload) of each open bitstream unit (5.3)."""
    position, size = 0, len(data)
    while position < size:
        header = data[position]
        position += 2 if header & 4 else 1
        length = size - position
        if header & 2:
            length = shift = 0
            while True:
                byte = data[position]
                position += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
        yield header >> 3 & 15, data[position : position + length]
        position += length


class Av1Reader:
    """AV1 (bitstream specification, 5.5 and 5.9).

    All state that outlives a frame lies in the buffers it refreshes, so a temporal unit whose frames refresh none is
    disposable.
    """

    reordering_declared = True
    may_hold_fields = False

    def __init__(self, headers: bytes) -> None:
        self._sequence: _SequenceHeader | None = None
        self._sequence_bytes = b""
        self._started = False
        if headers[:1] == b"\x81":
            for kind, payload in _split(memoryview(headers)[4:]):
                if kind == _SEQUENCE_HEADER:
                    self._set_sequence(bytes(payload))

    def _set_sequence(self, payload: bytes) -> None:
        self._sequence_bytes = payload
        self._sequence = _SequenceHeader(payload)

    def read(self, packet: memoryview, keyframe: bool) -> int:
        facts, frames, shown = DISPOSABLE, 0, False
        for kind, payload in _split(packet):
            if kind == _SEQUENCE_HEADER:
                if bytes(payload) != self._sequence_bytes:
                    if self._started:
                        return NEW_HEADERS
                    self._set_sequence(bytes(payload))  # the stream's own header overrides the container's copy
            elif kind in (_FRAME, _FRAME_HEADER):
                if self._sequence is None:
                    return BAD_HEADERS
                frame = _FrameHeader(bytes(payload[:24]), self._sequence)
                if not frame.known:
                    return UNKNOWN_SYNTAX
                if frames == 0 and frame.key and frame.shown:
                    facts |= CLOSED
                if frame.refreshes:
                    facts &= ~DISPOSABLE
                shown = shown or frame.shown
                frames += 1
        self._started = True
        if not frames:
            return NOT_ONE_PICTURE
        return facts if shown else facts | NOT_SHOWN

    def finish(self, facts: np.ndarray) -> None:
        pass


class _SequenceHeader:
    """sequence_header_obu() as far as the frame headers need it."""

    def __init__(self, payload: bytes) -> None:
        bits = Bits(payload)
        bits.u(3)
        bits.u(1)
        self.reduced_still_picture = bool(bits.u(1))
        self.timed = self.frame_ids = False
        self.screen_content = self.integer_mv = _SELECT
        self.order_hint_bits = self.frame_id_bits = 0
        if self.reduced_still_picture:
            return
        decoder_model = False
        if bits.u(1):  # timing_info_present_flag
            bits.u(64)
            if bits.u(1):
                bits.ue()
            decoder_model = bool(bits.u(1))
            if decoder_model:
                self.timed = True
                return  # such frame headers carry removal times: not read, see _FrameHeader
        display_delay = bits.u(1)
        for _ in range(bits.u(5) + 1):
            bits.u(12)
            if bits.u(5) > 7:
                bits.u(1)
            if display_delay and bits.u(1):
                bits.u(4)
        width_bits, height_bits = bits.u(4) + 1, bits.u(4) + 1
        bits.u(width_bits + height_bits)
        self.frame_ids = bool(bits.u(1))
        if self.frame_ids:
            delta_bits = bits.u(4) + 2
            self.frame_id_bits = bits.u(3) + delta_bits + 1
        bits.u(3)
        bits.u(4)
        order_hints = bits.u(1)
        if order_hints:
            bits.u(2)
        self.screen_content = _SELECT if bits.u(1) else bits.u(1)
        if self.screen_content and not bits.u(1):
            self.integer_mv = bits.u(1)
        if order_hints:
            self.order_hint_bits = bits.u(3) + 1


class _FrameHeader:
    """uncompressed_header() as far as refresh_frame_flags; `known` is False where that is not reached."""

    def __init__(self, payload: bytes, sequence: _SequenceHeader) -> None:
        self.known, self.key, self.shown, self.refreshes = True, True, True, 0xFF
        if sequence.reduced_still_picture:
            return
        if sequence.timed:
            self.known = False
            return
        bits = Bits(payload)
        if bits.u(1):  # show_existing_frame: cheap to decode, and a key frame shown so refreshes buffers
            self.key = False
            return
        kind = bits.u(2)
        self.key = kind == _KEY_FRAME
        self.shown = bool(bits.u(1))
        if not self.shown:
            bits.u(1)
        if kind == _SWITCH_FRAME or (self.key and self.shown):
            return
        error_resilient = bits.u(1)
        bits.u(1)
        screen_content = bits.u(1) if sequence.screen_content == _SELECT else sequence.screen_content
        if screen_content and sequence.integer_mv == _SELECT:
            bits.u(1)
        bits.u(sequence.frame_id_bits)
        bits.u(1)
        bits.u(sequence.order_hint_bits)
        if not (kind in (_KEY_FRAME, _INTRA_ONLY_FRAME) or error_resilient):
            bits.u(3)
        self.refreshes = bits.u(8)
