"""A video file, its packet table and a position in it in, the packets from there on out: without what comes before.

Where a container lands when it is told to jump differs, and some cannot do it at all. So each packet that comes after a
jump is held against the table: it must have the time and the size that the scan found at its position.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream as AvVideoStream

from ..places import Place
from . import scan
from .scan import PacketTable, VideoPacket


class Elsewhere(Exception):
    """A packet that came after a jump is not the one that the table has at its position."""


def packets_from(place: Place, table: PacketTable, position: int) -> Iterator[tuple[int, VideoPacket]]:
    """Yields (position, packet) in decode order: from `position` or somewhat before, or from the first packet on.

    Args:
        place: where the file is.
        table: of its packets.
        position: of the first packet that is needed.

    Raises:
        VideoError: see scan.open_video and scan.demux.
        Elsewhere: see there.
    """
    if position:
        with scan.open_video(place) as (container, stream):
            landed = _jump(container, stream, table, position)
            if landed is not None:
                yield from _checked(*landed, scan.demux(container, stream), table)
                return
    with scan.open_video(place) as (container, stream):
        yield from enumerate(scan.demux(container, stream))


def _jump(
    container: InputContainer, stream: AvVideoStream, table: PacketTable, position: int
) -> tuple[int, VideoPacket] | None:
    """The packet to which the container jumps, and its position; None where that is not certain, or too late."""
    # What undoes a packed bitstream of MPEG-4 has to see the packet before.
    if not table.ordered or stream.codec_context.name == "mpeg4":
        return None
    try:
        container.seek(int(table.pts[position]), stream=stream)
        packet = next(scan.demux(container, stream), None)
    except FFmpegError:
        return None
    if packet is None or packet.pts is None:
        return None
    found = np.flatnonzero((table.pts == packet.pts) & (table.sizes == packet.size))
    return (int(found[0]), packet) if len(found) == 1 and found[0] <= position else None


def _checked(
    first: int, packet: VideoPacket, following: Iterator[VideoPacket], table: PacketTable
) -> Iterator[tuple[int, VideoPacket]]:
    for position, found in enumerate(itertools.chain([packet], following), first):
        if position >= len(table.sizes) or found.size != table.sizes[position]:
            raise Elsewhere(f"after a jump, packet {position} is not what it was in the scan")
        if (found.pts or 0) != table.pts[position]:
            raise Elsewhere(f"after a jump, packet {position} has not the time that it had in the scan")
        yield position, found
