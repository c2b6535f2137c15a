"""A video file in, its scan, its segments and their packets out: what every decoder of wanted frames starts from."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream as AvVideoStream

from . import decoding, remux, streams
from .bitstream import HIDDEN, OPEN
from .keyframes import nearest_keyframes
from .pruning import Segment, plan_segments, whole
from .sampling import (
    Sampling,
    count_wanted,
    frames_at,
    rate_differs,
    wanted_frames,
    wanted_times,
    why_none,
)
from .source import Notice
from .streams import PacketTable, VideoError, VideoStream

logger = logging.getLogger(__name__)

Decoder = Literal["auto", "decord", "pyav"]
# decord and DALI take a segment as one file in memory; larger ones are fed to PyAV packet by packet.
MAX_REMUX_BYTES = 256 << 20


@contextlib.contextmanager
def opened(path: pathlib.Path, sampling: Sampling) -> Iterator[Reading]:
    """Opens and scans a video; raises VideoError, also where it has no wanted frame."""
    with streams.open_video(path) as (container, stream):
        summary, table, packets = streams.scan(container, stream)
        if reason := why_none(summary, sampling):
            raise VideoError("sample", reason)
        planned_s, planned = _planned(summary, table, sampling)
        shift_s = sampling.max_shift_s
        wanted = planned if shift_s is None else nearest_keyframes(table, planned, shift_s)
        yield Reading(path, stream, summary, table, packets, sampling, planned_s, planned, wanted)


def _planned(summary: VideoStream, table: PacketTable, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """(times, float64 [n], seconds from the first frame; indices of the frames to show for them, int64 [n])."""
    fps, min_frames = sampling.fps, sampling.min_frames
    if sampling.mode == "time":
        times_s = wanted_times(summary.duration_s, fps=fps, min_frames=min_frames)
        return times_s, frames_at(table.times_s, times_s)
    frames = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps, min_frames=min_frames)
    return table.times_s[frames], frames


@dataclasses.dataclass
class Reading:
    """An opened and scanned video.

    Attributes:
        path: the file.
        stream: its video stream, opened.
        summary, table: see `streams.scan`.
        packets: all of them where they fit into memory.
        sampling: which frames are wanted.
        planned_s: float64 [n], seconds from the video's start that the wanted frames stand for: the times asked for
            where they are wanted by time, else the planned frames' own.
        planned: int64 [n], indices in presentation order of the frames to show for them, ascending; one may come twice.
        wanted: int64 [n], the frames to decode: the planned ones, or keyframes near them.
        not_decord: why PyAV decoded what decord was asked for; None: it did not.
    """

    path: pathlib.Path
    stream: AvVideoStream
    summary: VideoStream
    table: PacketTable
    packets: list[Packet] | None
    sampling: Sampling
    planned_s: np.ndarray
    planned: np.ndarray
    wanted: np.ndarray
    not_decord: str | None = None

    def times_s(self, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Seconds from the video's start at which each super image of `cells` frames starts and ends, float64 [L].

        They are the planned times: the part of the video that a super image stands for.
        """
        start_s = self.planned_s[::cells]
        return start_s, np.append(start_s[1:], max(self.summary.duration_s, float(self.planned_s[-1])))

    def notices(self, video_id: str) -> Iterator[Notice]:
        """Says where wanted frames spaced by count are far from evenly spaced in time."""
        if self.sampling.mode == "time" or not rate_differs(self.summary):
            return
        by_time = dataclasses.replace(self.sampling, mode="time", max_shift_s=None)
        detail = (
            f"{self.summary.frame_count:,} frames at {self.summary.avg_fps:g} fps are "
            f"{self.summary.frame_count / self.summary.avg_fps:.1f} s, their time stamps span "
            f"{self.summary.duration_s:.1f} s (variable frame rate): {len(self.wanted):,} wanted frames by count, "
            f"{count_wanted(self.summary, by_time):,} with --sampling time"
        )
        logger.warning("%s: %s", self.path, detail)
        yield Notice(video_id, "rate", detail)

    def frames(self, decoder: Decoder, *, first: int = 0, cells: int = 1) -> Iterator[np.ndarray]:
        """The wanted frames from position `first` on, each uint8 [336, 446, 3]."""
        segments = plan_segments(self.table, self.wanted, cells=cells, first=first)
        feed = self.feed(segments)
        done = first
        try:
            for segment in segments:
                for frame in self.decode(segment, feed, decoder):
                    yield frame
                    done += 1
        except decoding.MissingFrames as error:
            logger.info("%s: %s; decoding the whole file", self.path, error)
            if decoder == "decord":
                self.not_decord = self.not_decord or str(error)
            yield from self.whole_file(done)

    def feed(self, segments: list[Segment]) -> Feed:
        """Where the packets of these segments come from, each segment asked for once, in this order."""
        return _MemoryFeed(self.packets) if self.packets is not None else _FileFeed(self.path, segments)

    def decode(self, segment: Segment, feed: Feed, decoder: Decoder) -> Iterator[np.ndarray]:
        """The wanted frames of one segment; raises decoding.MissingFrames where pruning went wrong."""
        if decoder == "decord" and self.counts_right(segment):
            return self._with_decord(segment, feed)
        if decoder == "decord":
            self.not_decord = self.not_decord or "where decord finds the frames is not certain"
        return decoding.decode_with_pyav(self.stream.codec_context, feed.packets(segment), segment)

    def remuxed(self, segment: Segment, packets: list[Packet]) -> bytes:
        """A segment that counts right as a video file in memory, for decoders that open files."""
        return remux.remux(self.stream, self.summary.codec, packets, segment, self.table)

    def counts_right(self, segment: Segment) -> bool:
        """Whether a decoder that counts pictures (decord, DALI) finds the frames: each comes out, in order of time."""
        return (
            self.table.prunable
            and self.table.reordering_declared
            and not segment.by_count
            and not (self.table.facts[segment.packets] & (OPEN | HIDDEN)).any()
            and remux.can_remux(self.summary.codec)
            and int(self.table.sizes[segment.packets].sum()) <= MAX_REMUX_BYTES
        )

    def _with_decord(self, segment: Segment, feed: Feed) -> Iterator[np.ndarray]:
        packets = list(feed.packets(segment))
        done = 0
        try:
            data = self.remuxed(segment, packets)
            for frame in decoding.decode_with_decord(data, remux.positions(segment, self.table)):
                yield frame
                done += 1
        except VideoError as error:
            logger.info("%s: %s; PyAV takes over", self.path, error)
            self.not_decord = self.not_decord or error.reason
            frames = decoding.decode_with_pyav(self.stream.codec_context, packets, segment)
            yield from itertools.islice(frames, done, None)

    def whole_file(self, first: int) -> Iterator[np.ndarray]:
        """The wanted frames from position `first` on, with nothing pruned."""
        segment = whole(self.table, self.wanted[first:], first)
        with streams.open_video(self.path) as (container, stream):
            try:
                packets = streams.packets(container, stream)
                yield from decoding.decode_with_pyav(stream.codec_context, packets, segment, accept_corrupt=True)
            except decoding.MissingFrames as error:
                raise VideoError("decode", f"damaged: {error}") from error


class Feed(Protocol):
    """A source of packets."""

    def packets(self, segment: Segment) -> Iterator[Packet]:
        """The packets that segment.packets lists, in that order."""


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
