"""Super images of a store by video and number in, small JPEG pictures for a page out: read, or decoded."""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import io
import logging
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from ... import GridClipError
from ...dali_pipes import grid
from ...dali_pipes.contract import VideoError, VideoFile
from ...dali_pipes.cpu.reading import open_reading
from ...dali_pipes.sampling import Sampling, of_record
from ..listing.listing import list_videos
from ..store.store import View

logger = logging.getLogger(__name__)

SIDE_PX = 200
QUALITY = 70

# (video id, number of the super image from 0) in, its picture as a data URL out; None where there is none.
Pictures = collections.abc.Callable[[str, int], str | None]


def choose_pictures(
    video_dir: pathlib.Path | None, image_dir: pathlib.Path | None, sampling: dict[str, Any] | None, view: View
) -> Pictures:
    """From the folder of super images where it is given, else from the videos, else none; see those for errors.

    Args:
        video_dir, image_dir: where the videos, or their super images, lie.
        sampling: the store's record.
        view: which of the store's embeddings the numbers count; frames have pictures from the videos only.
    """
    if image_dir is not None and view.level == "super":
        return from_images(image_dir)
    return no_pictures if video_dir is None else from_videos(video_dir, sampling, view)


def no_pictures(video_id: str, number: int) -> str | None:
    """For pages without pictures."""
    return None


def from_images(image_dir: pathlib.Path) -> Pictures:
    """Pictures out of what `gridclip superimages` wrote."""

    def find(video_id: str, number: int) -> str | None:
        try:
            with Image.open(image_dir / video_id / f"img_{number + 1:04}.jpg") as image:
                return _data_url(image.convert("RGB"))
        except (OSError, ValueError) as error:
            logger.warning("no picture of super image %d of %s: %s", number + 1, video_id, error)
            return None

    return find


def from_videos(video_dir: pathlib.Path, sampling: dict[str, Any] | None, view: View) -> Pictures:
    """Pictures decoded from the videos, sampled as the store's record says: super images, or for cells frames.

    Raises:
        GridClipError: the folder cannot be used, or the store was not made from videos.
    """
    if not sampling or not {"fps", "grid_size"} <= sampling.keys():
        raise GridClipError("the store does not say how its videos were sampled: give `image_dir` for pictures")
    settings = of_record(sampling)
    if view.level == "cell":
        settings = dataclasses.replace(settings, grid_size=1, stride=None)
    elif view.grid_size is not None:
        settings = dataclasses.replace(settings, grid_size=view.grid_size)
    videos = {video.video_id: video for video in list_videos(video_dir).videos}

    def find(video_id: str, number: int) -> str | None:
        video = videos.get(video_id)
        if video is None:
            return None
        try:
            return _decoded(video, number, settings)
        except VideoError as error:
            logger.warning("no picture of super image %d of %s: %s", number + 1, video_id, error)
            return None

    return find


def _decoded(video: VideoFile, number: int, sampling: Sampling) -> str | None:
    """One super image of a sampling with one grid size; only the GOPs that hold its frames are decoded."""
    (grid_size,) = sampling.grid_sizes
    with open_reading(video.place, sampling, on_damage="nearest") as reading:
        first = number * sampling.stride_of(grid_size)
        positions = np.arange(first, min(first + grid_size**2, len(reading.wanted)))
        if number >= reading.layout().count(grid_size):
            return None
        cells = list(reading.part(positions).frames("auto"))
    return _data_url(Image.fromarray(grid.assemble(cells, grid_size, sampling.super_img_size)[0]))


def _data_url(image: Image.Image) -> str:
    image.thumbnail((SIDE_PX, SIDE_PX))
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
