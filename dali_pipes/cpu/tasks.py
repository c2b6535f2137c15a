"""A video file or a JPEG folder in, runs of super images or a JPEG folder out: what worker processes do."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator, Mapping

from ..contract import Encoded, Notice, SuperImages, VideoFile
from ..image_folders import jpeg
from ..nvdali import segments
from ..nvdali.nvidia_driver import DecoderLimits
from ..processes.pool import Named, Work
from ..sampling import Sampling
from . import super_images
from .damage import OnDamage
from .decoders import DECODERS, Decoder, in_turn


def embedding_works(
    sampling: Sampling, decoder: Decoder, image_size: int, on_damage: OnDamage = "nearest"
) -> list[Work[SuperImages]]:
    """Works that yield super images of image_size x image_size pixels."""
    work = functools.partial(decode, sampling=sampling, image_size=image_size, on_damage=on_damage)
    return [Named(DECODERS[name].title, functools.partial(work, decoder=name)) for name in in_turn(decoder)]


def dali_works(
    sampling: Sampling,
    image_size: int,
    device: segments.Device,
    gauge: pathlib.Path | None,
    limits: Mapping[str, DecoderLimits] | None,
    on_damage: OnDamage = "nearest",
) -> list[Work[Encoded | SuperImages]]:
    """Works that yield segments for DALI, and super images where it cannot decode; see `segments.encoded_segments`."""
    encode = functools.partial(
        segments.encoded_segments,
        sampling=sampling,
        image_size=image_size,
        device=device,
        gauge=gauge,
        limits=limits,
        on_damage=on_damage,
    )
    on_cpu = embedding_works(sampling, "auto", image_size, on_damage)
    return [Named("the search for what DALI decodes", encode), *on_cpu]


def saving_works(
    sampling: Sampling,
    decoder: Decoder,
    save_dir: pathlib.Path,
    part_dir: pathlib.Path,
    on_damage: OnDamage = "nearest",
) -> list[Work[int]]:
    """Works that write JPEG folders; see `jpeg.save`."""
    return [
        Named(
            DECODERS[name].title,
            functools.partial(
                jpeg.save,
                decode=functools.partial(
                    super_images.super_images, sampling=sampling, decoder=name, on_damage=on_damage
                ),
                sampling=sampling,
                save_dir=save_dir,
                part_dir=part_dir,
            ),
        )
        for name in in_turn(decoder)
    ]


def image_works(image_size: int) -> list[Work[SuperImages]]:
    """Works that read JPEG folders and yield super images of image_size x image_size pixels."""
    return [
        Named("jpeg4py", functools.partial(jpeg.read, super_img_size=image_size)),
        Named("Pillow", functools.partial(jpeg.read_with_pillow, super_img_size=image_size)),
    ]


def decode(
    video: VideoFile,
    *,
    skip: int,
    sampling: Sampling,
    decoder: Decoder,
    image_size: int,
    on_damage: OnDamage = "nearest",
) -> Iterator[SuperImages | Notice]:
    """The super images of a video and notices, made at sampling.super_img_size and resized to image_size."""
    for run in super_images.super_images(video, sampling, decoder=decoder, skip=skip, on_damage=on_damage):
        yield run if isinstance(run, Notice) else segments.resized(run, image_size)


def count_super_images(run: Encoded | SuperImages | Notice) -> int:
    """The super images in a run: what `pool.run` counts."""
    return 0 if isinstance(run, Notice) else len(run.start_s)
