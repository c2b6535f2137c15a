"""The one interface of every pixel source (DALI, decord, PyAV, JPEG folders): what travels from here to the encoder."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video to read: its id (the file's stem) and its path."""

    video_id: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class SuperImages:
    """A run of consecutive super images of one video.

    Attributes:
        video_id: the video's id.
        first: index in the video of the first super image of this run.
        total: super images in the whole video.
        images: uint8 [L, S, S, 3], RGB.
        start_s: float64 [L], seconds from the video's start of the first frame of each super image.
        end_s: float64 [L], seconds at which the next super image starts, or the video ends.
    """

    video_id: str
    first: int
    total: int
    images: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray


@dataclasses.dataclass(frozen=True)
class Failure:
    """A video that a job lost: at which stage (list, open, decode, write, ...) and why. One line of failures.jsonl."""

    video_id: str
    stage: str
    reason: str
