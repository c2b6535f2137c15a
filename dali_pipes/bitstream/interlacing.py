"""A stream's codec headers in, whether it may hold fields out: DALI hands out such pictures otherwise than FFmpeg."""

from __future__ import annotations

from av.video.codeccontext import VideoCodecContext

from .facts import mpeg4_layer
from .nal import H264Reader

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, 2 to 5 are orders of fields


def may_hold_fields(codec: str, context: VideoCodecContext) -> bool:
    """Whether the headers allow for pictures of two fields (a stream that uses none of them may still declare them).

    Args:
        codec: FFmpeg's name of the codec.
        context: of the opened stream.
    """
    if context.field_order > _PROGRESSIVE:
        return True
    headers = bytes(context.extradata or b"")
    if codec == "h264":
        return not H264Reader(headers).frames_only
    if codec == "hevc":
        return _hevc_declares_fields(headers)
    if codec == "mpeg4":
        return _mpeg4_declares_fields(headers)
    return False  # VP8, VP9 and AV1 know no fields


def _hevc_declares_fields(headers: bytes) -> bool:
    """general_interlaced_source_flag, from hvcC (ISO/IEC 14496-15, 8.3.3.1) or the video parameter set (7.3.2.1)."""
    flags = 6
    if headers[:1] != b"\1":
        headers = headers[headers.find(b"\0\0\1\x40") :].replace(b"\0\0\3", b"\0\0")  # emulation prevention
        # The start code, two bytes of NAL unit header, four of identifiers, then profile (1) and compatibility (4).
        flags = 3 + 2 + 4 + 1 + 4
    return flags < len(headers) and bool(headers[flags] & 0x40)


def _mpeg4_declares_fields(headers: bytes) -> bool:
    """`interlaced` of the video object layer; True where the header cannot be read."""
    try:
        return mpeg4_layer(headers)[1]
    except ValueError:
        return True
