"""What a page asks of the worker processes: a video with what is to be made of it; small, hashable, can be pickled."""

from __future__ import annotations

import dataclasses
import pathlib

from ...dali_pipes.contract import VideoFile


@dataclasses.dataclass(frozen=True)
class Strip(VideoFile):
    """Evenly spaced frames of the whole video side by side, as one JPEG file.

    Attributes:
        frames: how many, >= 1; frame k is shown at k / frames of the video's length.
    """

    frames: int = 12


@dataclasses.dataclass(frozen=True)
class Still(VideoFile):
    """One frame, as a JPEG file.

    Attributes:
        at_s: seconds from the video's start; behind its end: the last frame.
    """

    at_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Clip(VideoFile):
    """Some seconds as a file that browsers play.

    Attributes:
        start_s, end_s: of the clip in seconds from the video's start.
    """

    start_s: float = 0.0
    end_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Pixels(VideoFile):
    """A picture that was posted, laid out for the model as a video in which nothing moves.

    Attributes:
        data: its file.
        grid_size: of the store's super images.
        size_px: side of the super image.
    """

    data: bytes = b""
    grid_size: int = 1
    size_px: int = 0


Order = Strip | Still | Clip | Pixels


@dataclasses.dataclass(frozen=True)
class Made:
    """What came of an order.

    Attributes:
        data: a file; of Pixels the super image, uint8 [S, S, 3] as bytes.
        media_type: of the file.
    """

    data: bytes
    media_type: str


NO_FILE = pathlib.Path()  # of a picture that was posted
