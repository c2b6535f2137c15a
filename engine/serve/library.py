"""A place of videos in, the file of a video's id and its date out: looked up in a listing, never made of a request."""

from __future__ import annotations

import datetime
import pathlib
import stat
import threading
import time

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.contract import VideoFile
from ..listing.finding import Where, where
from ..listing.listing import list_videos
from .refusal import BAD_REQUEST, NOT_FOUND, Refusal

LIST_AGAIN_S = 5.0  # an unknown id may be that of a new file; a stranger's unknown ids must not keep the disk busy


class Library:
    """The videos of a folder, a list of paths, tars or a URL by id.

    Args:
        video_dir: see `finding`; None: there is none, and no video has a file.

    Attributes:
        has_dates: whether the last listing had a file that may have a date.

    Raises:
        GridClipError: it cannot be used.
    """

    def __init__(self, video_dir: Where | None) -> None:
        self._video_dir = None if video_dir is None else where(video_dir)
        self._root = self._video_dir.absolute() if isinstance(self._video_dir, pathlib.Path) else None
        self._lock = threading.Lock()
        self._files: dict[str, VideoFile] = {}
        self._listed = -LIST_AGAIN_S
        self.has_dates = False
        if self._video_dir is not None:
            self._list(self._video_dir)

    def file(self, video_id: str) -> VideoFile:
        """The video of that id; raises Refusal where there is none, or its file is gone or no ordinary one.

        An id of an annotation file (`clip` for `2024/clip.mp4`) finds the one video that it may mean. Whether a URL's
        video is still there shows when it is read.
        """
        video = self._find(video_id)
        if video is None:
            with self._lock:
                if self._video_dir is not None and time.monotonic() - self._listed > LIST_AGAIN_S:
                    self._list_again(self._video_dir)
            video = self._find(video_id)
        if video is None:
            raise Refusal(NOT_FOUND, "there is no file for this video in the folder that is served")
        if isinstance(video.place, pathlib.Path) and not _is_ordinary(video.place):
            raise Refusal(NOT_FOUND, "the file of this video is gone, or cannot be read")
        return video

    def name(self, video_id: str) -> str | None:
        """Where its video is: a path below the folder, in a tar or at a URL; None where the last listing had none."""
        video = self._find(video_id)
        if video is None:
            return None
        place = video.place
        if isinstance(place, pathlib.Path) and self._root is not None and place.is_relative_to(self._root):
            return str(place.relative_to(self._root))
        return str(place)

    def is_local(self, video_id: str) -> bool:
        """Whether its video is a file of its own on this machine."""
        video = self._find(video_id)
        return video is not None and isinstance(video.place, pathlib.Path)

    def date(self, video_id: str) -> datetime.date | None:
        """The day on which its file was last modified, in this machine's time zone; None where nobody knows.

        That is what a store can know without opening each file: the date in a container is missing in many, and often
        wrong. Raises Refusal where no video has a date.
        """
        if not self.has_dates:
            raise Refusal(BAD_REQUEST, _no_dates(self._video_dir))
        video = self._find(video_id)
        if video is None or not isinstance(video.place, pathlib.Path):
            return None
        try:
            return datetime.datetime.fromtimestamp(video.place.stat().st_mtime).astimezone().date()
        except (OSError, OverflowError, ValueError):  # gone, or of a year that has no date
            return None

    def _find(self, video_id: str) -> VideoFile | None:
        files = self._files
        if video_id in files:
            return files[video_id]
        fitting = self._by_ending.get(ids.bare(video_id), []) if files else []
        return files[fitting[0]] if len(fitting) == 1 else None

    def _list(self, video_dir: Where) -> None:
        files = {video.video_id: video for video in list_videos(video_dir).videos}
        by_ending: dict[str, list[str]] = {}
        for video_id in files:
            parts = ids.bare(video_id).split("/")
            for first in range(len(parts)):
                by_ending.setdefault("/".join(parts[first:]), []).append(video_id)
        self._by_ending, self._files = by_ending, files
        self.has_dates = any(isinstance(video.place, pathlib.Path) for video in files.values())
        self._listed = time.monotonic()

    def _list_again(self, video_dir: Where) -> None:
        self._listed = time.monotonic()
        try:
            self._list(video_dir)
        except GridClipError:  # the folder is gone for now: what was listed stays, each file is looked at when asked
            pass


def _is_ordinary(path: pathlib.Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _no_dates(video_dir: Where | None) -> str:
    if video_dir is None:
        why = "the server was started without a folder of videos: start it with one"
    else:
        why = "they are in tars or of a URL: leave since and until out"
    return f"the dates of these videos are not known, for {why}"
