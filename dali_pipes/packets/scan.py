"""A video file in, its frame count, rate, times and packet table out: demuxing only, nothing is decoded."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import av
import av.error
import av.logging
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream as AvVideoStream

from ..bitstream.facts import BAD_CONTAINER, CLOSED, CUT_OFF, DAMAGED, HIDDEN, OPEN, REORDERED, UNDECODABLE, UNSAFE
from ..bitstream.readers import NamesReferences, PacketReader, make_reader
from ..contract import VideoError
from ..opening import opened
from ..places import Place
from ..read_ahead import ReadAhead

VideoPacket: TypeAlias = "Packet[AvVideoStream]"  # PyAV's class takes no arguments at run time

# Files up to this size keep their packets in memory after the scan; larger ones are demuxed a second time.
KEEP_PACKETS_BYTES = 64 << 20
# For FFmpeg's trial decoding: headers, and how far pictures are reordered by them, but no pictures.
_SKIM = {"skip_frame": "all"}
# User data of MPEG-4 encoders, before the first picture: "p" stands for a packed bitstream.
_PACKED = re.compile(rb"DivX\d+(?:b|Build)\d+p")
_USER_DATA_BYTES = 512


@dataclasses.dataclass(frozen=True)
class VideoStream:
    """The video stream that FFmpeg calls best.

    Attributes:
        frame_count: packets that show a picture (hidden VP8 frames and what an edit list cuts off are none).
        avg_fps: the stream's average frame rate, frames per second.
        duration_s: from the first frame's start to the last frame's end, seconds.
        codec: FFmpeg's name of the codec.
        width, height: coded size in pixels.
        cut_off: packets that show a picture, but that an edit list hides.
    """

    frame_count: int
    avg_fps: float
    duration_s: float
    codec: str
    width: int
    height: int
    cut_off: int = 0


@dataclasses.dataclass(frozen=True)
class PacketTable:
    """What is known of every packet of the stream, in decode order.

    Attributes:
        facts: uint16 [P], bits of bitstream.facts.Fact.
        pts: int64 [P], presentation times in the stream's time base; all zero where the container gives none.
        sizes: int64 [P], bytes.
        keyframes: bool [P], the container's flags; `facts` tell what the codec's syntax proves.
        shown: int64 [F], packets that show a picture, in presentation order (in decode order unless `ordered`).
        times_s: float64 [F], seconds from the first frame.
        ordered: the presentation times tell the order in which a decoder puts the pictures out.
        prunable: the codec's facts are proved for the whole stream.
        reordering_declared: see bitstream.readers.PacketReader.
        references: for each packet the earlier ones that it needs, see bitstream.readers.NamesReferences; None where
            the codec does not tell: a packet then needs all since the last start that are not disposable.
    """

    facts: np.ndarray
    pts: np.ndarray
    sizes: np.ndarray
    keyframes: np.ndarray
    shown: np.ndarray
    times_s: np.ndarray
    ordered: bool
    prunable: bool
    reordering_declared: bool
    references: list[tuple[int, ...]] | None = None


class _Counting:
    """PyAV counts what FFmpeg complains of, such as damage that raises nothing, while its logging is on.

    It is on only while a video is open here, for one decoding thread: every message waits for Python's lock, so that
    FFmpeg's own threads and whoever waits for them would wait for each other for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._found: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._open:
                self._found = av.logging.get_level()
                if self._found is None:
                    av.logging.set_level(av.logging.PANIC)
            self._open += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1
            if not self._open and self._found is None:
                av.logging.set_level(None)


_counting = _Counting()


def complaints() -> tuple[int, str]:
    """How many errors FFmpeg has logged in this process while a video was open, and the last of them."""
    count, last = av.logging.get_last_error()
    return count, last[2].strip() if last else ""


@contextlib.contextmanager
def open_video(place: Place, *, skim: bool = False) -> Iterator[tuple[InputContainer, AvVideoStream]]:
    """Opens a file and its best video stream, for one decoding thread; raises VideoError, see `opening.opened`.

    Args:
        place: where the file is.
        skim: does without what only pictures tell before one is decoded (the codec context's pixel format and colours),
            which costs more than all the rest of opening a small file.
    """
    with opened(place) as source, open_source(source, place.name, skim=skim) as found:
        yield found


@contextlib.contextmanager
def open_source(
    source: str | ReadAhead, name: str, *, skim: bool = False
) -> Iterator[tuple[InputContainer, AvVideoStream]]:
    """As open_video, for what `opening.opened` yields of a place.

    Args:
        source: what FFmpeg reads.
        name: the place's, for its suffix.
        skim: see open_video.
    """
    with contextlib.ExitStack() as stack:
        container = _opened_container(source, name, _SKIM if skim else {})
        stack.enter_context(_counting)
        stack.enter_context(container)
        stream = container.streams.best("video")
        if not isinstance(stream, AvVideoStream) or "attached_pic" in (stream.disposition.name or "").lower():
            kinds = ", ".join(sorted({other.type for other in container.streams}))
            raise VideoError("open", f"no video stream (only {kinds})" if kinds else "no stream at all")
        if stream.codec_context is None:
            raise VideoError("open", "no decoder for its video codec")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        stream.codec_context.thread_count = 1
        yield container, stream


def _opened_container(source: str | ReadAhead, name: str, options: dict[str, str]) -> InputContainer:
    """What FFmpeg makes of a file; raises VideoError("open", ...)."""
    try:
        return _open_container(source, name, options)
    except PermissionError as error:
        raise VideoError("open", "permission denied") from error
    except av.error.InvalidDataError as error:
        raise VideoError("open", "not a video, or its header is missing (invalid data)") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError("open", str(error)) from error


def _open_container(source: str | ReadAhead, name: str, options: dict[str, str]) -> InputContainer:
    """Opens a file, with little of FFmpeg's trial decoding where an mp4's header tells almost everything.

    Args:
        source: what FFmpeg reads.
        name: the file's, for its suffix.
        options: of the trial decoding of an mp4.
    """
    if pathlib.PurePath(name).suffix.lower() in (".mp4", ".mov", ".m4v"):
        container = _demuxed(source, {"analyzeduration": "1", **options})
        # Several video streams are ranked by what the trial decoding finds.
        videos = container.streams.video
        if "mov" in container.format.name and len(videos) == 1 and videos[0].average_rate:
            return container
        container.close()
    return _demuxed(source, {})


def _demuxed(source: str | ReadAhead, options: dict[str, str]) -> InputContainer:
    if isinstance(source, str):
        return av.open(source, metadata_errors="replace", options=options)
    source.seek(0)
    return av.open(source, "r", metadata_errors="replace", options=options, io_open=_refuse_other_file)


def _refuse_other_file(url: str, flags: int, options: dict[str, str]) -> None:
    """A playlist that lies in a tar or in somebody's bucket names what it likes."""
    raise VideoError("open", "it is a playlist: it refers to other files")


def demux(container: InputContainer, stream: AvVideoStream) -> Iterator[VideoPacket]:
    """The stream's packets in decode order, one picture each; raises VideoError("demux", ...)."""
    every = container.demux(stream)
    try:
        for packet in _unpack(every, stream) if stream.codec_context.name == "mpeg4" else every:
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        raise VideoError("demux", f"damaged container: {error}") from error
    except IndexError as error:  # PyAV's, of a packet of a stream that was not there when the file was opened
        raise VideoError("demux", "damaged container: a stream appears in the middle of the file") from error


def _unpack(packets: Iterable[VideoPacket], stream: AvVideoStream) -> Iterator[VideoPacket]:
    """Undoes DivX's and XviD's packed bitstream: two pictures in a packet, a placeholder where the second belongs.

    Only a stream that says so is packed. In any other, two pictures in a packet are damage, and decoders see the first.
    """
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    packed = bool(_PACKED.search(stream.codec_context.extradata or b""))
    for packet in packets:
        packed = packed or bool(_PACKED.search(bytes(packet)[:_USER_DATA_BYTES]))
        if packet.size and not packed:
            yield packet
        elif packet.size:
            try:
                yield from unpack.filter(packet)
            except av.error.FFmpegError as error:
                raise VideoError("demux", f"damaged packed bitstream: {error}") from error
    yield from unpack.filter(None)


def scan(container: InputContainer, stream: AvVideoStream) -> tuple[VideoStream, PacketTable, list[VideoPacket] | None]:
    """Reads every packet of an opened video once.

    Returns:
        The stream's summary, its packet table, and the packets themselves if they fit into KEEP_PACKETS_BYTES.

    Raises:
        VideoError: the container is damaged or cut off, or holds no video packet.
    """
    context = stream.codec_context
    reader = make_reader(context.codec.canonical_name, context.extradata or b"")
    facts: list[int] = []
    keyframes: list[bool] = []
    times: list[int | None] = []
    sizes: list[int] = []
    kept: list[VideoPacket] | None = []
    kept_bytes = 0
    end = 0
    complained, _ = complaints()
    for packet in demux(container, stream):
        fact = read_facts(reader, memoryview(packet), packet.is_keyframe)
        facts.append(fact | CUT_OFF if packet.is_discard else fact)
        keyframes.append(packet.is_keyframe)
        pts = packet.pts
        times.append(pts)
        sizes.append(packet.size)
        if pts is not None:
            end = max(end, pts + (packet.duration or 0))
        if kept is not None:
            kept_bytes += packet.size
            kept.append(packet)
            if kept_bytes > KEEP_PACKETS_BYTES:
                kept = None
    if not facts:
        raise VideoError("demux", "no video packet in the file")
    if complaints()[0] != complained:  # the container is damaged: who knows what is missing between two packets
        facts[-1] |= BAD_CONTAINER
    every = np.array(facts, np.uint16)
    reader.finish(every)
    references = reader.references() if isinstance(reader, NamesReferences) else None
    table = packet_table(
        every, keyframes, times, sizes, stream, reordering_declared=reader.reordering_declared, references=references
    )
    summary, table = summarised(stream, table, end)
    _check_complete(container, stream, len(facts), end * float(stream.time_base or 0))
    return summary, table, kept


def summarised(stream: AvVideoStream, table: PacketTable, end: int) -> tuple[VideoStream, PacketTable]:
    """The stream's summary, and the table with times of its own where the container gives none.

    Args:
        stream: they are of.
        table: of all its packets.
        end: of the packet that is shown last, in the stream's time base.

    Raises:
        VideoError: no packet shows a picture.
    """
    frame_count = len(table.shown)
    if not frame_count:
        raise VideoError("demux", "no packet that shows a picture")
    avg_fps = _average_rate(stream, table)
    if table.times_s[-1] > 0:
        first = int(table.pts[table.shown].min())
        duration_s = max((end - first) * float(stream.time_base or 0), float(table.times_s[-1]))
    else:
        table = dataclasses.replace(table, times_s=np.arange(frame_count) / avg_fps)
        duration_s = frame_count / avg_fps
    cut_off = int(((table.facts & HIDDEN) == CUT_OFF).sum())
    context = stream.codec_context
    codec = context.codec.canonical_name
    return VideoStream(frame_count, avg_fps, duration_s, codec, context.width, context.height, cut_off), table


def read_facts(reader: PacketReader, packet: memoryview, keyframe: bool) -> int:
    """What a reader says of the next packet, DAMAGED where its bytes are not what the codec's syntax allows."""
    try:
        return reader.read(packet, keyframe)
    except (ValueError, IndexError):
        return DAMAGED


def _check_complete(container: InputContainer, stream: AvVideoStream, packet_count: int, end_s: float) -> None:
    """Raises VideoError where the container promises clearly more than the file holds (a download that broke off)."""
    if "mov" in container.format.name:
        promised = len(stream.index_entries)
        if packet_count < 0.99 * promised - 1:
            raise VideoError("demux", f"truncated file: holds {packet_count} of {promised} video packets")
        return
    promised_s = 0.0
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if match:
        promised_s = 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    elif container.format.name == "avi" and stream.duration:
        promised_s = float(stream.duration * (stream.time_base or 0))
    if promised_s > 0 and end_s > 0 and end_s < 0.9 * promised_s - 1:
        raise VideoError("demux", f"truncated file: the video ends after {end_s:.1f} of {promised_s:.1f} seconds")


def summarise(place: Place) -> VideoStream:
    """Frame count, rate and duration of a video file, from its packets.

    Raises:
        VideoError: the file is missing, empty, not a video, without a video stream, or cut off.
    """
    with open_video(place) as (container, stream):
        return scan(container, stream)[0]


def packet_table(
    facts: np.ndarray,
    keyframes: Sequence[bool],
    times: Sequence[int | None],
    sizes: Sequence[int],
    stream: AvVideoStream,
    *,
    reordering_declared: bool,
    references: list[tuple[int, ...]] | None,
) -> PacketTable:
    """The table of a stream's packets.

    Args:
        facts: uint16 [P], as a reader finished them, with CUT_OFF; gets UNDECODABLE.
        keyframes, times, sizes: by packet; a time is None where the container gives none.
        stream: they are of.
        reordering_declared, references: as the reader says.
    """
    time_base = float(stream.time_base or 0)
    facts[_find_undecodable(facts, keyframes, times)] |= UNDECODABLE
    hidden = (facts & HIDDEN) != 0
    timed = all(pts is not None for pts, skip in zip(times, hidden, strict=True) if not skip)
    pts = np.array([0 if value is None or not timed else value for value in times], np.int64)
    shown = np.flatnonzero(~hidden)
    times_s = np.zeros(len(shown))
    ordered = timed
    if timed and len(shown):
        by_time = np.argsort(pts[shown], kind="stable")
        steps = np.diff(pts[shown[by_time]])
        times_s[1:] = np.cumsum(steps) * time_base
        # Bidirectional prediction without reordered times: the muxer lost the presentation times.
        lost = bool((by_time[1:] > by_time[:-1]).all() and (facts & REORDERED).any())
        ordered = not lost and bool((steps > 0).all())
        if ordered:
            shown = shown[by_time]
    return PacketTable(
        facts=facts,
        pts=pts,
        sizes=np.array(sizes, np.int64),
        keyframes=np.array(keyframes, bool),
        shown=shown,
        times_s=times_s,
        ordered=ordered,
        prunable=not (facts & UNSAFE).any(),
        reordering_declared=reordering_declared,
        references=references,
    )


def _find_undecodable(facts: np.ndarray, keyframes: Sequence[bool], times: Sequence[int | None]) -> np.ndarray:
    """bool [P]: what comes before the first keyframe, and its leading pictures if it opens an open GOP.

    Such is a stream that was recorded or cut out in the middle of a GOP: decoders leave these pictures out, or show
    garbage. The leading ones are shown before the keyframe, or have no time stamp where it has one.
    """
    undecodable = np.zeros(len(facts), bool)
    starts = np.flatnonzero(((facts & (CLOSED | OPEN)) != 0) | np.array(keyframes, bool))
    if not len(starts):
        return undecodable
    start = int(starts[0])
    undecodable[:start] = True
    start_pts = times[start]
    opens = not facts[start] & CLOSED if start else bool(facts[start] & OPEN)
    if opens and start_pts is not None:
        stop = int(starts[1]) if len(starts) > 1 else len(facts)
        undecodable[start:stop] = [pts is None or pts < start_pts for pts in times[start:stop]]
    return undecodable


def _average_rate(stream: AvVideoStream, table: PacketTable) -> float:
    for rate in (stream.average_rate, stream.base_rate, stream.guessed_rate):
        if rate and math.isfinite(float(rate)) and rate > 0:
            return float(rate)
    if table.times_s[-1] > 0:
        return (len(table.shown) - 1) / float(table.times_s[-1])
    return 25.0  # FFmpeg's own guess for streams without any timing
