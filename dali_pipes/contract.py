"""The one interface of every pixel source (DALI, decord, PyAV, JPEG folders): what travels from here to the encoder."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from .. import GridClipError

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video to read: its id (see `ids`) and its path."""

    video_id: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class SuperImages:
    """A run of consecutive super images of one video.

    Attributes:
        video_id: the video's id.
        first: index in the video of the first super image of this run.
        total: super images in the whole video.
        images: uint8 [L, S, S, 3], RGB; a tensor where they are in a GPU's memory.
        start_s: float64 [L], seconds from the video's start of the first frame of each super image.
        end_s: float64 [L], seconds at which the next super image starts, or the video ends.
    """

    video_id: str
    first: int
    total: int
    images: np.ndarray | torch.Tensor
    start_s: np.ndarray
    end_s: np.ndarray

    def on_cpu(self) -> np.ndarray:
        """The images in the host's memory."""
        return self.images if isinstance(self.images, np.ndarray) else self.images.cpu().numpy()


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A run of consecutive super images of one video that a DALI pipeline is to make.

    Attributes:
        video_id, first, total, start_s, end_s: as in SuperImages.
        cost: what decoding takes, compared with other runs of the same kind: packets x pixels.
        decoded_bytes: size of the decoded frames or images at their own resolution, which DALI holds at once.
    """

    video_id: str
    first: int
    total: int
    start_s: np.ndarray
    end_s: np.ndarray
    cost: float
    decoded_bytes: int

    def decoded(self, images: np.ndarray | torch.Tensor) -> SuperImages:
        """The run with its pixels, uint8 [L, S, S, 3]."""
        return SuperImages(self.video_id, self.first, self.total, images, self.start_s, self.end_s)


@dataclasses.dataclass(frozen=True)
class EncodedSegment(Encoded):
    """Super images as a pruned segment of their video.

    Attributes:
        data: a video file.
        positions: int32 [W], the wanted frames, counted in presentation order; the last super image may be partial.
    """

    data: bytes
    positions: np.ndarray


@dataclasses.dataclass(frozen=True)
class EncodedImages(Encoded):
    """Super images as JPEG files.

    Attributes:
        files: L files.
    """

    files: list[bytes]


class PipelineError(GridClipError):
    """DALI failed with a batch; the pipeline that failed must not be used again."""


@dataclasses.dataclass(frozen=True)
class Restarted:
    """What a video has yielded so far, notices included, is void: it comes again, from the start."""


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something about a video that was stored all the same, which its reader should know. One line of notices.jsonl.

    Attributes:
        video_id: the video's id.
        kind: what it is: "decoder" (another decoder than the first choice made it), "damage" (frames were replaced by
            their neighbours), ...
        detail: a sentence with the numbers.
    """

    video_id: str
    kind: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Failure:
    """A video that a job lost: at which stage (list, open, decode, write, ...) and why. One line of failures.jsonl."""

    video_id: str
    stage: str
    reason: str
