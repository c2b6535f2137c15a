"""Recipes in, generated video files out whose every frame can be told from its neighbours.

A texture pans under a band of bright and dark blocks that spell the frame's number, scrambled: neighbours differ in
about half of the blocks, which costs 15 dB or more, while the rest moves as video does, so that every kind of
prediction between pictures is used.
"""

from __future__ import annotations

import dataclasses
import fractions
import functools
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import av
import numpy as np

BLOCKS = 12
_DARK, _BRIGHT = 50, 200
_PAN_PX = 3
_MARGIN_PX = 256


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one video is coded.

    Attributes:
        label: for people, and the file's name.
        codec: PyAV's encoder name.
        width, height: in pixels.
        frames: how many.
        options: of the encoder.
        gop: frames from one keyframe to the next.
        suffix: of the file: its container.
        pixel_format: FFmpeg's name.
        colour_range: FFmpeg's number: 1 limited, 2 full, 0 not told.
        colour_matrix: FFmpeg's number: 1 BT.709, 6 BT.601 (SMPTE 170M), 2 not told.
    """

    label: str
    codec: str
    width: int
    height: int
    frames: int
    options: tuple[tuple[str, str], ...] = ()
    gop: int = 150
    suffix: str = "mp4"
    pixel_format: str = "yuv420p"
    colour_range: int = 0
    colour_matrix: int = 2

    @property
    def name(self) -> str:
        """The file's name; other settings have another one."""
        words = f"{self.label} {self.width}x{self.height} {self.frames}f g{self.gop}"
        return f"{words.replace(' ', '-').replace(':', '').replace(',', '').replace('/', '')}.{self.suffix}"


FPS = 30


def make_all(recipes: Sequence[Recipe], folder: pathlib.Path) -> dict[Recipe, pathlib.Path]:
    """Every recipe's file, made unless it is there, several at a time: encoders let go of Python's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as threads:
        paths = threads.map(functools.partial(make, folder=folder), recipes)
        return dict(zip(recipes, paths, strict=True))


def make(recipe: Recipe, folder: pathlib.Path) -> pathlib.Path:
    """One recipe's file, made unless it is there."""
    path = folder / recipe.name
    if path.exists():
        return path
    unfinished = path.with_name(f"unfinished-{path.name}")
    with av.open(str(unfinished), "w") as container:
        added = container.add_stream(recipe.codec, rate=FPS, options=dict(recipe.options))
        stream = cast(av.VideoStream, added)  # PyAV returns a union of all kinds of streams
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pixel_format
        stream.gop_size = recipe.gop
        stream.codec_context.color_range = recipe.colour_range
        stream.codec_context.colorspace = recipe.colour_matrix
        planar = "yuvj420p" if recipe.pixel_format.startswith("yuvj") else "yuv420p"
        for index in range(recipe.frames):
            frame = av.VideoFrame.from_ndarray(picture(index, recipe.width, recipe.height), format=planar)
            if recipe.pixel_format != planar:
                frame = frame.reformat(format=recipe.pixel_format)
            frame.pts, frame.time_base = index, fractions.Fraction(1, FPS)
            frame.color_range, frame.colorspace = recipe.colour_range, recipe.colour_matrix
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    unfinished.rename(path)
    return path


def picture(index: int, width: int, height: int) -> np.ndarray:
    """Frame `index` as yuv420p planes, uint8 [height * 3 / 2, width]; width and height are even."""
    luma, chroma = _textures(width, height)
    offset = index * _PAN_PX % _MARGIN_PX
    planes = np.empty((height * 3 // 2, width), np.uint8)
    planes[:height] = luma[:, offset : offset + width]
    band = max(2, height // 5)
    number = index * 2654435761 >> 8  # Knuth's multiplicative hash: neighbours share about half of their bits
    for block in range(BLOCKS):
        columns = slice(block * width // BLOCKS, (block + 1) * width // BLOCKS)
        planes[height - band : height, columns] = _BRIGHT if number >> block & 1 else _DARK
    planes[height:].reshape(2, height // 2, width // 2)[:] = chroma[:, :, offset // 2 : offset // 2 + width // 2]
    return planes


@functools.lru_cache(maxsize=8)
def _textures(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Luma uint8 [height, W] and chroma uint8 [2, height / 2, W / 2], W = width + what is panned."""
    rows, columns = np.ogrid[:height, : width + _MARGIN_PX]
    waves = np.zeros((height, width + _MARGIN_PX), np.float32)
    for period, slope in ((11, 0.7), (23, -1.3), (61, 0.2), (173, 2.1)):
        waves += np.sin((columns + slope * rows) * (2 * np.pi / period), dtype=np.float32) * (period / 40) ** 0.5
    luma = (126 + 80 * waves / np.abs(waves).max()).astype(np.uint8)
    rows, columns = np.ogrid[: height // 2, : (width + _MARGIN_PX) // 2]
    chroma = np.stack([128 + 60 * np.sin(columns / 90 + rows / 70 + phase) for phase in (0.0, 1.9)])
    return luma, chroma.astype(np.uint8)
