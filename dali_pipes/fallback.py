"""A video file in, its super images out, on the CPU: PyAV or decord behind the interface of every pixel source."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream as AvVideoStream

from . import decoding, grid, remux, streams
from .bitstream import HIDDEN, OPEN
from .pruning import Segment, plan_segments, whole
from .sampling import Sampling, super_image_count, wanted_frames
from .source import SuperImages, VideoFile
from .streams import PacketTable, VideoError, VideoStream

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
    with _opened(video.path, sampling.fps, sampling.min_frames) as reading:
        total = super_image_count(len(reading.wanted), sampling.grid_size)
        times_s = reading.table.times_s[reading.wanted]
        start_s = times_s[:: sampling.cells]
        end_s = np.append(start_s[1:], max(reading.summary.duration_s, float(times_s[-1])))
        first = skip
        frames = reading.frames(decoder, first=skip * sampling.cells, cells=sampling.cells)
        while chunk := list(itertools.islice(frames, RUN_SUPER_IMAGES * sampling.cells)):
            images = grid.assemble(np.stack(chunk), sampling.grid_size, sampling.super_img_size)
            span = slice(first, first + len(images))
            yield SuperImages(video.video_id, first, total, images, start_s[span], end_s[span])
            first += len(images)


def frames(path: pathlib.Path, fps: float, *, decoder: Decoder = "auto") -> Iterator[np.ndarray]:
    """Yields a video's wanted frames in order, each uint8 [336, 446, 3]; raises VideoError."""
    with _opened(path, fps, 1) as reading:
        yield from reading.frames(decoder)


@contextlib.contextmanager
def _opened(path: pathlib.Path, fps: float, min_frames: int) -> Iterator[_Reading]:
    with streams.open_video(path) as (container, stream):
        summary, table, packets = streams.scan(container, stream)
        wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps, min_frames=min_frames)
        if not len(wanted):
            raise VideoError("sample", f"{summary.duration_s:.2f} s is shorter than one period of {1 / fps:g} s")
        yield _Reading(path, stream, summary, table, packets, wanted)


@dataclasses.dataclass
class _Reading:
    """An opened and scanned video."""

    path: pathlib.Path
    stream: AvVideoStream
    summary: VideoStream
    table: PacketTable
    packets: list[Packet] | None
    wanted: np.ndarray

    def frames(self, decoder: Decoder, *, first: int = 0, cells: int = 1) -> Iterator[np.ndarray]:
        """The wanted frames from position `first` on."""
        segments = plan_segments(self.table, self.wanted, cells=cells, first=first)
        feed = _MemoryFeed(self.packets) if self.packets is not None else _FileFeed(self.path, segments)
        done = first
        try:
            for segment in segments:
                with_decord = decoder == "decord" and self.decord_counts_right(segment)
                for frame in self._with_decord(segment, feed) if with_decord else self._with_pyav(segment, feed):
                    yield frame
                    done += 1
        except decoding.MissingFrames as error:
            logger.info("%s: %s; decoding the whole file", self.path, error)
            yield from self._whole_file(done)

    def decord_counts_right(self, segment: Segment) -> bool:
        """decord finds frames by counting pictures: each must come out, in the order of the time stamps."""
        return (
            self.table.prunable
            and self.table.reordering_declared
            and not segment.by_count
            and not (self.table.facts[segment.packets] & (OPEN | HIDDEN)).any()
            and remux.can_remux(self.summary.codec)
            and int(self.table.sizes[segment.packets].sum()) <= MAX_REMUX_BYTES
        )

    def _with_decord(self, segment: Segment, feed: _MemoryFeed | _FileFeed) -> Iterator[np.ndarray]:
        packets = list(feed.packets(segment))
        done = 0
        try:
            data = remux.remux(self.stream, self.summary.codec, packets, segment, self.table)
            for frame in decoding.decode_with_decord(data, remux.positions(segment, self.table)):
                yield frame
                done += 1
        except VideoError as error:
            logger.info("%s: %s; PyAV takes over", self.path, error)
            frames = decoding.decode_with_pyav(self.stream.codec_context, packets, segment)
            yield from itertools.islice(frames, done, None)

    def _with_pyav(self, segment: Segment, feed: _MemoryFeed | _FileFeed) -> Iterator[np.ndarray]:
        return decoding.decode_with_pyav(self.stream.codec_context, feed.packets(segment), segment)

    def _whole_file(self, first: int) -> Iterator[np.ndarray]:
        """The wanted frames from position `first` on, with nothing pruned."""
        segment = whole(self.table, self.wanted[first:], first)
        with streams.open_video(self.path) as (container, stream):
            try:
                packets = streams.packets(container, stream)
                yield from decoding.decode_with_pyav(stream.codec_context, packets, segment, accept_corrupt=True)
            except decoding.MissingFrames as error:
                raise VideoError("decode", f"damaged: {error}") from error


class _MemoryFeed:
    """The packets of a small file, kept from the scan."""

    def __init__(self, packets: list[Packet]) -> None:
        self._packets = packets

    def packets(self, segment: Segment) -> Iterator[Packet]:
        return (self._packets[position] for position in segment.packets)


class _FileFeed:
    """The packets of a large file, demuxed a second time, segment after segment, in one pass."""

    def __init__(self, path: pathlib.Path, segments: list[Segment]) -> None:
        self._segments = segments
        self._source = self._demux(path)
        self._next = 0
        self._ahead: dict[int, Packet] = {}  # read already, needed by this segment or those that follow

    @staticmethod
    def _demux(path: pathlib.Path) -> Iterator[Packet]:
        with streams.open_video(path) as (container, stream):
            yield from streams.packets(container, stream)

    def packets(self, segment: Segment) -> Iterator[Packet]:
        later = [other.packets for other in self._segments if other.first > segment.first]
        following = set(np.concatenate(later[:2]).tolist()) if later else set()
        for position in segment.packets.tolist():
            while self._next <= position:
                packet = next(self._source, None)
                if packet is None:
                    raise VideoError("demux", "the file became shorter while it was read")
                if self._next == position or self._next in following:
                    self._ahead[self._next] = packet
                self._next += 1
            yield self._ahead[position] if position in following else self._ahead.pop(position)
