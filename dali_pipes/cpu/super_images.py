"""A video file in, its super images out, on the CPU: PyAV or decord behind the interface of every pixel source."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .. import grid
from ..contract import Notice, SuperImages, VideoFile
from ..layout import Layout, Part, SuperImageSize
from ..processes.stretches import Stretch
from ..sampling import Decode, Sampling
from . import decoders
from .damage import OnDamage
from .dividing import Share
from .reading import Decoder, open_needed, open_reading

# Super images handed on at once (one block where that has more): bounds what a worker holds, whatever the video.
CHUNK_SUPER_IMAGES = 16


def super_images(
    video: VideoFile,
    sampling: Sampling,
    *,
    decoder: Decoder = "auto",
    skip: int = 0,
    on_damage: OnDamage = "nearest",
    more_sizes: Sequence[SuperImageSize] = (),
    stretch: Stretch | None = None,
) -> Iterator[SuperImages | Notice]:
    """Yields a video's super images in order, in chunks of bounded size, and what is to be known about the video.

    Only the packets that the wanted frames need are decoded. PyAV decodes them as they are; decord gets them remuxed in
    memory, and PyAV steps in, with a notice, for what decord cannot open or cannot be proved to count right.

    Args:
        decoder: `auto` is PyAV, the faster of the two on the same packets; `decord` gives the reference's bits.
        skip: leaves out this many super images at the start, and the notices.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.open_reading`.
        more_sizes: see `pack`.
        stretch: how far to go, and who else makes parts of the video; None: to its end, nobody.

    Raises:
        VideoError: the video cannot be opened, demuxed or decoded, or has no wanted frame.
        Indivisible: other processes make parts of the video, and it must be decoded as a whole.
    """
    stretch = stretch or Stretch()
    known = stretch.known()
    with (
        open_needed(video.place, sampling, on_damage, skim=True)
        if known is None
        else open_reading(video.place, sampling, on_damage, skim=True, scanned=known)
    ) as reading:
        if not skip:
            yield from reading.notices(video.video_id)
        share = Share(reading, stretch, reading.layout().frame_of(skip))
        yield from pack(
            video.video_id,
            reading.layout(),
            share.frames(decoder),
            first_frame=share.first,
            end=share.end,
            more_sizes=more_sizes,
        )
        yield from reading.damage_notices(video.video_id)
        if reading.stood_in is not None:
            named = decoders.DECODERS[decoder].title
            yield Notice(video.video_id, "decoder", f"PyAV stood in for {named}: {reading.stood_in}")


def pack(
    video_id: str,
    layout: Layout,
    frames: Iterator[np.ndarray],
    *,
    first_frame: int,
    end: Callable[[], int] | None = None,
    more_sizes: Sequence[SuperImageSize] = (),
) -> Iterator[SuperImages]:
    """Yields chunks of the super images that consecutive wanted frames make.

    Args:
        video_id: the video's id.
        layout: of the whole video.
        frames: uint8 [H, W, 3] each, to the end of a block or of the video; to the end of the video where super images
            overlap, for they look ahead.
        first_frame: the position of the first of them, where a block begins.
        end: tells the position of the last one that begins a super image, plus one, which may become smaller while
            frames are read; None: they go to the end of the video.
        more_sizes: further sizes to lay the same frames out in: a chunk's `other_images`.
    """
    at_once, overlap = _frames_at_once(layout.sampling), layout.sampling.overlap
    begin = first_frame
    held: list[np.ndarray] = []
    while True:
        held += itertools.islice(frames, at_once + overlap - len(held))
        stop = begin + min(at_once, len(held))
        stop = stop if end is None else min(stop, end())
        parts = layout.parts(begin, stop) if held else ()
        if not parts:
            return
        start_s, end_s = layout.spans_s(parts)
        yield SuperImages(
            video_id,
            layout.before(begin),
            layout.total,
            _lay_out_all(held, stop - begin, parts, layout.sampling),
            start_s,
            end_s,
            parts,
            layout.bounds_s[begin : stop + 1],
            tuple(_in_size(held, stop - begin, parts, layout.sampling, size) for size in more_sizes),
        )
        begin, held = stop, held[at_once:]


def _frames_at_once(sampling: Sampling) -> int:
    """Wanted frames of a chunk: whole blocks."""
    in_block = sum(sampling.block // sampling.stride_of(grid_size) for grid_size in sampling.grid_sizes)
    return sampling.block * max(1, CHUNK_SUPER_IMAGES // in_block)


def _in_size(
    frames: list[np.ndarray], count: int, parts: Sequence[Part], sampling: Sampling, size: SuperImageSize
) -> np.ndarray:
    """What `_lay_out_all` gives, in the size of another model."""
    laid_out = dataclasses.replace(sampling, super_img_size=size.laid_out_px)
    return _resized(_lay_out_all(frames, count, parts, laid_out), size.image_size)


def _lay_out_all(frames: list[np.ndarray], count: int, parts: Sequence[Part], sampling: Sampling) -> np.ndarray:
    """The super images of some parts, one part after the other, uint8 [L, S, S, 3]."""
    images = [_lay_out(frames, count, part, sampling) for part in parts]
    return images[0] if len(images) == 1 else np.concatenate(images)


def _lay_out(frames: list[np.ndarray], count: int, part: Part, sampling: Sampling) -> np.ndarray:
    """The super images of a part, uint8 [part.count, S, S, 3]: from the first `count` frames, where none overlap."""
    stride = sampling.stride_of(part.grid_size)
    if stride == part.grid_size**2:
        return grid.assemble(frames[:count], part.grid_size, sampling.super_img_size)
    return grid.assemble_overlapping(frames, part.grid_size, sampling.super_img_size, stride=stride, count=part.count)


def resize(chunk: SuperImages, image_size: int) -> SuperImages:
    """The chunk with `images` of image_size x image_size pixels."""
    if chunk.images.shape[1] == image_size:
        return chunk
    return dataclasses.replace(chunk, images=_resized(chunk.on_cpu(), image_size))


def _resized(images: np.ndarray, image_size: int) -> np.ndarray:
    if images.shape[1] == image_size:
        return images
    return np.stack([grid.resize(image, image_size) for image in images])


def frames(
    path: pathlib.Path,
    fps: float,
    *,
    decoder: Decoder = "auto",
    max_shift_s: float | None = None,
    decode: Decode = "exact",
) -> Iterator[np.ndarray]:
    """Yields a video's wanted frames in order, each uint8 [336, 446, 3]; raises VideoError. See Sampling."""
    with open_needed(path, Sampling(fps=fps, max_shift_s=max_shift_s, decode=decode), skim=True) as reading:
        yield from reading.frames(decoder)
