"""A file whose header lists its packets and the frames that are wanted in, no more packets than these need out.

What a full scan finds out of the packets that are not read is taken from the header: that each shows one picture, and
that decoding may start at its keyframes with the parameter sets of the header and those that come with them, which is
what every player that jumps relies on. All that is read is checked against it, and whatever does not fit is a Doubt.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream as AvVideoStream

from ..bitstream.facts import CLOSED, CUT_OFF, HIDDEN, OPEN
from ..bitstream.h264 import H264Reader
from ..bitstream.hevc import HevcReader
from ..bitstream.opaque import OpaqueReader
from ..bitstream.readers import NamesReferences, PacketReader, Resumes, make_reader
from ..contract import VideoError
from ..read_ahead import MOST_BYTES, ReadAhead, ReadFailed
from . import scan
from .index import Index, read_index
from .pruning import Segment, plan_segments
from .sample_table import Doubt
from .scan import PacketTable, VideoPacket, VideoStream

# Smaller files are read as a whole: that takes less than finding out what to leave out.
LEAST_FILE_BYTES = 1 << 20
# Nor is it worth while where more than this share of the packets' bytes must be read anyway.
MOST_SHARE = 0.9
# The packets that FFmpeg is asked for, too: those that it has read already to learn what the stream is, mostly.
CONFIRMING_PACKETS, CONFIRMING_BYTES = 16, 256 << 10
# Of these codecs mp4 and mov files hold a packet as it is, and each packet shows a picture. (A frame of MPEG-4 Part 2
# may lie in the packet of another one.)
CODECS = ("h264", "hevc", "vp9", "av1", "mjpeg", "prores", "dnxhd")

# The summary and the table of a stream in, whose facts are the header's; the frames to read out: int64 [n], ascending
# indices in presentation order, n >= 1. Raises Doubt.
Choose = Callable[[VideoStream, PacketTable], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which packets of a file to read.

    Attributes:
        index: of the file.
        frames: int64 [n], the frames that are wanted of it.
        chosen: bool [P], the packets to read.
    """

    index: Index
    frames: np.ndarray
    chosen: np.ndarray


@dataclasses.dataclass(frozen=True)
class Needed:
    """What was read of a file.

    Attributes:
        summary: as `scan.scan` finds it.
        table: nothing is known of a packet that was not read, but its size and times: whoever needs one needs all of
            them since the last start that was read.
        feed: the packets of any segment.
    """

    summary: VideoStream
    table: PacketTable
    feed: IndexFeed


def plan(container: InputContainer, stream: AvVideoStream, file: ReadAhead, choose: Choose) -> Plan:
    """Which packets to read, by the file's header alone.

    Args:
        container, stream: opened, of which no packet has been read.
        file: the same file; read at its header only.
        choose: see Choose.

    Raises:
        Doubt: the header does not tell, or almost all packets must be read.
        ReadFailed: the file cannot be read.
    """
    if file.size < LEAST_FILE_BYTES:
        raise Doubt("it is small")
    reader = _reader(stream)
    index = read_index(container, stream, file)
    facts = np.where(index.keyframes, OPEN, 0).astype(np.uint16)
    summary, table = _described(stream, index, facts, reader, None)
    frames = choose(summary, table)
    chosen = np.zeros(len(facts), bool)
    chosen[0] = True
    chosen[_packets_of(table, frames)] = True
    if isinstance(reader, HevcReader):
        chosen |= _around_leading(index)
    must, total = sum(map(len, _spans(index, chosen, file))), int(index.sizes.sum())
    if must > MOST_SHARE * total and total <= scan.KEEP_PACKETS_BYTES:
        raise Doubt(f"{must:,} of {total:,} bytes must be read")
    return Plan(index, frames, chosen)


def read(container: InputContainer, stream: AvVideoStream, file: ReadAhead, plan: Plan) -> Needed:
    """Reads the packets of a plan.

    Args:
        container, stream, file: those that the plan was made of; FFmpeg is asked for the first packets.

    Raises:
        Doubt: what was read is not what the header promises, or damaged.
        VideoError, ReadFailed: the file cannot be read.
    """
    index = plan.index.confirmed(first := _first_packets(container, stream))
    reader = _reader(stream)
    keeps = int(index.sizes[plan.chosen].sum()) <= scan.KEEP_PACKETS_BYTES
    feed = IndexFeed(file, index, stream)
    positions = np.flatnonzero(plan.chosen)
    facts_read = np.zeros(len(positions), np.uint16)
    previous = -1
    for number, (position, data) in enumerate(feed.read(positions)):
        if position < len(first) and bytes(first[position]) != data:
            raise Doubt(f"FFmpeg reads other bytes of packet {position}")
        if position != previous + 1 and isinstance(reader, Resumes):
            reader.resume()
        facts_read[number] = scan.read_facts(reader, data, bool(index.keyframes[position]))
        previous = position
        if keeps:
            feed.keep(position, data)
    reader.finish(facts_read)
    facts = np.zeros(len(index.starts), np.uint16)
    facts[positions] = facts_read
    summary, table = _described(stream, index, facts, reader, positions)
    if not table.prunable:
        raise Doubt("a packet is damaged, or not as the header promises")
    if not table.ordered or (table.facts & HIDDEN & ~np.uint16(CUT_OFF)).any():
        raise Doubt("not every packet shows a picture at its time")
    if not facts[0] & (CLOSED | OPEN):
        raise Doubt("decoding cannot start at its first packet")
    if not plan.chosen[_packets_of(table, plan.frames)].all():
        raise Doubt("decoding cannot start at each of its keyframes")
    return Needed(summary, table, feed)


class IndexFeed:
    """The packets of a file by its index, whichever are asked for: those kept are at hand, others are read."""

    def __init__(self, file: ReadAhead, index: Index, stream: AvVideoStream) -> None:
        self._file = file
        self._index = index
        self._stream = stream
        self._kept: dict[int, VideoPacket] = {}

    def packets(self, segment: Segment) -> Iterator[VideoPacket]:
        """The packets that segment.packets lists, in that order; raises VideoError."""
        missing = np.array([position for position in segment.packets.tolist() if position not in self._kept], np.int64)
        read = self.read(missing)
        for position in segment.packets.tolist():
            try:
                yield self._kept[position] if position in self._kept else self._packet(*next(read))
            except ReadFailed as error:
                raise VideoError("demux", error.strerror or str(error)) from error

    def keep(self, position: int, data: memoryview) -> None:
        """Has a packet at hand from now on."""
        self._kept[position] = self._packet(position, data)

    def read(self, positions: np.ndarray) -> Iterator[tuple[int, memoryview]]:
        """(position, bytes) of packets, ascending; raises VideoError, ReadFailed."""
        chosen = np.zeros(len(self._index.starts), bool)
        chosen[positions] = True
        for run in _runs(self._index, chosen, self._file):
            span = _span(self._index, run)
            data = memoryview(self._file.read_range(span.start, span.stop))
            if len(data) != len(span):
                raise VideoError("demux", "the file became shorter while it was read")
            for position in run.tolist():
                offset = int(self._index.starts[position]) - span.start
                yield position, data[offset : offset + int(self._index.sizes[position])]

    def _packet(self, position: int, data: memoryview) -> VideoPacket:
        packet: VideoPacket = cast("VideoPacket", Packet(bytes(data)))
        if self._stream.time_base is not None:
            packet.time_base = self._stream.time_base
        packet.pts, packet.dts = int(self._index.pts[position]), int(self._index.dts[position])
        packet.is_keyframe = bool(self._index.keyframes[position])
        return packet


def _reader(stream: AvVideoStream) -> PacketReader:
    """The reader of a codec whose packets show a picture each; raises Doubt for others."""
    codec = stream.codec_context.codec.canonical_name
    reader = make_reader(codec, stream.codec_context.extradata or b"")
    if codec not in CODECS or isinstance(reader, OpaqueReader):
        raise Doubt(f"its codec, {codec}, or its headers do not say what a packet holds")
    if isinstance(reader, H264Reader) and reader.may_hold_fields:
        raise Doubt("a packet may hold one field of a frame")
    return reader


def _first_packets(container: InputContainer, stream: AvVideoStream) -> list[VideoPacket]:
    packets: list[VideoPacket] = []
    before, _ = scan.complaints()
    left = CONFIRMING_BYTES
    for packet in itertools.islice(scan.demux(container, stream), CONFIRMING_PACKETS):
        packets.append(packet)
        left -= packet.size
        if left < 0:
            break
    if not packets or scan.complaints()[0] != before:
        raise Doubt("FFmpeg complains of its first packets")
    return packets


def _described(
    stream: AvVideoStream, index: Index, facts: np.ndarray, reader: PacketReader, positions: np.ndarray | None
) -> tuple[VideoStream, PacketTable]:
    """(summary, table) of a stream.

    Args:
        facts: uint16 [P]; 0 where nothing is known of a packet.
        reader: has read the packets at `positions`, in this order; None where it has read none.
    """
    references: list[tuple[int, ...]] | None = None
    if positions is not None and isinstance(reader, NamesReferences):
        references = [(position - 1,) for position in range(len(facts))]  # of which nothing is known needs all
        for position, named in zip(positions.tolist(), reader.references(), strict=True):
            references[position] = tuple(int(positions[number]) for number in named)
    table = scan.packet_table(
        facts | np.where(index.cut_off, CUT_OFF, 0).astype(np.uint16),
        index.keyframes.tolist(),
        index.pts.tolist(),
        index.sizes.tolist(),
        stream,
        reordering_declared=reader.reordering_declared,
        references=references,
    )
    if not len(table.shown) or not table.ordered:
        raise Doubt("its time stamps do not tell the order of its frames")
    return scan.summarised(stream, table, int((index.pts + index.durations).max()))


def _packets_of(table: PacketTable, frames: np.ndarray) -> np.ndarray:
    """Positions of all packets that these frames need by a table."""
    return np.concatenate([segment.packets for segment in plan_segments(table, frames, cells=len(frames))])


def _around_leading(index: Index) -> np.ndarray:
    """bool [P]: from the packet before each keyframe to the last of its leading pictures, which are shown before it.

    These tell whether decoders skip the leading pictures (HEVC): after a keyframe of some types, or an end of sequence
    in the packet before, they do.
    """
    keys = np.flatnonzero(index.keyframes)
    keyframe = keys[np.searchsorted(keys, np.arange(len(index.pts)), side="right") - 1]
    leading = np.flatnonzero(index.pts < index.pts[keyframe])
    around = np.zeros(len(index.pts), bool)
    for key, last in dict(zip(keyframe[leading].tolist(), leading.tolist(), strict=True)).items():
        around[key - 1 : last + 1] = True  # none of them is the first packet's: an index has none before that
    return around


def _spans(index: Index, chosen: np.ndarray, file: ReadAhead) -> list[range]:
    """The bytes of a file that are read for the chosen packets."""
    return [_span(index, run) for run in _runs(index, chosen, file)]


def _span(index: Index, run: np.ndarray) -> range:
    return range(int(index.starts[run[0]]), int(index.starts[run[-1]] + index.sizes[run[-1]]))


def _runs(index: Index, chosen: np.ndarray, file: ReadAhead) -> list[np.ndarray]:
    """Positions of the chosen packets, split where a jump is better than reading on, or a piece would be large."""
    positions = np.flatnonzero(chosen)
    if not len(positions):
        return []
    starts, stops = index.starts[positions], (index.starts + index.sizes)[positions]
    jumps = starts[1:] - stops[:-1] > file.jump_bytes
    fills = starts[1:] // MOST_BYTES != starts[:-1] // MOST_BYTES
    return np.split(positions, np.flatnonzero(jumps | fills) + 1)
