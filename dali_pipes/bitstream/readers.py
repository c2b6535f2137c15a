"""A codec's name in, the reader of its packets out.

To add a codec: a module with a PacketReader, and a line in READERS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from av.video.codeccontext import VideoCodecContext

from .av1 import Av1Reader
from .facts import BAD_HEADERS, NOT_ANALYSED
from .h264 import H264Reader
from .hevc import HevcReader
from .intra import IntraReader
from .mpeg4 import Mpeg4Reader
from .opaque import OpaqueReader
from .vp8 import Vp8Reader
from .vp9 import Vp9Reader

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, 2 to 5 are orders of fields


class PacketReader(Protocol):
    """Reads the packets of one stream in decode order.

    `read` and the making of a reader may raise ValueError or IndexError where bytes are not what the syntax allows.
    """

    @property
    def reordering_declared(self) -> bool:
        """True where a decoder knows from the headers alone how far pictures are reordered."""

    @property
    def may_hold_fields(self) -> bool:
        """False where the headers rule out pictures of two fields (a stream may declare fields and use none)."""

    def read(self, packet: memoryview, keyframe: bool) -> int:
        """Facts of the next packet; `keyframe` is the container's flag."""

    def finish(self, facts: np.ndarray) -> None:
        """Corrects facts, uint16 [P], in place, once all packets are known."""


@runtime_checkable
class NamesReferences(Protocol):
    """A PacketReader of a codec whose frames name all that they load anything from."""

    def references(self) -> list[tuple[int, ...]]:
        """For each packet read, the positions of earlier ones without which it cannot be decoded.

        What these need in turn is theirs to say.
        """


@runtime_checkable
class Resumes(Protocol):
    """A PacketReader that remembers something of the packets it has read, other than parameter sets."""

    def resume(self) -> None:
        """Forgets it: packets have been left out, and the next one is one at which decoding starts."""


# By FFmpeg's name of the codec: what makes a reader of the stream's headers (FFmpeg's extradata).
READERS: dict[str, Callable[[bytes], PacketReader]] = {
    "h264": H264Reader,
    "hevc": HevcReader,
    "vp8": Vp8Reader,
    "vp9": Vp9Reader,
    "av1": Av1Reader,
    "mpeg4": Mpeg4Reader,
    "mjpeg": IntraReader,
    "mjpegb": IntraReader,
    "jpeg2000": IntraReader,
    "jpegls": IntraReader,
    "png": IntraReader,
    "prores": IntraReader,
    "dnxhd": IntraReader,
    "dvvideo": IntraReader,
    "rawvideo": IntraReader,
    "cfhd": IntraReader,
}


def make_reader(codec: str, headers: bytes) -> PacketReader:
    """The reader for a stream, by FFmpeg's codec name and extradata; one that knows nothing where there is no other."""
    if codec not in READERS:
        return OpaqueReader(NOT_ANALYSED, may_hold_fields=False)
    try:
        return READERS[codec](headers)
    except (ValueError, IndexError):
        return OpaqueReader(BAD_HEADERS, may_hold_fields=True)


def may_hold_fields(codec: str, context: VideoCodecContext) -> bool:
    """Whether a stream may hold pictures of two fields, which DALI hands out otherwise than FFmpeg.

    Args:
        codec: FFmpeg's name of the codec.
        context: of the opened stream.
    """
    return context.field_order > _PROGRESSIVE or make_reader(codec, bytes(context.extradata or b"")).may_hold_fields
