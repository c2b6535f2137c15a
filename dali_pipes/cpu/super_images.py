"""A video file in, its super images out, on the CPU: PyAV or decord behind the interface of every pixel source."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from .. import grid
from ..contract import Notice, SuperImages, VideoFile
from ..sampling import Sampling, super_image_count
from . import decoders
from .damage import OnDamage
from .reading import Decoder, Reading, open_reading

# Super images handed on at once: bounds what a worker holds, whatever the length of the video.
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
    with open_reading(video.path, sampling, on_damage) as reading:
        if not skip:
            yield from reading.notices(video.video_id)
        frames = reading.frames(decoder, first=skip * sampling.cells, cells=sampling.cells)
        yield from pack(video.video_id, reading, frames, sampling, first=skip)
        yield from reading.damage_notices(video.video_id)
        if reading.stood_in is not None:
            named = decoders.DECODERS[decoder].title
            yield Notice(video.video_id, "decoder", f"PyAV stood in for {named}: {reading.stood_in}")


def pack(
    video_id: str, reading: Reading, frames: Iterator[np.ndarray], sampling: Sampling, *, first: int
) -> Iterator[SuperImages]:
    """Yields chunks of super images of consecutive wanted frames, the first of which begins super image `first`."""
    total = super_image_count(len(reading.wanted), sampling.grid_size)
    start_s, end_s = reading.times_s(sampling.cells)
    while cells := list(itertools.islice(frames, CHUNK_SUPER_IMAGES * sampling.cells)):
        images = grid.assemble(cells, sampling.grid_size, sampling.super_img_size)
        span = slice(first, first + len(images))
        yield SuperImages(video_id, first, total, images, start_s[span], end_s[span])
        first += len(images)


def resize(chunk: SuperImages, image_size: int) -> SuperImages:
    """The chunk with super images of image_size x image_size pixels."""
    if chunk.images.shape[1] == image_size:
        return chunk
    return dataclasses.replace(chunk, images=np.stack([grid.resize(image, image_size) for image in chunk.on_cpu()]))


def frames(
    path: pathlib.Path, fps: float, *, decoder: Decoder = "auto", max_shift_s: float | None = None
) -> Iterator[np.ndarray]:
    """Yields a video's wanted frames in order, each uint8 [336, 446, 3]; raises VideoError. See Sampling."""
    with open_reading(path, Sampling(fps=fps, max_shift_s=max_shift_s)) as reading:
        yield from reading.frames(decoder)
