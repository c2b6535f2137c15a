"""A video file in, pruned segments for a DALI pipeline out; what DALI cannot take comes decoded instead."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from av.video.codeccontext import VideoCodecContext

from ..bitstream.readers import may_hold_fields
from ..contract import CompressedSegment, Notice, SuperImages, VideoFile
from ..cpu import decoding
from ..cpu.damage import OnDamage
from ..cpu.reading import Feed, Reading, open_needed
from ..cpu.super_images import pack, resize
from ..layout import Layout, SuperImageSize
from ..packets import remux
from ..packets.pruning import SEGMENT_FRAMES, Segment, plan_segments
from ..sampling import Sampling
from .gauge import Gauge
from .nvidia_driver import DecoderLimits

logger = logging.getLogger(__name__)

Device = Literal["gpu", "cpu"]
# What DALI 2.4's video decoder reads where the card does; NVDEC knows some of these only for 8 bits and 4:2:0.
CODECS: dict[Device, tuple[str, ...]] = {
    "gpu": ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"),
    "cpu": ("vp8", "vp9", "mjpeg"),
}
PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
# AVCOL_SPC_UNSPECIFIED, _BT470BG and _SMPTE170M: the matrices of which DALI's CPU variant makes the colours that FFmpeg
# makes. It takes all others for BT.601, too, and is 31 dB off with BT.709 (`gridclip bench gpu`, step C).
_BT601_MATRICES = (2, 5, 6)
# DALI holds the wanted frames of a segment at their own size: 64 frames of 1080p are 380 MiB. A segment is cut shorter
# where frames are larger, and one that cannot be cut (a long GOP) and would take twice as much is not for DALI.
SEGMENT_BYTES = 512 << 20


def read_compressed(
    video: VideoFile,
    /,
    *,
    skip: int,
    sampling: Sampling,
    image_size: int,
    device: Device,
    gauge: pathlib.Path | None,
    limits: Mapping[str, DecoderLimits] | None = None,
    on_damage: OnDamage = "nearest",
    more_sizes: Sequence[SuperImageSize] = (),
) -> Iterator[CompressedSegment | SuperImages | Notice]:
    """Yields a video's super images in order, as segments for DALI where DALI can decode them, else decoded.

    Before them come notices, what is to be known about the video.

    Args:
        skip: leaves out this many super images at the start, and the notices.
        image_size: decoded super images are resized to it.
        device: where DALI decodes.
        gauge: where the job says how many segments DALI has room for; this process decodes a segment itself while there
            is none. None: DALI gets all that it can decode.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.open_reading`.
        more_sizes: further sizes of decoded super images, see `super_images.pack`.

    Raises:
        VideoError: the video cannot be opened, demuxed or decoded, or has no wanted frame.
    """
    with open_needed(video.place, sampling, on_damage) as reading:
        if not skip:
            yield from reading.notices(video.video_id)
        layout = reading.layout()
        begin = layout.frame_of(skip)
        if sampling.overlap:  # no segment of a video has all frames of its last super images
            logger.info("%s: decoded on the CPU: its super images overlap", video.place)
            frames = reading.frames("auto", first=begin, cells=sampling.block)
            for decoded in pack(video.video_id, layout, frames, first_frame=begin, more_sizes=more_sizes):
                yield resize(decoded, image_size)
            yield from reading.damage_notices(video.video_id)
            return
        segments = plan_segments(
            reading.table,
            reading.wanted,
            cells=sampling.block,
            first=begin,
            segment_frames=_segment_frames(reading),
        )
        room = None if gauge is None else Gauge(gauge)
        obstacle = why_not(reading, device, limits)
        feed = reading.feed(segments)
        try:
            for segment in segments:
                if obstacle is None and (room is None or room.value > 0):
                    chunk = _compress(video.video_id, reading, segment, feed, layout)
                    if isinstance(chunk, CompressedSegment):
                        yield chunk
                        begin += len(segment.wanted)
                        continue
                    obstacle = chunk
                    logger.info("%s: decoded on the CPU: %s", video.place, obstacle)
                frames = reading.decode(segment, feed, "auto")
                for decoded in pack(video.video_id, layout, frames, first_frame=begin, more_sizes=more_sizes):
                    yield resize(decoded, image_size)
                    begin += decoded.frames
        except decoding.Unprovable as error:
            logger.info("%s: %s; decoding the whole file", video.place, error)
            frames = reading.whole_file(begin)
            for decoded in pack(video.video_id, layout, frames, first_frame=begin, more_sizes=more_sizes):
                yield resize(decoded, image_size)
            yield from reading.damage_notices(video.video_id)


def why_not(reading: Reading, device: Device, limits: Mapping[str, DecoderLimits] | None = None) -> str | None:
    """Why DALI cannot decode any segment of this video as FFmpeg does; None where it can. See `read_compressed`."""
    codec, width, height = reading.summary.codec, reading.summary.width, reading.summary.height
    if codec not in CODECS[device] or (limits is not None and codec not in limits):
        return f"DALI does not decode {codec} on this {device.upper()}"
    if limits is not None and not limits[codec].takes(width, height):
        return f"this GPU does not decode {codec} of {width} x {height} pixels"
    context = reading.stream.codec_context
    if context.pix_fmt not in PIXEL_FORMATS:
        return f"its pixels are {context.pix_fmt}, not 8-bit 4:2:0"
    if device == "gpu" and codec == "mjpeg" and _is_full_range(context):
        return "NVDEC takes its pixels, of full range, for limited range"
    if device == "cpu" and context.colorspace not in _BT601_MATRICES:
        return "DALI's CPU variant takes its colours, of another matrix, for BT.601"
    if not reading.table.prunable:
        return "its packets cannot be analysed"
    if may_hold_fields(codec, context):
        return "its frames may be interlaced"
    if remux.is_turned(reading.stream):
        return "its frames are shown turned"
    return None


def why_not_segment(reading: Reading, segment: Segment) -> str | None:
    """Why DALI cannot decode this segment of a video of which it can decode others; None where it can."""
    if obstacle := remux.why_not_counted(reading.table, segment, reading.summary.codec):
        return obstacle
    if len(segment.wanted) * reading.summary.width * reading.summary.height * 3 > 2 * SEGMENT_BYTES:
        return f"{len(segment.wanted)} wanted frames between two cuts take too much of the GPU's memory"
    return None


def _is_full_range(context: VideoCodecContext) -> bool:
    return context.color_range == _FULL_RANGE or (context.pix_fmt or "").startswith("yuvj")


def _segment_frames(reading: Reading) -> int:
    frame_bytes = max(1, reading.summary.width * reading.summary.height * 3)
    return max(1, min(SEGMENT_FRAMES, SEGMENT_BYTES // frame_bytes))


def _compress(video_id: str, reading: Reading, segment: Segment, feed: Feed, layout: Layout) -> CompressedSegment | str:
    """The segment for DALI, or why it and those that follow must be decoded here; then none of its packets is used."""
    if obstacle := why_not_segment(reading, segment):
        return obstacle
    pixels = reading.summary.width * reading.summary.height
    data = reading.remuxed(segment, list(feed.packets(segment)))
    end = segment.first + len(segment.wanted)
    parts = layout.parts(segment.first, end)
    start_s, end_s = layout.spans_s(parts)
    return CompressedSegment(
        video_id=video_id,
        first=layout.before(segment.first),
        total=layout.total,
        start_s=start_s,
        end_s=end_s,
        cost=float(len(segment.packets) * pixels),
        decoded_bytes=len(segment.wanted) * pixels * 3,
        data=data,
        positions=remux.find_wanted(segment, reading.table).astype(np.int32),
        parts=parts,
        frame_bounds_s=layout.bounds_s[segment.first : end + 1],
    )
