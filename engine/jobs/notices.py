"""Notices in, notices.jsonl out: what a reader should know about videos that are stored all the same."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable, Collection
from typing import final

from ...dali_pipes.contract import Notice
from .line_file import as_line, keep_lines, shard_path, writing


def notices_path(folder: pathlib.Path, num_shards: int = 1, shard_id: int = 0) -> pathlib.Path:
    """Where a job whose output is in `folder` writes its notices; parallel shards do not share a file."""
    return shard_path(folder, "notices", num_shards, shard_id)


@final
class NoticeLog:
    """The notices beside an output; there is a file only while there are notices.

    A notice is written before its video is stored, so that a killed job leaves no stored video without its notices;
    what it leaves of a video that was not stored goes when the next run begins.

    Args:
        path: the file.
        keeps: whether the notices of a video stay: it is stored already and not done again.

    Raises:
        GridClipError: the file cannot be written.
    """

    def __init__(self, path: pathlib.Path, *, keeps: Callable[[str], bool]) -> None:
        self.path = path
        self._noticed: dict[str, list[Notice]] = {}  # of this run, by video
        self._keep(keeps)

    @property
    def videos(self) -> int:
        """Videos of this run with notices."""
        return len(self._noticed)

    @property
    def kinds(self) -> dict[str, int]:
        """Videos of this run with a notice of each kind, most frequent kind first."""
        counts = collections.Counter(
            kind for notices in self._noticed.values() for kind in {notice.kind for notice in notices}
        )
        return dict(counts.most_common())

    def add(self, notice: Notice) -> None:
        """Writes one line, unless this run has written it already."""
        notices = self._noticed.setdefault(notice.video_id, [])
        if notice in notices:
            return
        notices.append(notice)
        # Opened anew: another job on the same output may have replaced the file.
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(as_line(notice))

    def drop(self, video_ids: Collection[str]) -> None:
        """Takes back what this run has said of these videos: they are lost, not stored, or come again."""
        dropped = self._noticed.keys() & set(video_ids)
        if dropped:
            for video_id in dropped:
                del self._noticed[video_id]
            self._keep(lambda video_id: video_id not in dropped)

    def _keep(self, keeps: Callable[[str], bool]) -> None:
        def wanted(record: dict[str, object]) -> bool:
            return isinstance(video_id := record.get("video_id"), str) and keeps(video_id)

        if self.path.exists() and not keep_lines(self.path, wanted):
            with writing(self.path):
                self.path.unlink(missing_ok=True)
