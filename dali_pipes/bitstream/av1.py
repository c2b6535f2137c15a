"""AV1 temporal units in, facts for pruning out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .bits import Bits
from .facts import BAD_HEADERS, CLOSED, DISPOSABLE, NEW_HEADERS, NOT_ONE_PICTURE, NOT_SHOWN, UNKNOWN_SYNTAX

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY_FRAME, _INTRA_ONLY_FRAME, _SWITCH_FRAME = 0, 2, 3
_BUFFERS, _NAMES = 8, 7
_NEVER = -1  # no packet has refreshed the buffer
_EVERY_BUFFER = tuple(range(_BUFFERS))
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
    disposable, and one needs no others than those that last refreshed the buffers that its frames name: samples, motion
    vectors, probabilities, segmentation and film grain are all loaded from these (7.20 and 7.21).
    """

    reordering_declared = True
    may_hold_fields = False

    def __init__(self, headers: bytes) -> None:
        self._sequence: _SequenceHeader | None = None
        self._sequence_bytes = b""
        self._started = False
        self._references: list[tuple[int, ...]] = []
        self._buffers = [_Buffer(_NEVER, key=False)] * _BUFFERS
        if headers[:1] == b"\x81":
            for kind, payload in _split(memoryview(headers)[4:]):
                if kind == _SEQUENCE_HEADER:
                    self._set_sequence(bytes(payload))

    def _set_sequence(self, payload: bytes) -> None:
        self._sequence_bytes = payload
        self._sequence = _SequenceHeader(payload)

    def read(self, packet: memoryview, keyframe: bool) -> int:
        self._references.append(())  # before anything can go wrong: one entry a packet
        facts, frames, shown = DISPOSABLE, 0, False
        named: set[int] = set()
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
                refreshes = frame.refreshes
                if frame.shows_buffer is not None and not self._buffers[frame.shows_buffer].key:
                    refreshes = 0
                if refreshes:
                    facts &= ~DISPOSABLE
                named.update(self._buffers[index].writer for index in frame.names)
                self._refresh(refreshes, frame)
                shown = shown or frame.shown
                frames += 1
        self._started = True
        self._references[-1] = tuple(named - {_NEVER, len(self._references) - 1})
        if not frames:
            return NOT_ONE_PICTURE
        return facts if shown else facts | NOT_SHOWN

    def _refresh(self, refreshes: int, frame: _FrameHeader) -> None:
        held = _Buffer(len(self._references) - 1, frame.key or frame.shows_buffer is not None)
        self._buffers = [held if refreshes >> index & 1 else buffer for index, buffer in enumerate(self._buffers)]

    def resume(self) -> None:
        self._buffers = [_Buffer(_NEVER, key=False)] * _BUFFERS

    def finish(self, facts: np.ndarray) -> None:
        pass

    def references(self) -> list[tuple[int, ...]]:
        return self._references


class _Buffer(NamedTuple):
    """What one of the eight reference buffers holds.

    Attributes:
        writer: the packet that last refreshed it.
        key: whether that was by a key frame: to show it later refreshes all buffers (7.21).
    """

    writer: int
    key: bool


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
        self.order_hints = False
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
        self.order_hints = bool(bits.u(1))
        if self.order_hints:
            bits.u(2)
        self.screen_content = _SELECT if bits.u(1) else bits.u(1)
        if self.screen_content and not bits.u(1):
            self.integer_mv = bits.u(1)
        if self.order_hints:
            self.order_hint_bits = bits.u(3) + 1


class _FrameHeader:
    """uncompressed_header() as far as ref_frame_idx; `known` is False where refresh_frame_flags are not reached.

    Attributes:
        key, shown: whether it is a key frame, and whether it is shown at once.
        refreshes: bit i is set where it refreshes buffer i; of a shown buffer, what it does if a key frame is in it.
        names: the buffers it may load anything from; all of them where that is not read.
        shows_buffer: the buffer that is shown instead of a frame of its own; None: it has one.
    """

    def __init__(self, payload: bytes, sequence: _SequenceHeader) -> None:
        self.known, self.key, self.shown, self.refreshes = True, True, True, 0xFF
        self.names: tuple[int, ...] = ()
        self.shows_buffer: int | None = None
        if sequence.reduced_still_picture:
            return
        if sequence.timed:
            self.known = False
            return
        bits = Bits(payload)
        if bits.u(1):  # show_existing_frame
            self.key = False
            self.shows_buffer = bits.u(3)
            self.names = (self.shows_buffer,)
            return
        kind = bits.u(2)
        self.key = kind == _KEY_FRAME
        self.shown = bool(bits.u(1))
        if not self.shown:
            bits.u(1)
        if self.key and self.shown:
            return
        error_resilient = kind == _SWITCH_FRAME or bits.u(1)
        bits.u(1)
        screen_content = bits.u(1) if sequence.screen_content == _SELECT else sequence.screen_content
        if screen_content and sequence.integer_mv == _SELECT:
            bits.u(1)
        bits.u(sequence.frame_id_bits)
        if kind != _SWITCH_FRAME:
            bits.u(1)  # frame_size_override_flag
        bits.u(sequence.order_hint_bits)
        intra = kind in (_KEY_FRAME, _INTRA_ONLY_FRAME)
        if not (intra or error_resilient):
            bits.u(3)  # primary_ref_frame: one of ref_frame_idx
        if kind != _SWITCH_FRAME:
            self.refreshes = bits.u(8)
        # Identifiers and order hints in the header are compared with those of all buffers.
        if sequence.frame_ids or (error_resilient and sequence.order_hints):
            self.names = _EVERY_BUFFER
        elif not intra:
            self.names = self._read_names(bits, sequence)

    @staticmethod
    def _read_names(bits: Bits, sequence: _SequenceHeader) -> tuple[int, ...]:
        if sequence.order_hints and bits.u(1):  # frame_refs_short_signaling: found by the order hints of all buffers
            return _EVERY_BUFFER
        return tuple({bits.u(3) for _ in range(_NAMES)})
