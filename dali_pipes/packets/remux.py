"""The packets of a segment in, a video file in memory out, for decoders that only open files (decord, DALI)."""

from __future__ import annotations

import fractions
import io
import struct
from collections.abc import Iterable

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream as AvVideoStream

from .pruning import Segment
from .scan import PacketTable, VideoPacket

# Containers that carry the codec and that the decoders in use can read from memory.
_CONTAINERS = {"h264": "mp4", "hevc": "mp4", "mpeg4": "mp4", "mjpeg": "avi", "vp8": "webm", "vp9": "webm", "av1": "mp4"}
_TIME_BASE = fractions.Fraction(1, 1000)
_STEP = 40  # one picture every 40 ms: time stamps only tell the order


def can_remux(codec: str) -> bool:
    """Whether remux knows a container for FFmpeg's codec name."""
    return codec in _CONTAINERS


def remux(
    stream: AvVideoStream, codec: str, packets: Iterable[VideoPacket], segment: Segment, table: PacketTable
) -> bytes:
    """A video file of just these packets, shown at a constant rate in the old presentation order.

    Args:
        stream: the stream they come from; its codec headers and rotation flag are carried over.
        packets: the packets that segment.packets lists, in that order.
        segment: a segment that is not `by_count`.
    """
    order = np.argsort(np.argsort(table.pts[segment.packets], kind="stable"), kind="stable")
    # Decode times must not pass presentation times: start presentation late by the largest reordering distance.
    delay = int((np.arange(len(order)) - order).max())
    starts = {int(run) for run in segment.runs}
    target = io.BytesIO()
    with av.open(target, "w", format=_CONTAINERS[codec]) as container:
        out = container.add_stream_from_template(stream, opaque=True)
        out.time_base = _TIME_BASE
        for index, packet in enumerate(packets):
            copy = Packet(bytes(packet))
            copy.stream = out
            copy.time_base = _TIME_BASE
            copy.dts = index * _STEP
            copy.pts = int(order[index] + delay) * _STEP
            copy.duration = _STEP
            copy.is_keyframe = index in starts
            container.mux_one(copy)
    return target.getvalue()


def positions(segment: Segment, table: PacketTable) -> np.ndarray:
    """int64 [W]: where the wanted frames come out of the remuxed file, counted in presentation order.

    Every packet of the segment must show a picture.
    """
    found: np.ndarray = np.searchsorted(np.sort(table.pts[segment.packets]), table.pts[segment.wanted])
    return found


def is_turned(stream: AvVideoStream) -> bool:
    """Whether the stream's frames are to be shown turned or mirrored, which DALI's decoder does not do.

    PyAV tells it of decoded frames only; mp4 headers have it, so one is written and read.
    """
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="mp4", options={"movflags": "empty_moov"}) as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
    except (av.error.FFmpegError, ValueError):  # a codec that mp4 does not carry
        return False
    data = header.getvalue()
    matrix = data.find(b"tkhd") + 44
    return struct.unpack_from(">5i", data, matrix) != (0x10000, 0, 0, 0, 0x10000)
