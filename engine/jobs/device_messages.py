"""What becomes of videos in the process of a device in, messages to the process that keeps the books out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ...dali_pipes.contract import Failure, Notice
from ...dali_pipes.processes.child_logs import Logged
from ..store.store import VideoEmbedding
from .folder_messages import MadeFolder


@dataclasses.dataclass(frozen=True)
class WantsVideo:
    """The process can take another video; it gets one, or None if there is none."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """So many super images went through the model."""

    super_images: int


@dataclasses.dataclass(frozen=True)
class EncoderTime:
    """The model was at work for so long."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class ComesAgain:
    """The video comes again from the start: earlier notices of it are void."""

    video_id: str


@dataclasses.dataclass(frozen=True)
class Ended:
    """All its videos are finished or lost."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """An error that would hit every video: the job ends with this message."""

    message: str


Message = WantsVideo | Embedded | EncoderTime | ComesAgain | Ended | Stop | Logged | Notice | VideoEmbedding | Failure


class MessageSink:
    """A `batches.Sink` (and a `FolderSink`) that makes messages of the results, and sends them."""

    def __init__(self, send: Callable[[Message | MadeFolder], None]) -> None:
        self._send = send

    def add_super_images(self, super_images: int) -> None:
        """So many super images went through the model."""
        self._send(Embedded(super_images))

    def add_encoder_time(self, seconds: float) -> None:
        """The model was at work for so long."""
        self._send(EncoderTime(seconds))

    def add_notice(self, notice: Notice) -> None:
        """Something to know about a video, before it is finished."""
        self._send(notice)

    def restart(self, video_id: str) -> None:
        """The video comes again from the start: earlier notices of it are void."""
        self._send(ComesAgain(video_id))

    def finish(self, video: VideoEmbedding | MadeFolder) -> None:
        """A whole video."""
        self._send(video)

    def fail(self, failure: Failure) -> None:
        """A lost video; notices of it are void."""
        self._send(failure)
