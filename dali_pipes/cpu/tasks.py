"""A video file or a JPEG folder in, chunks of super images or of JPEG files out: what worker processes do."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from ..contract import Compressed, CompressedImages, Notice, SuperImages, VideoFile
from ..image_folders import jpeg
from ..layout import SuperImageSize
from ..processes.pool import Divisible, Named, Task
from ..processes.stretches import Stretch
from ..sampling import Sampling
from . import super_images
from .damage import OnDamage
from .decoders import DECODERS, Decoder, in_turn


def embedding_tasks(
    sampling: Sampling,
    decoder: Decoder,
    image_size: int,
    on_damage: OnDamage = "nearest",
    more_sizes: Sequence[SuperImageSize] = (),
) -> list[Task[SuperImages]]:
    """Tasks that yield super images in these sizes, in pixels; several processes may share a video."""
    task = functools.partial(
        decode, sampling=sampling, image_size=image_size, on_damage=on_damage, more_sizes=more_sizes
    )
    names = in_turn(decoder, sampling.decode)
    return [Divisible(DECODERS[name].title, functools.partial(task, decoder=name)) for name in names]


def compressing_tasks(
    sampling: Sampling, decoder: Decoder, on_damage: OnDamage = "nearest"
) -> list[Task[CompressedImages]]:
    """Tasks that yield super images as JPEG files, of sampling.super_img_size; several processes may share a video."""
    task = functools.partial(compress, sampling=sampling, on_damage=on_damage)
    names = in_turn(decoder, sampling.decode)
    return [Divisible(DECODERS[name].title, functools.partial(task, decoder=name)) for name in names]


def image_tasks(image_size: int) -> list[Task[SuperImages]]:
    """Tasks that read JPEG folders and yield super images of image_size x image_size pixels."""
    return [
        Named("jpeg4py", functools.partial(jpeg.read, super_img_size=image_size)),
        Named("Pillow", functools.partial(jpeg.read_with_pillow, super_img_size=image_size)),
    ]


def decode(
    video: VideoFile,
    /,
    *,
    skip: int,
    sampling: Sampling,
    decoder: Decoder,
    image_size: int,
    on_damage: OnDamage = "nearest",
    more_sizes: Sequence[SuperImageSize] = (),
    stretch: Stretch | None = None,
) -> Iterator[SuperImages | Notice]:
    """The super images of a video and notices, made at sampling.super_img_size and resized to image_size."""
    made = super_images.super_images(
        video, sampling, decoder=decoder, skip=skip, on_damage=on_damage, more_sizes=more_sizes, stretch=stretch
    )
    for event in made:
        yield event if isinstance(event, Notice) else super_images.resize(event, image_size)


def compress(
    video: VideoFile,
    /,
    *,
    skip: int,
    sampling: Sampling,
    decoder: Decoder,
    on_damage: OnDamage = "nearest",
    stretch: Stretch | None = None,
) -> Iterator[CompressedImages | Notice]:
    """The super images of a video as JPEG files, and notices."""
    made = super_images.super_images(video, sampling, decoder=decoder, skip=skip, on_damage=on_damage, stretch=stretch)
    for event in made:
        yield event if isinstance(event, Notice) else jpeg.compress(event)


def count_super_images(chunk: Compressed | SuperImages) -> int:
    """The super images in a chunk: what `pool.run` counts."""
    return len(chunk.start_s)
