"""A video file in, runs of super images or a JPEG folder out: what worker processes do, decoder by decoder."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator

from . import fallback, jpeg, segments
from .reading import Decoder
from .sampling import Sampling
from .source import Encoded, Notice, SuperImages, VideoFile
from .workers import Work

# In this order: the second one takes over where the first one hangs or crashes.
DECODERS: dict[Decoder, tuple[Decoder, ...]] = {
    "auto": ("pyav", "decord"),
    "decord": ("decord", "pyav"),
    "pyav": ("pyav",),
}


def embedding_works(sampling: Sampling, decoder: Decoder, image_size: int) -> list[Work[SuperImages]]:
    """Works that yield super images of image_size x image_size pixels."""
    return [
        functools.partial(decode, sampling=sampling, decoder=name, image_size=image_size) for name in _names(decoder)
    ]


def dali_works(
    sampling: Sampling, image_size: int, device: segments.Device, gauge: pathlib.Path | None
) -> list[Work[Encoded | SuperImages]]:
    """Works that yield segments for DALI, and super images where it cannot decode; see `segments.encoded_segments`."""
    encode = functools.partial(
        segments.encoded_segments, sampling=sampling, image_size=image_size, device=device, gauge=gauge
    )
    return [encode, *embedding_works(sampling, "auto", image_size)]


def saving_works(sampling: Sampling, decoder: Decoder, save_dir: pathlib.Path) -> list[Work[int]]:
    """Works that write JPEG folders and yield numbers of super images."""
    return [
        functools.partial(
            jpeg.save,
            decode=functools.partial(fallback.super_images, sampling=sampling, decoder=name),
            sampling=sampling,
            save_dir=save_dir,
        )
        for name in _names(decoder)
    ]


def decode(
    video: VideoFile, *, skip: int, sampling: Sampling, decoder: Decoder, image_size: int
) -> Iterator[SuperImages | Notice]:
    """The super images of a video, made at sampling.super_img_size and resized to image_size, and notices."""
    for run in fallback.super_images(video, sampling, decoder=decoder, skip=skip):
        yield run if isinstance(run, Notice) else segments.resized(run, image_size)


def super_images(run: Encoded | SuperImages | Notice) -> int:
    """The super images in a run: what `workers.run` counts."""
    return 0 if isinstance(run, Notice) else len(run.start_s)


def _names(decoder: Decoder) -> tuple[Decoder, ...]:
    if decoder not in DECODERS:
        raise ValueError(f"decoder ({decoder!r}) must be one of {', '.join(DECODERS)}")
    return DECODERS[decoder]
