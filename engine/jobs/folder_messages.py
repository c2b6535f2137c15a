"""News of JPEG folders in the making in, calls of a sink out: it keeps the books, or sends them on to who does."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from typing import Protocol, TypeAlias, assert_never

from ...dali_pipes.contract import Failure, Finished, News, Notice, Restarted, VideoFile

# How many super images the folder of a video has by now (after a crash it begins again, with a smaller number), or what
# there is to say of it; the last word of a video is Finished or Failure.
FolderNews: TypeAlias = Generator[tuple[VideoFile, int | News], None, None]


@dataclasses.dataclass(frozen=True)
class MadeFolder:
    """All super images of a video are on the disk."""

    video_id: str
    super_images: int


class FolderSink(Protocol):
    """Where news of folders go; the same as `batches.Sink`, but for what is finished."""

    def add_super_images(self, super_images: int) -> None:
        """So many more were written; fewer than none: their video is lost, or comes again."""

    def add_notice(self, notice: Notice) -> None:
        """Something to know about a video, before it is finished."""

    def restart(self, video_id: str) -> None:
        """The video comes again from the start: earlier notices of it are void."""

    def finish(self, video: MadeFolder) -> None:
        """A whole video."""

    def fail(self, failure: Failure) -> None:
        """A lost video; notices of it are void."""


def tell(events: FolderNews, sink: FolderSink) -> None:
    """Tells a sink of everything, until the end of the events; what is unfinished then is taken back."""
    made: dict[str, int] = {}
    try:
        with contextlib.closing(events):
            for video, event in events:
                video_id = video.video_id
                match event:
                    case int():
                        sink.add_super_images(event - made.get(video_id, 0))
                        made[video_id] = event
                    case Notice():
                        sink.add_notice(event)
                    case Restarted():
                        sink.restart(video_id)
                    case Finished():
                        sink.finish(MadeFolder(video_id, made.pop(video_id, 0)))
                    case Failure():
                        sink.add_super_images(-made.pop(video_id, 0))
                        sink.fail(event)
                    case _:
                        assert_never(event)
    finally:
        sink.add_super_images(-sum(made.values()))
