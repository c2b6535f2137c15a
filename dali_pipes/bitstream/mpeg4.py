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
        self._time_bits: int | None = None
        self.may_hold_fields = _declares_fields(headers)

    def read(self, packet: memoryview, keyframe: bool) -> int:
        payload = bytes(packet)
        start = payload.find(_VOP)
        if start < 0 or len(payload) - start < _PLACEHOLDER_BYTES or payload.find(_VOP, start + 4) >= 0:
            return NOT_ONE_PICTURE
        layer = payload.find(_LAYER, 0, start)
        self._headers = self._headers or payload[:start]
        if layer >= 0 and self._headers and payload[layer : layer + 12] not in self._headers:
            return NEW_HEADERS
        coding_type = payload[start + 4] >> 6
        if not self._is_coded(payload[start + 4 : start + 16]):
            return NOT_ONE_PICTURE
        if coding_type == 0:
            return OPEN | LEADING_DROPPABLE
        return DISPOSABLE | REORDERED if coding_type == 2 else 0

    def _is_coded(self, header: bytes) -> bool:
        """Reads a VOP's times (6.2.5) up to vop_coded; False where markers are missing, or it is an N-VOP: no picture.

        The width of vop_time_increment stands in the headers; it is right where the markers around it are.
        """
        bits = Bits(header)
        bits.u(2)
        while bits.u(1):  # modulo_time_base
            pass
        if not bits.u(1):
            return False
        if self._time_bits is None:
            self._time_bits, _ = _read_layer(self._headers)
        bits.u(self._time_bits)
        return bool(bits.u(1)) and bool(bits.u(1))

    def finish(self, facts: np.ndarray) -> None:
        pass


def _declares_fields(headers: bytes) -> bool:
    """`interlaced` of the video object layer; True where the header cannot be read."""
    try:
        return _read_layer(headers)[1]
    except ValueError:
        return True


def _read_layer(headers: bytes) -> tuple[int, bool]:
    """(bits of vop_time_increment, interlaced) of a video object layer (6.2.3); ValueError where it cannot be read."""
    start = headers.find(_LAYER)
    if start < 0:
        raise ValueError("no video object layer")
    bits = Bits(headers[start + 4 :])
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
        raise ValueError("a video object of its own shape")
    bits.u(1)
    time_bits = max(1, (bits.u(16) - 1).bit_length())
    bits.u(1)
    if bits.u(1):  # fixed_vop_rate
        bits.u(time_bits)
    bits.u(1 + 13 + 1 + 13 + 1)  # width and height between markers
    return time_bits, bool(bits.u(1))
