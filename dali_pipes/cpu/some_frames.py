"""A video file and which of its wanted frames in, these frames as super images of grid size 1 out, on the CPU."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from .. import grid
from ..contract import Notice, SuperImages, VideoError, VideoFile
from ..layout import Part
from ..processes.pool import Named, Task
from ..sampling import Sampling
from .damage import OnDamage
from .decoders import DECODERS, Decoder, in_turn
from .reading import open_needed

CHUNK_FRAMES = 16  # handed on at once


@dataclasses.dataclass(frozen=True)
class SomeFrames(SuperImages):
    """A chunk of some wanted frames of one video, which are counted as if the video had no others.

    Attributes:
        images: uint8 [n, S, S, 3], RGB: what grid size 1 makes of these frames in the whole video.
        start_s, end_s: float64 [n], seconds at which each begins to stand for the video, and at which the next one of
            the whole video does.
        wanted: wanted frames of the whole video.
        packets: that were given to a decoder since the chunk before.
    """

    wanted: int = dataclasses.field(default=0, kw_only=True)
    packets: int = dataclasses.field(default=0, kw_only=True)


def tasks(
    positions: Mapping[str, np.ndarray],
    sampling: Sampling,
    image_size: int,
    *,
    decoder: Decoder = "auto",
    on_damage: OnDamage = "nearest",
) -> list[Task[SomeFrames]]:
    """Tasks of `pool.run` that yield some frames of videos, resized to image_size x image_size pixels.

    Args:
        positions: by video id, see `some_frames`.
        sampling, decoder, on_damage: see `super_images.super_images`.
    """
    task = functools.partial(
        _of_video, positions=positions, sampling=sampling, image_size=image_size, on_damage=on_damage
    )
    names = in_turn(decoder, sampling.decode)
    return [Named(DECODERS[name].title, functools.partial(task, decoder=name)) for name in names]


def some_frames(
    video: VideoFile,
    sampling: Sampling,
    positions: np.ndarray,
    *,
    decoder: Decoder = "auto",
    skip: int = 0,
    on_damage: OnDamage = "nearest",
) -> Iterator[SomeFrames | Notice]:
    """Yields some of a video's wanted frames in chunks; only the GOPs that hold them are decoded.

    Args:
        sampling: which frames are wanted; its grid sizes play no part.
        positions: int64 [n >= 1], ascending, of the frames among all wanted frames of the video; what is behind its
            last one is left out.
        decoder, on_damage: see `super_images.super_images`.
        skip: leaves out this many frames at the start, and the notices.

    Raises:
        VideoError: the video cannot be opened, demuxed or decoded, or has none of these frames.
    """
    with open_needed(video.place, sampling, on_damage, only=positions[skip:]) as reading:
        bounds_s = reading.layout().bounds_s
        asked, positions = positions, positions[positions < len(reading.wanted)]
        if not len(positions):
            reason = f"it has {len(reading.wanted):,} wanted frames, those from {asked[0] + 1:,} on were asked for"
            raise VideoError("sample", reason)
        part = reading.part(positions[skip:])
        frames = part.frames(decoder)
        told = 0
        for first in range(skip, len(positions), CHUNK_FRAMES):
            chunk = positions[first : first + CHUNK_FRAMES]
            images = grid.assemble(list(itertools.islice(frames, len(chunk))), 1, sampling.super_img_size)
            packets, told = part.decoded_packets - told, part.decoded_packets
            yield SomeFrames(
                video.video_id,
                first,
                len(positions),
                images,
                bounds_s[chunk],
                bounds_s[chunk + 1],
                (Part(1, first, len(chunk)),),
                wanted=len(reading.wanted),
                packets=packets,
            )
        if not skip:
            yield from part.damage_notices(video.video_id)


def _of_video(
    video: VideoFile,
    /,
    *,
    skip: int,
    positions: Mapping[str, np.ndarray],
    sampling: Sampling,
    image_size: int,
    decoder: Decoder,
    on_damage: OnDamage,
) -> Iterator[SomeFrames | Notice]:
    """Made at sampling.super_img_size and resized to image_size, as super images of whole videos are."""
    events = some_frames(video, sampling, positions[video.video_id], decoder=decoder, skip=skip, on_damage=on_damage)
    for event in events:
        if isinstance(event, SomeFrames) and sampling.super_img_size != image_size:
            event = dataclasses.replace(
                event, images=np.stack([grid.resize(each, image_size) for each in event.images])
            )
        yield event
