"""A segment and its packets in, the wanted frames out: uint8 RGB, by PyAV or decord, one thread."""

from __future__ import annotations

import collections
import dataclasses
import io
import itertools
import logging
from collections.abc import Iterable, Iterator

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream as AvVideoStream

from ..contract import VideoError
from ..packets.pruning import Segment
from ..packets.scan import complaints
from ..sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX, Decode
from .damage import LATEST

logger = logging.getLogger(__name__)


# What H.264 decoders also say of healthy streams, after the start of an open GOP: a picture is to be forgotten that
# came before the start.
_HARMLESS = "mmco: unref short failure"


# What the fast decode asks of libavcodec: no loop filter but in keyframes. To filter these, too, costs 1%, and what
# refers to them starts from exact pictures. Nothing else is worth it on the packets that pruning leaves, neither the
# values noref and bidir nor the options flags2=+fast and skip_idct=noref: benchmarks/results/decode_modes.json.
FAST_OPTIONS = {"skip_loop_filter": "nokey"}


class Unprovable(Exception):
    """A segment may not show what a decode of the whole file shows: the stream is damaged, or not analysed."""


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """A decoded frame as uint8 [336, 446, 3], upright: its rotation flag applied, then scaled bicubically."""
    turns = round(frame.rotation / 90) % 4
    width, height = (DECODE_WIDTH_PX, DECODE_HEIGHT_PX) if turns % 2 == 0 else (DECODE_HEIGHT_PX, DECODE_WIDTH_PX)
    # Planar RGB: swscale has no vector code for packed RGB here, which takes up to twice as long.
    scaled = reformatter.reformat(frame, width, height, format="gbrp", interpolation=Interpolation.BICUBIC, threads=1)
    pixels = scaled.to_ndarray()
    return np.rot90(pixels, turns) if turns else pixels


def choose_steps(codec: VideoCodecContext, decode: Decode) -> None:
    """Sets which steps of decoding a context takes: `exact` all of them, `fast` see FAST_OPTIONS.

    Args:
        codec: of which no packet has been decoded.
        decode: see Sampling.
    """
    if decode == "fast":
        codec.options = {**codec.options, **FAST_OPTIONS}


def decode_with_pyav(
    codec: VideoCodecContext, packets: Iterable[Packet[AvVideoStream]], segment: Segment
) -> Iterator[np.ndarray]:
    """Yields the wanted frames of a segment in presentation order, as long as nothing is damaged.

    Packets are fed to the decoder as they are; each gets its position as its time stamp, so that every picture that
    comes out names the packet it was coded in, whatever the container's own time stamps are.

    Args:
        codec: a decoding context of the stream; it is flushed afterwards.
        packets: the packets that segment.packets lists, in that order.

    Raises:
        Unprovable: the decoder complained, marked a picture as damaged, or left out a wanted frame. What damage leads
            to depends on everything that was decoded before, so only a decode of the whole file can tell.
    """
    reformatter = VideoReformatter()
    due = [int(packet) for packet in segment.wanted]
    next_due = count = 0
    # (count of the pictures that came out with it, pixels): a frame may refer to a later one that is marked as damaged
    # when it comes out, so it is held back until all that the decoder held then are out.
    held: collections.deque[tuple[int, np.ndarray]] = collections.deque()
    try:
        for identity, frame in _undamaged(codec, packets, segment):
            if segment.by_count:
                identity = count
            count += 1
            while next_due < len(due) and identity == due[next_due]:
                held.append((count, to_rgb(frame, reformatter)))
                next_due += 1
            while held and count - held[0][0] > LATEST:
                yield held.popleft()[1]
            if next_due == len(due):
                _checked(codec, None, segment)
                break
        yield from (pixels for _, pixels in held)
        if next_due == len(due):
            return
    finally:
        codec.flush_buffers()
    raise Unprovable(f"{len(due) - next_due} of {len(due)} wanted frames did not come out of the decoder")


@dataclasses.dataclass
class Complaints:
    """What a decoder has said of packets so far.

    Attributes:
        damaged: positions of those of which it complained.
        refused: positions, ascending, of those that it did not take: what they were to show does not come out.
    """

    damaged: set[int] = dataclasses.field(default_factory=set)
    refused: list[int] = dataclasses.field(default_factory=list)


def decode_whole(
    codec: VideoCodecContext, packets: Iterable[Packet[AvVideoStream]], said: Complaints
) -> Iterator[tuple[int, VideoFrame]]:
    """Yields (position of its packet, picture), whatever a decoder that gets every packet puts out.

    Args:
        codec: a decoding context of the stream.
        packets: all of them.
        said: gets what the decoder says, before the pictures that come out then.

    Raises:
        VideoError: it puts out nothing at all.
    """
    nothing, cause = True, "no picture came out of the decoder"
    for position, packet in enumerate(itertools.chain(packets, [None])):
        if packet is not None:
            packet.pts = position
        before, _ = complaints()
        try:
            pictures = _decoded(codec, packet)
        except av.error.FFmpegError as error:
            cause = str(error)
            logger.debug("packet %d is damaged: %s", position, error)
            if packet is not None:
                said.refused.append(position)
            continue
        after, complaint = complaints()
        if after != before and complaint != _HARMLESS:
            said.damaged.add(position)
        nothing = nothing and not pictures
        yield from pictures
    if nothing:
        raise VideoError("decode", cause)


def _undamaged(
    codec: VideoCodecContext, packets: Iterable[Packet[AvVideoStream]], segment: Segment
) -> Iterator[tuple[int, VideoFrame]]:
    """(position of its packet, picture), run by run; raises Unprovable."""
    runs = {int(run) for run in segment.runs[1:]}
    for index, (packet, position) in enumerate(zip(packets, segment.packets, strict=True)):
        if index in runs:
            yield from _checked(codec, None, segment)
            codec.flush_buffers()
        packet.pts = int(position)
        yield from _unchecked(codec, packet) if segment.leading[index] else _checked(codec, packet, segment)
    yield from _checked(codec, None, segment)


def _checked(
    codec: VideoCodecContext, packet: Packet[AvVideoStream] | None, segment: Segment
) -> list[tuple[int, VideoFrame]]:
    """The pictures that came out; raises Unprovable where the decoder complains, or marks one as damaged."""
    before, _ = complaints()
    try:
        pictures = _decoded(codec, packet)
    except av.error.FFmpegError as error:
        raise Unprovable(f"a packet is damaged: {error}") from error
    after, complaint = complaints()
    if after != before and complaint != _HARMLESS:
        raise Unprovable(f"the decoder complains: {complaint}")
    corrupt = [position for position, frame in pictures if frame.is_corrupt]
    if corrupt and not np.isin(corrupt, segment.packets[segment.leading]).all():
        raise Unprovable("the decoder marks a picture as damaged")
    return pictures


def _unchecked(codec: VideoCodecContext, packet: Packet[AvVideoStream]) -> list[tuple[int, VideoFrame]]:
    try:
        return _decoded(codec, packet)
    except av.error.FFmpegError:
        return []


def _decoded(codec: VideoCodecContext, packet: Packet[AvVideoStream] | None) -> list[tuple[int, VideoFrame]]:
    """(the packet's time stamp, picture); None makes the decoder put out what it still holds."""
    try:
        return [(-1 if frame.pts is None else frame.pts, frame) for frame in codec.decode(packet)]
    except av.error.EOFError:
        return []


def decode_with_decord(data: bytes | str, positions: np.ndarray, *, batch: int = 16) -> Iterator[np.ndarray]:
    """Yields the frames at `positions` of a video, in that order.

    Args:
        data: the bytes of a video file, or its path.
        positions: int64 [W], ascending positions in presentation order.

    Raises:
        VideoError: decord is missing or cannot open or decode it.
    """
    try:
        import decord
    except ImportError as error:
        raise VideoError("decode", "decord is not installed: pip install decord, or use `decoder='pyav'`") from error
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        reader = decord.VideoReader(source, width=DECODE_WIDTH_PX, height=DECODE_HEIGHT_PX, num_threads=1)
        for start in range(0, len(positions), batch):
            yield from reader.get_batch(positions[start : start + batch].tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoError("decode", f"decord: {str(error).splitlines()[0][:200]}") from error
