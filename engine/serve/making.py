"""An order in, its picture or clip out: what the worker processes of the page do."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ... import GridClipError
from ...dali_pipes.contract import VideoError, VideoFile
from ...dali_pipes.cpu.reading import Reading, open_reading
from ...dali_pipes.sampling import Sampling, frames_at
from ..clips.encoding import PREVIEW, encode_clip
from .orders import Clip, Made, Pixels, Still, Strip

STRIP_HEIGHT_PX, STILL_HEIGHT_PX = 90, 270
NARROWEST, WIDEST = 9 / 16, 2.4  # width / height of a picture: what is outside is squeezed
JPEG_QUALITY = 80
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # of a posted picture


def make(order: VideoFile, /, *, skip: int) -> Iterator[Made]:
    """The task of `processes/pool.py`: yields what was ordered, once; raises VideoError where it cannot be made."""
    del skip  # one result, so that nothing can have been delivered
    match order:
        case Strip():
            with _opened(order) as reading:
                times_s = np.arange(order.frames) / order.frames * reading.summary.duration_s
                yield _jpeg(np.concatenate(_pictures(reading, times_s, STRIP_HEIGHT_PX), axis=1))
        case Still():
            with _opened(order) as reading:
                yield _jpeg(_pictures(reading, np.array([order.at_s]), STILL_HEIGHT_PX)[0])
        case Clip():
            clip = encode_clip(order.place, order.start_s, order.end_s, PREVIEW)
            yield Made(clip.data, clip.media_type)
        case Pixels():
            yield Made(_laid_out(order), "application/octet-stream")
        case _:
            raise TypeError(f"{type(order).__name__} is no order")


def _opened(order: Strip | Still) -> contextlib.AbstractContextManager[Reading]:
    # Any sampling gives the packet table; the frames are chosen below. A damaged frame's neighbour will do.
    return open_reading(order.place, Sampling(fps=1.0), on_damage="nearest")


def _pictures(reading: Reading, times_s: np.ndarray, height_px: int) -> list[np.ndarray]:
    """The frames on screen at some times, uint8 [height_px, W, 3] each, in the video's shape."""
    frames = frames_at(reading.table.times_s, times_s)
    chosen = dataclasses.replace(reading, planned_s=times_s, planned=frames, wanted=frames)
    shape = min(max(reading.summary.width / max(reading.summary.height, 1), NARROWEST), WIDEST)
    size = (round(height_px * shape), height_px)
    pictures = [np.asarray(Image.fromarray(frame).resize(size)) for frame in chosen.frames("pyav")]
    if not pictures:
        raise VideoError("decode", "none of its frames can be decoded")
    return pictures


def _jpeg(picture: np.ndarray) -> Made:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
    return Made(file.getvalue(), "image/jpeg")


def _laid_out(order: Pixels) -> bytes:
    from ..search.questions import (
        still,  # with all that a search needs: only here, and only when the first picture comes
    )

    try:
        # Readers of these formats only: of others Pillow has some that start programs.
        with Image.open(io.BytesIO(order.data), formats=PICTURE_FORMATS):
            return still(order.data, grid_size=order.grid_size, super_img_size=order.size_px).tobytes()
    except (GridClipError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise VideoError(
            "decode", f"it is no picture that can be read: {error}; expected {', '.join(PICTURE_FORMATS)}"
        ) from error
