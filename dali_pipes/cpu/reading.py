"""A video file in, its scan, its segments and their packets out: what every decoder of wanted frames starts from."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream as AvVideoStream

from ..contract import Notice, VideoError
from ..layout import Layout
from ..opening import opened, seekable
from ..packets import edit_lists, jumping, needed, remux, scan
from ..packets.keyframes import nearest_keyframes
from ..packets.pruning import Segment, plan_segments
from ..packets.sample_table import Doubt
from ..packets.scan import PacketTable, VideoStream
from ..places import Place
from ..read_ahead import ReadAhead, ReadFailed
from ..sampling import Sampling, count_wanted, frames_at, rate_differs, wanted_frames, wanted_times, why_none
from . import damage, decoders, decoding
from .damage import MOST_DAMAGED, Damage, OnDamage

logger = logging.getLogger(__name__)

Decoder = decoders.Decoder


def _allow(reason: str) -> None:
    return


@contextlib.contextmanager
def open_reading(
    path: Place,
    sampling: Sampling,
    on_damage: OnDamage = "fail",
    *,
    skim: bool = False,
    scanned: tuple[VideoStream, PacketTable] | None = None,
) -> Iterator[Reading]:
    """Opens and scans a video; raises VideoError, also where it has no wanted frame.

    Args:
        path: where it lies.
        sampling: which frames are wanted.
        on_damage: what becomes of a wanted frame that cannot be decoded. `fail`: the video is lost. `nearest`: the
            nearest frame that can stands for it, if one is at most a sampling period away; the video is lost where
            none is, or where more than MOST_DAMAGED of its wanted frames, and more than one, cannot be decoded.
        skim: see `scan.open_video`; DALI asks for what it does without.
        scanned: what another process has found out about the same file, `Reading.scanned`; None: it is scanned.
    """
    with scan.open_video(path, skim=skim) as (container, stream):
        summary, table, packets = scan.scan(container, stream) if scanned is None else (*scanned, None)
        yield _sampled(path, stream, summary, table, _MemoryFeed.of(packets), sampling, on_damage)


@contextlib.contextmanager
def open_needed(
    path: Place,
    sampling: Sampling,
    on_damage: OnDamage = "fail",
    *,
    skim: bool = False,
    only: np.ndarray | None = None,
) -> Iterator[Reading]:
    """As open_reading, but no more of the file is read than wanted frames need, where its header tells what that is.

    Of a packet that has not been read the table knows its size and times only; the frames are those of open_reading.

    Args:
        path, sampling, on_damage, skim: see open_reading.
        only: int64 [m], ascending, positions among the wanted frames of those that will be read; None: all of them.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(opened(path))
        container, stream = stack.enter_context(scan.open_source(source, path.name, skim=skim))
        plan = found = None
        try:
            file = source if isinstance(source, ReadAhead) else stack.enter_context(seekable(path))
            plan = needed.plan(container, stream, file, functools.partial(_frames_of, sampling=sampling, only=only))
            found = needed.read(container, stream, file, plan)
        except (Doubt, ReadFailed) as doubt:
            logger.debug("%s: all of it is read: %s", path, doubt)
            if plan is not None:  # FFmpeg is not at the first packet any more
                stack.close()
                container, stream = stack.enter_context(scan.open_video(path, skim=skim))
        if found is not None:
            yield _sampled(path, stream, found.summary, found.table, found.feed, sampling, on_damage)
        else:
            summary, table, packets = scan.scan(container, stream)
            yield _sampled(path, stream, summary, table, _MemoryFeed.of(packets), sampling, on_damage)


def _frames_of(summary: VideoStream, table: PacketTable, *, sampling: Sampling, only: np.ndarray | None) -> np.ndarray:
    """The frames to read of a video whose packets are known by its header; raises Doubt."""
    if sampling.max_shift_s is not None and not table.keyframes.all():
        raise Doubt("decoding may start at other packets than those that its header lists")
    if sampling.edit_lists == "ignore" and summary.cut_off:
        raise Doubt("which frame a number means depends on its packets")
    if why_none(summary, sampling):
        raise Doubt("it has no wanted frame")
    _, frames = _planned(summary, table, sampling)
    chosen = frames if only is None else frames[only[only < len(frames)]]
    if not len(chosen):
        raise Doubt("it has none of these frames")
    return chosen


def _sampled(
    path: Place,
    stream: AvVideoStream,
    summary: VideoStream,
    table: PacketTable,
    kept: Feed | None,
    sampling: Sampling,
    on_damage: OnDamage,
) -> Reading:
    """A video whose packets are known and none decoded, ready for its wanted frames; raises VideoError for none."""
    decoding.choose_steps(stream.codec_context, sampling.decode)
    if sampling.edit_lists == "ignore":
        summary = edit_lists.counted(summary)
    if reason := why_none(summary, sampling):
        raise VideoError("sample", reason)
    planned_s, planned = _planned(summary, table, sampling)
    shift_s = sampling.max_shift_s
    wanted = planned if shift_s is None else nearest_keyframes(table, planned, shift_s)
    farthest_s = 1 / sampling.fps if on_damage == "nearest" else None
    return Reading(path, stream, summary, table, kept, sampling, planned_s, planned, wanted, farthest_s)


def _planned(summary: VideoStream, table: PacketTable, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """(times, float64 [n], seconds from the first frame; indices of the frames to show for them, int64 [n])."""
    fps, min_frames = sampling.fps, sampling.min_frames
    if sampling.mode == "time":
        times_s = wanted_times(summary.duration_s, fps=fps, min_frames=min_frames)
        return times_s, frames_at(table.times_s, times_s)
    frames = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps, min_frames=min_frames)
    if sampling.edit_lists == "ignore":
        frames = edit_lists.given_by_decord(table, frames)
    return table.times_s[frames], frames


@dataclasses.dataclass
class Reading:
    """An opened and scanned video.

    Attributes:
        path: where it lies.
        stream: its video stream, opened.
        summary, table: see `scan.scan`.
        kept: gives the packets of any segment; None: they did not fit into memory, and the file is read again.
        sampling: which frames are wanted.
        planned_s: float64 [n], seconds from the video's start that the wanted frames stand for: the times asked for
            where they are wanted by time, else the planned frames' own.
        planned: int64 [n], indices in presentation order of the frames to show for them, ascending; one may come twice.
        wanted: int64 [n], the frames to decode: the planned ones, or keyframes near them.
        stood_in: why PyAV decoded what another decoder was asked for; None: it did not.
        decoded_packets: packets that were given to a decoder by `frames` so far.
        farthest_s: how far from a wanted frame that cannot be decoded its stand-in may be, seconds; None: such a video
            is lost.
        damage: what the frames so far have lost.
    """

    path: Place
    stream: AvVideoStream
    summary: VideoStream
    table: PacketTable
    kept: Feed | None
    sampling: Sampling
    planned_s: np.ndarray
    planned: np.ndarray
    wanted: np.ndarray
    farthest_s: float | None
    stood_in: str | None = None
    decoded_packets: int = 0
    damage: Damage = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.damage = Damage(len(self.wanted))

    @property
    def scanned(self) -> tuple[VideoStream, PacketTable]:
        """What `open_reading` can do with instead of a scan."""
        return self.summary, self.table

    def layout(self) -> Layout:
        """The video's super images; their times are the planned ones: the part of the video that they stand for."""
        end_s = max(self.summary.duration_s, float(self.planned_s[-1]))
        return Layout(np.append(self.planned_s, end_s), self.sampling)

    def part(self, positions: np.ndarray) -> Reading:
        """The same video as if it had some of its wanted frames only: other GOPs than theirs are not decoded.

        Each frame is that of the whole video. Shares of damage are those of the part.

        Args:
            positions: int64 [m], of these among `wanted`, ascending.
        """
        return dataclasses.replace(
            self, planned_s=self.planned_s[positions], planned=self.planned[positions], wanted=self.wanted[positions]
        )

    def damage_notices(self, video_id: str) -> Iterator[Notice]:
        """Says what damage has cost, once all frames have been read."""
        if self.damage:
            logger.warning("%s: %s", self.path, self.damage)
            yield Notice(video_id, "damage", str(self.damage))

    def notices(self, video_id: str) -> Iterator[Notice]:
        """Says where wanted frames spaced by count are far from evenly spaced in time."""
        if self.sampling.mode == "time" or not rate_differs(self.summary):
            return
        by_time = dataclasses.replace(self.sampling, mode="time", max_shift_s=None)
        detail = (
            f"{self.summary.frame_count:,} frames at {self.summary.avg_fps:g} fps are "
            f"{self.summary.frame_count / self.summary.avg_fps:.1f} s, their time stamps span "
            f"{self.summary.duration_s:.1f} s (variable frame rate): {len(self.wanted):,} wanted frames by count, "
            f"{count_wanted(self.summary, by_time):,} with `mode='time'`"
        )
        logger.warning("%s: %s", self.path, detail)
        yield Notice(video_id, "rate", detail)

    def frames(
        self,
        decoder: Decoder,
        *,
        first: int = 0,
        end: int | None = None,
        cells: int = 1,
        before_whole_file: Callable[[str], None] = _allow,
    ) -> Iterator[np.ndarray]:
        """The wanted frames from position `first` on, each uint8 [336, 446, 3].

        Args:
            decoder: what decodes.
            first: a multiple of cells.
            end: the position before which the last one is; None: to the end of the video.
            cells: see plan_segments.
            before_whole_file: is told why the whole file must be decoded; what it raises ends the frames.
        """
        segments = plan_segments(self.table, self.wanted[:end], cells=cells, first=first)
        feed = self.feed(segments)
        done = first
        try:
            for segment in segments:
                self.decoded_packets += len(segment.packets)
                for frame in self.decode(segment, feed, decoder):
                    yield frame
                    done += 1
        except decoding.Unprovable as error:
            before_whole_file(str(error))
            logger.info("%s: %s; decoding the whole file", self.path, error)
            self.decoded_packets += len(self.table.facts)
            if decoders.takes_files(decoder):
                self.stood_in = self.stood_in or str(error)
            yield from itertools.islice(self.whole_file(done), None if end is None else end - done)

    def feed(self, segments: list[Segment]) -> Feed:
        """Where the packets of these segments come from, each segment asked for once, in this order."""
        return self.kept if self.kept is not None else _FileFeed(self.path, self.table, segments)

    def decode(self, segment: Segment, feed: Feed, decoder: Decoder) -> Iterator[np.ndarray]:
        """The wanted frames of one segment; raises decoding.Unprovable where only `whole_file` tells what they are."""
        if not self.table.prunable:
            raise decoding.Unprovable("its packets cannot be analysed")
        chosen = decoders.DECODERS.get(decoder)
        if chosen is not None and chosen.decode_file is not None:
            if self.counts_right(segment):
                return self._from_file(chosen.decode_file, segment, feed)
            self.stood_in = self.stood_in or f"where {chosen.title} finds the frames is not certain"
        return decoding.decode_with_pyav(self.stream.codec_context, feed.packets(segment), segment)

    def remuxed(self, segment: Segment, packets: list[Packet[AvVideoStream]]) -> bytes:
        """A segment that counts right as a video file in memory, for decoders that open files."""
        return remux.remux(self.stream, self.summary.codec, packets, segment, self.table)

    def counts_right(self, segment: Segment) -> bool:
        """Whether a decoder that counts pictures (decord, DALI) finds the frames: each comes out, in order of time."""
        return remux.why_not_counted(self.table, segment, self.summary.codec) is None

    def _from_file(self, decode: decoders.DecodeFile, segment: Segment, feed: Feed) -> Iterator[np.ndarray]:
        packets = list(feed.packets(segment))
        done = 0
        try:
            data = self.remuxed(segment, packets)
            for frame in decode(data, remux.find_wanted(segment, self.table)):
                yield frame
                done += 1
        except VideoError as error:
            logger.info("%s: %s; PyAV takes over", self.path, error)
            self.stood_in = self.stood_in or error.reason
            frames = decoding.decode_with_pyav(self.stream.codec_context, packets, segment)
            yield from itertools.islice(frames, done, None)

    def whole_file(self, first: int) -> Iterator[np.ndarray]:
        """The wanted frames from position `first` on, with nothing pruned; adds to `damage`.

        Raises:
            VideoError: more is damaged than `farthest_s` and damage.MOST_DAMAGED allow (one frame always may be).
        """
        reformatter = VideoReformatter()
        self.damage = Damage(len(self.wanted))
        with scan.open_video(self.path) as (container, stream):
            decoding.choose_steps(stream.codec_context, self.sampling.decode)
            said = decoding.Complaints()
            pictures = decoding.decode_whole(stream.codec_context, scan.demux(container, stream), said)
            done = 0
            for index, picture in damage.nearest(self._indexed(pictures, said), self.wanted, self.table.times_s):
                self._note(done, index, picture.is_corrupt or int(self.table.shown[index]) in said.damaged)
                if done >= first:
                    yield decoding.to_rgb(picture, reformatter)
                done += 1
        if done < len(self.wanted):
            raise VideoError("decode", "damaged: none of its frames can be decoded")

    def _indexed(
        self, pictures: Iterable[tuple[int, VideoFrame]], said: decoding.Complaints
    ) -> Iterator[tuple[int, VideoFrame]]:
        """(index in presentation order, picture) of those that are frames, from (position of the packet, picture).

        Where the times do not tell the order, pictures are counted, and packets that the decoder refused count, too.
        """
        frames = np.full(len(self.table.facts), -1)
        frames[self.table.shown] = np.arange(len(self.table.shown))
        count, refused = itertools.count(), 0
        missing: list[int] = []  # of the refused ones, those that were to show a frame
        for position, picture in pictures:
            index = int(frames[position]) if position >= 0 else -1
            if not self.table.ordered and (position < 0 or index >= 0):
                missing += [packet for packet in said.refused[refused:] if frames[packet] >= 0]
                refused = len(said.refused)
                index = next(count) + (len(missing) if position < 0 else bisect.bisect_left(missing, position))
            if 0 <= index < len(self.table.shown):
                yield index, picture

    def _note(self, done: int, index: int, marked: bool) -> None:
        """Counts what came for the wanted frame at position `done`; raises VideoError where it is too much."""
        if index == self.wanted[done]:
            self.damage.concealed += marked
            return
        wanted_s, found_s = self.table.times_s[self.wanted[done]], self.table.times_s[index]
        distance_s = abs(float(found_s - wanted_s))
        if self.farthest_s is None:
            raise VideoError("decode", f"damaged: the wanted frame at {wanted_s:.2f} s cannot be decoded")
        if distance_s > self.farthest_s:
            raise VideoError(
                "decode",
                f"damaged: the wanted frame at {wanted_s:.2f} s cannot be decoded, "
                f"nor any within {self.farthest_s:g} s of it",
            )
        self.damage.replaced += 1
        self.damage.farthest_s = max(self.damage.farthest_s, distance_s)
        if self.damage.replaced > max(1, MOST_DAMAGED * self.damage.wanted):
            raise VideoError(
                "decode",
                f"damaged: {self.damage.replaced} of its first {done + 1} wanted frames cannot be decoded, "
                f"which is more than {MOST_DAMAGED:.0%} of all {self.damage.wanted}",
            )


class Feed(Protocol):
    """A source of packets."""

    def packets(self, segment: Segment) -> Iterator[Packet[AvVideoStream]]:
        """The packets that segment.packets lists, in that order."""


class _MemoryFeed:
    """The packets of a small file, kept from the scan."""

    def __init__(self, packets: list[Packet[AvVideoStream]]) -> None:
        self._packets = packets

    @classmethod
    def of(cls, packets: list[Packet[AvVideoStream]] | None) -> _MemoryFeed | None:
        return None if packets is None else cls(packets)

    def packets(self, segment: Segment) -> Iterator[Packet[AvVideoStream]]:
        return (self._packets[position] for position in segment.packets)


class _FileFeed:
    """The packets of a large file, demuxed a second time, segment after segment, in one pass from the first of them."""

    def __init__(self, path: Place, table: PacketTable, segments: list[Segment]) -> None:
        self._segments = segments
        self._source = jumping.packets_from(path, table, int(segments[0].packets[0]) if segments else 0)
        self._next = 0
        self._ahead: dict[int, Packet[AvVideoStream]] = {}  # read already, needed by this segment or those that follow

    def packets(self, segment: Segment) -> Iterator[Packet[AvVideoStream]]:
        later = [other.packets for other in self._segments if other.first > segment.first]
        following = set(np.concatenate(later[:2]).tolist()) if later else set()
        for position in segment.packets.tolist():
            while self._next <= position:
                read, packet = self._read()
                if read == position or read in following:
                    self._ahead[read] = packet
                self._next = read + 1
            yield self._ahead[position] if position in following else self._ahead.pop(position)

    def _read(self) -> tuple[int, Packet[AvVideoStream]]:
        try:
            return next(self._source)
        except StopIteration:
            raise VideoError("demux", "the file became shorter while it was read") from None
        except jumping.Elsewhere as error:
            raise decoding.Unprovable(str(error)) from error
