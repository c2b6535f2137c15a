"""A folder of videos in, the file of a video's id out: looked up in the folder's listing, never made of a request."""

from __future__ import annotations

import pathlib
import stat
import threading
import time

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.contract import VideoFile
from ..listing.listing import list_files
from .refusal import NOT_FOUND, Refusal

LIST_AGAIN_S = 5.0  # an unknown id may be that of a new file; a stranger's unknown ids must not keep the disk busy


class Library:
    """The videos of a folder by id.

    Args:
        video_dir: the folder; None: there is none, and no video has a file.

    Raises:
        GridClipError: the folder cannot be used.
    """

    def __init__(self, video_dir: pathlib.Path | None) -> None:
        self._video_dir = video_dir
        self._root = None if video_dir is None else video_dir.absolute()
        self._lock = threading.Lock()
        self._files: dict[str, VideoFile] = {}
        self._listed = -LIST_AGAIN_S
        if video_dir is not None:
            self._list()

    def file(self, video_id: str) -> VideoFile:
        """The video of that id; raises Refusal where there is none, or its file is gone or no ordinary one.

        An id of an annotation file (`clip` for `2024/clip.mp4`) finds the one video that it may mean.
        """
        video = self._find(video_id)
        if video is None:
            with self._lock:
                if self._video_dir is not None and time.monotonic() - self._listed > LIST_AGAIN_S:
                    self._list_again()
            video = self._find(video_id)
        if video is None:
            raise Refusal(NOT_FOUND, "there is no file for this video in the folder that is served")
        try:
            ordinary = stat.S_ISREG(video.path.stat().st_mode)
        except OSError:
            ordinary = False
        if not ordinary:
            raise Refusal(NOT_FOUND, "the file of this video is gone, or cannot be read")
        return video

    def name(self, video_id: str) -> str | None:
        """Its file's path below the folder; None where the last listing had none."""
        video = self._find(video_id)
        if video is None or self._root is None:
            return None
        return str(video.path.relative_to(self._root) if video.path.is_relative_to(self._root) else video.path)

    def _find(self, video_id: str) -> VideoFile | None:
        files = self._files
        if video_id in files:
            return files[video_id]
        fitting = self._by_ending.get(ids.bare(video_id), []) if files else []
        return files[fitting[0]] if len(fitting) == 1 else None

    def _list(self) -> None:
        assert self._video_dir is not None
        files = {video.video_id: video for video in list_files(self._video_dir).videos}
        by_ending: dict[str, list[str]] = {}
        for video_id in files:
            parts = ids.bare(video_id).split("/")
            for first in range(len(parts)):
                by_ending.setdefault("/".join(parts[first:]), []).append(video_id)
        self._by_ending, self._files = by_ending, files
        self._listed = time.monotonic()

    def _list_again(self) -> None:
        self._listed = time.monotonic()
        try:
            self._list()
        except GridClipError:  # the folder is gone for now: what was listed stays, each file is looked at when asked
            pass
