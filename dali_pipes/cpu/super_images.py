"""A video file in, its super images out, on the CPU: PyAV or decord behind the interface of every pixel source."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from .. import grid
from ..contract import Notice, SuperImages, VideoFile
from ..layout import Layout, Part
from ..sampling import Sampling
from . import decoders
from .damage import OnDamage
from .reading import Decoder, open_needed

# Super images handed on at once (one block where that has more): bounds what a worker holds, whatever the video.
CHUNK_SUPER_IMAGES = 16


def super_images(
    video: VideoFile,
    sampling: Sampling,
    *,
    decoder: Decoder = "auto",
    skip: int = 0,
    on_damage: OnDamage = "nearest",
) -> Iterator[SuperImages | Notice]:
    """Yields a video's super images in order, in chunks of bounded size, and what is to be known about the video.

    Only the packets that the wanted frames need are decoded. PyAV decodes them as they are; decord gets them remuxed in
    memory, and PyAV steps in, with a notice, for what decord cannot open or cannot be proved to count right.

    Args:
        decoder: `auto` is PyAV, the faster of the two on the same packets; `decord` gives the reference's bits.
        skip: leaves out this many super images at the start, and the notices.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.open_reading`.

    Raises:
        VideoError: the video cannot be opened, demuxed or decoded, or has no wanted frame.
    """
    with open_needed(video.place, sampling, on_damage, skim=True) as reading:
        if not skip:
            yield from reading.notices(video.video_id)
        first_frame = reading.layout().frame_of(skip)
        frames = reading.frames(decoder, first=first_frame, cells=sampling.block)
        yield from pack(video.video_id, reading.layout(), frames, first_frame=first_frame)
        yield from reading.damage_notices(video.video_id)
        if reading.stood_in is not None:
            named = decoders.DECODERS[decoder].title
            yield Notice(video.video_id, "decoder", f"PyAV stood in for {named}: {reading.stood_in}")


def pack(video_id: str, layout: Layout, frames: Iterator[np.ndarray], *, first_frame: int) -> Iterator[SuperImages]:
    """Yields chunks of the super images that consecutive wanted frames make.

    Args:
        video_id: the video's id.
        layout: of the whole video.
        frames: uint8 [H, W, 3] each, to the end of a block or of the video; to the end of the video where super images
            overlap, for they look ahead.
        first_frame: the position of the first of them, where a block begins.
    """
    at_once, overlap = _frames_at_once(layout.sampling), layout.sampling.overlap
    begin = first_frame
    held: list[np.ndarray] = []
    while True:
        held += itertools.islice(frames, at_once + overlap - len(held))
        end = begin + min(at_once, len(held))
        parts = layout.parts(begin, end) if held else ()
        if not parts:
            return
        start_s, end_s = layout.spans_s(parts)
        images = [_lay_out(held, end - begin, part, layout.sampling) for part in parts]
        yield SuperImages(
            video_id,
            layout.before(begin),
            layout.total,
            images[0] if len(images) == 1 else np.concatenate(images),
            start_s,
            end_s,
            parts,
            layout.bounds_s[begin : end + 1],
        )
        begin, held = end, held[at_once:]


def _frames_at_once(sampling: Sampling) -> int:
    """Wanted frames of a chunk: whole blocks."""
    in_block = sum(sampling.block // sampling.stride_of(grid_size) for grid_size in sampling.grid_sizes)
    return sampling.block * max(1, CHUNK_SUPER_IMAGES // in_block)


def _lay_out(frames: list[np.ndarray], count: int, part: Part, sampling: Sampling) -> np.ndarray:
    """The super images of a part, uint8 [part.count, S, S, 3]: from the first `count` frames, where none overlap."""
    stride = sampling.stride_of(part.grid_size)
    if stride == part.grid_size**2:
        return grid.assemble(frames[:count], part.grid_size, sampling.super_img_size)
    return grid.assemble_overlapping(frames, part.grid_size, sampling.super_img_size, stride=stride, count=part.count)


def resize(chunk: SuperImages, image_size: int) -> SuperImages:
    """The chunk with super images of image_size x image_size pixels."""
    if chunk.images.shape[1] == image_size:
        return chunk
    return dataclasses.replace(chunk, images=np.stack([grid.resize(image, image_size) for image in chunk.on_cpu()]))


def frames(
    path: pathlib.Path, fps: float, *, decoder: Decoder = "auto", max_shift_s: float | None = None
) -> Iterator[np.ndarray]:
    """Yields a video's wanted frames in order, each uint8 [336, 446, 3]; raises VideoError. See Sampling."""
    with open_needed(path, Sampling(fps=fps, max_shift_s=max_shift_s), skim=True) as reading:
        yield from reading.frames(decoder)
