"""A video file in, its super images out, on the CPU: PyAV or decord behind the interface of every pixel source."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Literal

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream as AvVideoStream

from . import decoding, grid, remux, streams
from .bitstream import OPEN
from .pruning import Segment, plan_segments, whole
from .sampling import Sampling, super_image_count, wanted_frames
from .source import SuperImages, VideoFile
from .streams import PacketTable, VideoError

logger = logging.getLogger(__name__)

Decoder = Literal["auto", "decord", "pyav"]
# Super images handed on at once: bounds what a worker holds, whatever the length of the video.
RUN_SUPER_IMAGES = 16
# decord takes a segment as one file in memory; larger ones are fed to PyAV packet by packet.
MAX_REMUX_BYTES = 256 << 20


def super_images(
    video: VideoFile, sampling: Sampling, *, decoder: Decoder = "auto", skip: int = 0
) -> Iterator[SuperImages]:
    """Yields a video's super images in order, in runs of bounded size.

    Only the packets that the wanted frames need are decoded. PyAV decodes them as they are; decord gets them remuxed in
    memory, and PyAV steps in for what decord cannot open or cannot be proved to count right.

    Args:
        decoder: `auto` is PyAV, the faster of the two on the same packets; `decord` gives the reference's bits.
        skip: leaves out this many super images at the start.

    Raises:
        VideoError: the video cannot be opened, demuxed or decoded, or has no wanted frame.
    """
    with streams.open_video(video.path) as (container, stream):
        summary, table, packets = streams.scan(container, stream)
        wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=sampling.fps, min_frames=sampling.min_frames)
        if not len(wanted):
            raise VideoError(
                "sample", f"{summary.duration_s:.2f} s is shorter than one period of {1 / sampling.fps:g} s"
            )
        assembler = _Assembler(video.video_id, sampling, table.times_s[wanted], summary.duration_s)
        segments = plan_segments(table, wanted, cells=sampling.cells, first=skip * sampling.cells)
        feed = _MemoryFeed(packets) if packets is not None else _FileFeed(video, segments)
        decode = _SegmentDecoder(stream, summary.codec, table, feed, decoder)
        delivered = skip
        try:
            for segment in segments:
                for run in assembler.runs(decode.frames(segment), segment.first):
                    yield run
                    delivered += len(run.images)
        except decoding.MissingFrames as error:
            logger.info("%s: %s; decoding the whole file", video.video_id, error)
            yield from assembler.runs(
                _whole_file(video, table, wanted, delivered * sampling.cells), delivered * sampling.cells
            )


def _whole_file(video: VideoFile, table: PacketTable, wanted: np.ndarray, first: int) -> Iterator[np.ndarray]:
    """The wanted frames from position `first` on, with nothing pruned."""
    segment = whole(table, wanted[first:], first)
    with streams.open_video(video.path) as (container, stream):
        try:
            packets = streams.packets(container, stream)
            yield from decoding.decode_with_pyav(stream.codec_context, packets, segment, accept_corrupt=True)
        except decoding.MissingFrames as error:
            raise VideoError("decode", f"damaged: {error}") from error


class _Assembler:
    """Frames in presentation order in, runs of super images with their times out."""

    def __init__(self, video_id: str, sampling: Sampling, times_s: np.ndarray, duration_s: float) -> None:
        self._video_id = video_id
        self._sampling = sampling
        self._total = super_image_count(len(times_s), sampling.grid_size)
        self._start_s = times_s[:: sampling.cells]
        self._end_s = np.append(self._start_s[1:], max(duration_s, float(times_s[-1])))

    def runs(self, frames: Iterator[np.ndarray], first_frame: int) -> Iterator[SuperImages]:
        first = first_frame // self._sampling.cells
        pending: list[np.ndarray] = []
        for frame in frames:
            pending.append(frame)
            if len(pending) == RUN_SUPER_IMAGES * self._sampling.cells:
                yield self._run(first, pending)
                first += RUN_SUPER_IMAGES
                pending = []
        if pending:
            yield self._run(first, pending)

    def _run(self, first: int, frames: list[np.ndarray]) -> SuperImages:
        images = grid.assemble(np.stack(frames), self._sampling.grid_size, self._sampling.super_img_size)
        span = slice(first, first + len(images))
        return SuperImages(self._video_id, first, self._total, images, self._start_s[span], self._end_s[span])


class _MemoryFeed:
    """The packets of a small file, kept from the scan."""

    def __init__(self, packets: list[Packet]) -> None:
        self._packets = packets

    def packets(self, segment: Segment) -> Iterator[Packet]:
        return (self._packets[position] for position in segment.packets)


class _FileFeed:
    """The packets of a large file, demuxed a second time, segment after segment, in one pass."""

    def __init__(self, video: VideoFile, segments: list[Segment]) -> None:
        self._segments = segments
        self._source = self._demux(video)
        self._next = 0
        self._ahead: dict[int, Packet] = {}  # packets that the next segment needs as well

    @staticmethod
    def _demux(video: VideoFile) -> Iterator[Packet]:
        with streams.open_video(video.path) as (container, stream):
            yield from streams.packets(container, stream)

    def packets(self, segment: Segment) -> Iterator[Packet]:
        following = next(
            (later.packets for later in self._segments if later.first > segment.first), segment.packets[:0]
        )
        shared = {int(position) for position in np.intersect1d(segment.packets, following)}
        for position in segment.packets:
            packet = self._ahead.get(int(position)) or self._read(int(position))
            if int(position) in shared:
                self._ahead[int(position)] = packet
            else:
                self._ahead.pop(int(position), None)
            yield packet

    def _read(self, position: int) -> Packet:
        for packet in self._source:
            self._next += 1
            if self._next > position:
                return packet
        raise VideoError("demux", "the file became shorter while it was read")


@dataclasses.dataclass
class _SegmentDecoder:
    """Decodes the segments of one video."""

    stream: AvVideoStream
    codec: str
    table: PacketTable
    feed: _MemoryFeed | _FileFeed
    decoder: Decoder

    def frames(self, segment: Segment) -> Iterator[np.ndarray]:
        """The wanted frames of a segment; raises decoding.MissingFrames where pruning did not hold."""
        return self._with_decord(segment) if self._decord_counts_right(segment) else self._with_pyav(segment)

    def _decord_counts_right(self, segment: Segment) -> bool:
        """decord finds frames by counting pictures, so every picture must come out, in the order of the time stamps."""
        return (
            self.decoder == "decord"
            and self.table.prunable
            and self.table.reordering_declared
            and not segment.by_count
            and not (self.table.facts[segment.packets] & OPEN).any()
            and remux.can_remux(self.codec)
            and int(self.table.sizes[segment.packets].sum()) <= MAX_REMUX_BYTES
        )

    def _with_decord(self, segment: Segment) -> Iterator[np.ndarray]:
        packets = list(self.feed.packets(segment))
        done = 0
        try:
            data = remux.remux(self.stream, self.codec, packets, segment, self.table)
            for frame in decoding.decode_with_decord(data, remux.positions(segment, self.table)):
                yield frame
                done += 1
        except VideoError as error:
            logger.info("%s: PyAV takes over", error)
            rest = self._with_pyav(segment, packets)
            for position, frame in enumerate(rest):
                if position >= done:
                    yield frame

    def _with_pyav(self, segment: Segment, packets: list[Packet] | None = None) -> Iterator[np.ndarray]:
        return decoding.decode_with_pyav(self.stream.codec_context, packets or self.feed.packets(segment), segment)
