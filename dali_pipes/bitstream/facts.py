"""The bytes of each packet in, the facts that pruning needs out: random access, disposable, hidden, or not provable.

A fact is claimed only where the codec's syntax proves it; codecs and constructs that are not understood say UNSAFE, and
pruning.py then keeps every packet.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Fact(enum.IntFlag):
    """What is known of one packet (a coded picture, or a VP9/AV1 group of frames that shows one)."""

    CLOSED = 1  # decoding can start here, and every later packet is decodable
    OPEN = 2  # decoding can start here, but pictures shown before this one also need the GOP before it
    DISPOSABLE = 4  # no other packet needs it
    HIDDEN = 8  # shows no picture
    UNSAFE = 16  # something that makes pruning this stream unprovable
    LEADING_DROPPABLE = 32  # on OPEN: pictures shown before it may be left out when decoding starts here
    REORDERED = 64  # coded with bidirectional prediction


# Plain integers: IntFlag arithmetic per packet would cost more than reading the packet.
CLOSED, OPEN, DISPOSABLE, HIDDEN, UNSAFE, LEADING_DROPPABLE, REORDERED = (int(fact) for fact in Fact)

# Every picture of these codecs is coded on its own.
INTRA_CODECS = frozenset(
    ("mjpeg", "mjpegb", "jpeg2000", "jpegls", "png", "prores", "dnxhd", "dvvideo", "rawvideo", "cfhd")
)


class PacketReader(Protocol):
    """Reads the packets of one stream in decode order."""

    #: True where a decoder knows from the headers alone how far pictures are reordered.
    reordering_declared: bool

    def facts(self, data: memoryview, keyframe: bool) -> int:
        """Facts of the next packet; `keyframe` is the container's flag."""

    def finish(self, facts: np.ndarray) -> None:
        """Corrects facts [P] in place, once all packets are known."""


class IntraReader:
    """Codecs whose every packet stands alone."""

    reordering_declared = True

    def facts(self, data: memoryview, keyframe: bool) -> int:
        return CLOSED | DISPOSABLE

    def finish(self, facts: np.ndarray) -> None:
        pass


class OpaqueReader:
    """Codecs that are not analysed: nothing is known, so every packet up to the last wanted frame is kept."""

    reordering_declared = False

    def facts(self, data: memoryview, keyframe: bool) -> int:
        return UNSAFE

    def finish(self, facts: np.ndarray) -> None:
        pass


_LAYER = b"\0\0\1\x20"
_SHAPE_RECTANGULAR = 0
_ASPECT_EXTENDED = 15


class Mpeg4Reader:
    """MPEG-4 Part 2 (ISO/IEC 14496-2): vop_coding_type is the first two bits after the VOP start code."""

    reordering_declared = True

    def __init__(self, extradata: bytes) -> None:
        self._headers = extradata
        self._time_bits: int | None = None

    def facts(self, data: memoryview, keyframe: bool) -> int:
        payload = bytes(data)
        start = payload.find(b"\0\0\1\xb6")
        # Several VOPs in a packet are DivX's "packed bitstream"; a VOP of a few bytes is the placeholder it leaves.
        if start < 0 or len(payload) - start < 12 or payload.find(b"\0\0\1\xb6", start + 4) >= 0:
            return UNSAFE
        layer = payload.find(_LAYER, 0, start)
        self._headers = self._headers or payload[:start]
        if layer >= 0 and self._headers and payload[layer : layer + 12] not in self._headers:
            return UNSAFE  # a new video object layer in mid-stream
        coding_type = payload[start + 4] >> 6
        if not self._is_coded(payload[start + 4 : start + 16]):
            return UNSAFE
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
            self._time_bits = mpeg4_layer(self._headers)[0]
        bits.u(self._time_bits)
        return bool(bits.u(1)) and bool(bits.u(1))

    def finish(self, facts: np.ndarray) -> None:
        pass


def mpeg4_layer(headers: bytes) -> tuple[int, bool]:
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


def reader_for(codec: str, extradata: bytes) -> PacketReader:
    """The reader for a codec, by FFmpeg's codec name (`h264`, `hevc`, `vp8`, `vp9`, `av1`, `mpeg4`, `mjpeg`, ...)."""
    from . import av1, nal, vpx

    if codec == "h264":
        return nal.H264Reader(extradata)
    if codec == "hevc":
        return nal.HevcReader(extradata)
    if codec == "vp8":
        return vpx.Vp8Reader()
    if codec == "vp9":
        return vpx.Vp9Reader()
    if codec == "av1":
        return av1.Av1Reader(extradata)
    if codec == "mpeg4":
        return Mpeg4Reader(extradata)
    if codec in INTRA_CODECS:
        return IntraReader()
    return OpaqueReader()


class Bits:
    """A big-endian bit reader over a few header bytes."""

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
