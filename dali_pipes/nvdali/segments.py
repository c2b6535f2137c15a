"""A video file in, pruned segments for a DALI pipeline out; what DALI cannot take comes decoded instead."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from av.video.codeccontext import VideoCodecContext

from .. import grid
from ..bitstream.readers import may_hold_fields
from ..contract import EncodedSegment, Notice, SuperImages, VideoFile
from ..cpu import decoding
from ..cpu.damage import OnDamage
from ..cpu.reading import Feed, Reading, opened
from ..cpu.super_images import packed
from ..packets import remux
from ..packets.pruning import SEGMENT_FRAMES, Segment, plan_segments
from ..sampling import Sampling, super_image_count
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
# DALI holds the wanted frames of a segment at their own size: 64 frames of 1080p are 380 MiB. A segment is cut shorter
# where frames are larger, and one that cannot be cut (a long GOP) and would take twice as much is not for DALI.
SEGMENT_BYTES = 512 << 20


def encoded_segments(
    video: VideoFile,
    *,
    skip: int,
    sampling: Sampling,
    image_size: int,
    device: Device,
    gauge: pathlib.Path | None,
    limits: Mapping[str, DecoderLimits] | None = None,
    on_damage: OnDamage = "nearest",
) -> Iterator[EncodedSegment | SuperImages | Notice]:
    """Yields a video's super images in order, as segments for DALI where DALI can decode them, else decoded.

    Before them come notices, what is to be known about the video.

    Args:
        skip: leaves out this many super images at the start, and the notices.
        image_size: decoded super images are resized to it.
        device: where DALI decodes.
        gauge: where the job says how many segments DALI has room for; this process decodes a segment itself while there
            is none. None: DALI gets all that it can decode.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.opened`.

    Raises:
        VideoError: the video cannot be opened, demuxed or decoded, or has no wanted frame.
    """
    with opened(video.path, sampling, on_damage) as reading:
        if not skip:
            yield from reading.notices(video.video_id)
        segments = plan_segments(
            reading.table,
            reading.wanted,
            cells=sampling.cells,
            first=skip * sampling.cells,
            segment_frames=_segment_frames(reading),
        )
        room = None if gauge is None else Gauge(gauge)
        obstacle = why_not(reading, device, limits)
        feed = reading.feed(segments)
        delivered = skip
        try:
            for segment in segments:
                if obstacle is None and (room is None or room.value > 0):
                    run = _encoded(video.video_id, reading, segment, feed, sampling)
                    if isinstance(run, EncodedSegment):
                        yield run
                        delivered += len(run.start_s)
                        continue
                    obstacle = run
                    logger.info("%s: decoded on the CPU: %s", video.path, obstacle)
                frames = reading.decode(segment, feed, "auto")
                for images in packed(video.video_id, reading, frames, sampling, first=delivered):
                    yield resized(images, image_size)
                    delivered += len(images.images)
        except decoding.Unprovable as error:
            logger.info("%s: %s; decoding the whole file", video.path, error)
            frames = reading.whole_file(delivered * sampling.cells)
            for images in packed(video.video_id, reading, frames, sampling, first=delivered):
                yield resized(images, image_size)
            yield from reading.damage_notices(video.video_id)


def resized(run: SuperImages, image_size: int) -> SuperImages:
    """The run with super images of image_size x image_size pixels."""
    if run.images.shape[1] == image_size:
        return run
    return dataclasses.replace(run, images=np.stack([grid.resize(image, image_size) for image in run.on_cpu()]))


def why_not(reading: Reading, device: Device, limits: Mapping[str, DecoderLimits] | None = None) -> str | None:
    """Why DALI cannot decode any segment of this video as FFmpeg does; None where it can. See `encoded_segments`."""
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
    if not reading.table.prunable:
        return "its packets cannot be analysed"
    if may_hold_fields(codec, context):
        return "its frames may be interlaced"
    if remux.is_turned(reading.stream):
        return "its frames are shown turned"
    return None


def _is_full_range(context: VideoCodecContext) -> bool:
    return context.color_range == _FULL_RANGE or (context.pix_fmt or "").startswith("yuvj")


def _segment_frames(reading: Reading) -> int:
    frame_bytes = max(1, reading.summary.width * reading.summary.height * 3)
    return max(1, min(SEGMENT_FRAMES, SEGMENT_BYTES // frame_bytes))


def _encoded(video_id: str, reading: Reading, segment: Segment, feed: Feed, sampling: Sampling) -> EncodedSegment | str:
    """The segment for DALI, or why it and those that follow must be decoded here; then none of its packets is used."""
    pixels = reading.summary.width * reading.summary.height
    decoded_bytes = len(segment.wanted) * pixels * 3
    if not reading.counts_right(segment):
        return "the order of its pictures is not certain"
    if decoded_bytes > 2 * SEGMENT_BYTES:
        return f"{len(segment.wanted)} wanted frames between two cuts take too much of the GPU's memory"
    data = reading.remuxed(segment, list(feed.packets(segment)))
    first = segment.first // sampling.cells
    start_s, end_s = reading.times_s(sampling.cells)
    span = slice(first, first + super_image_count(len(segment.wanted), sampling.grid_size))
    return EncodedSegment(
        video_id=video_id,
        first=first,
        total=super_image_count(len(reading.wanted), sampling.grid_size),
        start_s=start_s[span],
        end_s=end_s[span],
        cost=float(len(segment.packets) * pixels),
        decoded_bytes=decoded_bytes,
        data=data,
        positions=remux.positions(segment, reading.table).astype(np.int32),
    )
