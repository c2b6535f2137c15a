"""A segment and its packets in, the wanted frames out: uint8 RGB, by PyAV or decord, one thread."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from .pruning import Segment
from .sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX
from .streams import VideoError

logger = logging.getLogger(__name__)


class MissingFrames(Exception):
    """A decoder did not put out some wanted frames of a segment, or not in the order the container promises."""


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """A decoded frame as uint8 [336, 446, 3], upright: its rotation flag applied, then scaled bicubically."""
    turns = round(frame.rotation / 90) % 4
    width, height = (DECODE_WIDTH_PX, DECODE_HEIGHT_PX) if turns % 2 == 0 else (DECODE_HEIGHT_PX, DECODE_WIDTH_PX)
    # Planar RGB: swscale has no vector code for packed RGB here, which takes up to twice as long.
    scaled = reformatter.reformat(frame, width, height, format="gbrp", interpolation=Interpolation.BICUBIC, threads=1)
    pixels = scaled.to_ndarray()
    return np.rot90(pixels, turns) if turns else pixels


def decode_with_pyav(
    codec: VideoCodecContext, packets: Iterable[Packet], segment: Segment, *, accept_corrupt: bool = False
) -> Iterator[np.ndarray]:
    """Yields the wanted frames of a segment in presentation order.

    Packets are fed to the decoder as they are; each gets its position as its time stamp, so that every picture that
    comes out names the packet it was coded in, whatever the container's own time stamps are.

    Args:
        codec: a decoding context of the stream; it is flushed afterwards.
        packets: the packets that segment.packets lists, in that order.
        accept_corrupt: takes frames that the decoder marks as damaged, as a decoder of the whole file does.

    Raises:
        MissingFrames: a wanted frame did not come out.
    """
    reformatter = VideoReformatter()
    due = [int(packet) for packet in segment.wanted]
    next_due = count = 0
    for identity, frame in _decoded(codec, packets, segment):
        if segment.by_count:
            identity, count = count, count + 1
        if identity != due[next_due] or (frame.is_corrupt and not accept_corrupt):
            continue
        while next_due < len(due) and identity == due[next_due]:
            yield to_rgb(frame, reformatter)
            next_due += 1
        if next_due == len(due):
            break
    codec.flush_buffers()
    if next_due < len(due):
        raise MissingFrames(f"{len(due) - next_due} of {len(due)} wanted frames did not come out of the decoder")


def _decoded(codec: VideoCodecContext, packets: Iterable[Packet], segment: Segment) -> Iterator[tuple[int, VideoFrame]]:
    """(position of its packet, frame), run by run."""
    runs = {int(run) for run in segment.runs[1:]}
    for index, (packet, position) in enumerate(zip(packets, segment.packets, strict=True)):
        if index in runs:
            yield from _fed(codec, None)
            codec.flush_buffers()
        packet.pts = int(position)
        yield from _fed(codec, packet)
    yield from _fed(codec, None)


def _fed(codec: VideoCodecContext, packet: Packet | None) -> list[tuple[int, VideoFrame]]:
    try:
        return [(-1 if frame.pts is None else frame.pts, frame) for frame in codec.decode(packet)]
    except av.error.EOFError:
        return []
    except av.error.InvalidDataError as error:
        logger.debug("damaged packet: %s", error)  # what it was to show is missed by the caller, if it was wanted
        return []
    except av.error.FFmpegError as error:
        raise VideoError("decode", str(error)) from error


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
        raise VideoError("decode", "decord is not installed: pip install decord, or use --decoder pyav") from error
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        reader = decord.VideoReader(source, width=DECODE_WIDTH_PX, height=DECODE_HEIGHT_PX, num_threads=1)
        for start in range(0, len(positions), batch):
            yield from reader.get_batch(positions[start : start + batch].tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoError("decode", f"decord: {str(error).splitlines()[0][:200]}") from error
