"""MPEG-4 Part 2 packets in, facts for pruning out."""

from __future__ import annotations

import numpy as np

from .bits import Bits
from .facts import DISPOSABLE, LEADING_DROPPABLE, NEW_HEADERS, NOT_ONE_PICTURE, OPEN, REORDERED

_VOP, _LAYER = b"\0\0\1\xb6", b"\0\0\1\x20"
_PLACEHOLDER_BYTES = 12  # of what DivX's "packed bitstream" leaves where a picture was moved away
_SHAPE_RECTANGULAR = 0
_ASPECT_EXTENDED = 15


class Mpeg4Reader:
    """MPEG-4 Part 2 (ISO/IEC 14496-2): vop_coding_type is the first two bits after the VOP start code."""

    reordering_declared = True

    def __init__(self, headers: bytes) -> None:
        self._headers = headers
        self.may_hold_fields = _declares_fields(headers)

    def read(self, packet: memoryview, keyframe: bool) -> int:
        payload = bytes(packet)
        start = payload.find(_VOP)
        if start < 0 or len(payload) - start < _PLACEHOLDER_BYTES or payload.find(_VOP, start + 4) >= 0:
            return NOT_ONE_PICTURE
        layer = payload.find(_LAYER, 0, start)
        if layer >= 0 and self._headers and payload[layer : layer + 12] not in self._headers:
            return NEW_HEADERS
        coding_type = payload[start + 4] >> 6
        if coding_type == 0:
            return OPEN | LEADING_DROPPABLE
        return DISPOSABLE | REORDERED if coding_type == 2 else 0

    def finish(self, facts: np.ndarray) -> None:
        pass


def _declares_fields(headers: bytes) -> bool:
    """`interlaced` of the video object layer (6.2.3); True where the header cannot be read."""
    start = headers.find(_LAYER)
    if start < 0:
        return True
    bits = Bits(headers[start + 4 :])
    try:
        bits.u(1 + 8)  # random_accessible_vol, video_object_type_indication
        if bits.u(1):
            bits.u(4 + 3)
        if bits.u(4) == _ASPECT_EXTENDED:
            bits.u(8 + 8)
        if bits.u(1):  # vol_control_parameters
            bits.u(2 + 1)
            if bits.u(1):
                bits.u(79)
        if bits.u(2) != _SHAPE_RECTANGULAR:
            return True
        bits.u(1)
        resolution = bits.u(16)
        bits.u(1)
        if bits.u(1):  # fixed_vop_rate
            bits.u(max(1, (resolution - 1).bit_length()))
        bits.u(1 + 13 + 1 + 13 + 1)  # width and height between markers
        return bool(bits.u(1))
    except ValueError:
        return True
