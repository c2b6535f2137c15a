"""VP9 packets in, facts for pruning out."""

from __future__ import annotations

import numpy as np

from .facts import CLOSED, DAMAGED, DISPOSABLE, NOT_SHOWN


class Vp9Reader:
    """VP9 (bitstream specification 0.6, 6.2 and Annex B: superframes).

    A frame that refreshes no buffer still leaves its motion vectors, segmentation map and probabilities to the next.
    So it is disposable only if the frame after it resets all three: a key frame or error_resilient_mode = 1.
    """

    reordering_declared = True
    may_hold_fields = False

    def __init__(self, headers: bytes) -> None:
        self._refreshes_nothing: list[bool] = []
        self._resets: list[bool] = []

    def read(self, packet: memoryview, keyframe: bool) -> int:
        self._refreshes_nothing.append(False)  # before anything can go wrong: one entry a packet
        self._resets.append(False)
        frames = [_Frame(packet, start) for start in _find_frames(packet)]
        self._refreshes_nothing[-1] = all(frame.refreshes == 0 for frame in frames)
        self._resets[-1] = frames[0].key or frames[0].error_resilient
        facts = CLOSED if frames[0].key else 0
        if not any(frame.shown for frame in frames):
            facts |= NOT_SHOWN
        if any(frame.unknown for frame in frames):
            facts |= DAMAGED
        return facts

    def finish(self, facts: np.ndarray) -> None:
        resets_next = np.array([*self._resets[1:], True])
        facts[np.array(self._refreshes_nothing, bool) & resets_next] |= DISPOSABLE


def _find_frames(data: memoryview) -> list[int]:
    """Where each frame of a packet starts, by the superframe's index."""
    marker = data[-1]
    if marker & 0xE0 == 0xC0:
        count, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = len(data) - (2 + size_bytes * count)
        if index >= 0 and data[index] == marker:
            starts, start = [], 0
            for position in range(index + 1, len(data) - 1, size_bytes):
                starts.append(start)
                start += int.from_bytes(data[position : position + size_bytes], "little")
            if all(start < index for start in starts):
                return starts
    return [0]


class _Frame:
    """uncompressed_header() as far as refresh_frame_flags."""

    def __init__(self, data: memoryview, start: int) -> None:
        bits = int.from_bytes(data[start : start + 12], "big")
        position = 96 if len(data) - start >= 12 else 8 * (len(data) - start)

        def read(count: int) -> int:
            nonlocal position
            position -= count
            return (bits >> position) & ((1 << count) - 1) if position >= 0 else 0

        self.unknown = read(2) != 2
        self.key = self.shown = self.error_resilient = False
        self.refreshes = 0xFF
        profile = read(1) | read(1) << 1
        if profile == 3:
            read(1)
        if read(1):  # show_existing_frame
            self.shown = True
            return
        self.key = not read(1)
        self.shown = bool(read(1))
        self.error_resilient = bool(read(1))
        if self.key:
            return
        intra_only = 0 if self.shown else read(1)
        if not self.error_resilient:
            read(2)  # reset_frame_context
        if intra_only:
            read(24)  # frame_sync_code
            if profile:
                return  # the colour configuration comes first: leave it a reference
        self.refreshes = read(8)
