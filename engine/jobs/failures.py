"""Failures in, failures.jsonl out: one line per failed video of the last run, written as soon as it is known."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from types import TracebackType
from typing import final

from ...dali_pipes.contract import Failure, Stage
from .line_file import as_line, keep_lines, shard_path, writing

CAPTION_STAGE: Stage = "caption"


def failures_path(folder: pathlib.Path, num_shards: int = 1, shard_id: int = 0) -> pathlib.Path:
    """Where a job whose output is in `folder` writes its failures; parallel shards do not share a file."""
    return shard_path(folder, "failures", num_shards, shard_id)


@final
class FailureLog:
    """The file of one run. Failures of an earlier run go, since what failed is tried again.

    Args:
        path: the file.
        captions: this run reads captions; runs on videos and runs on captions keep each other's lines.
        earlier_stand: the failures of earlier runs stay, for this run tries some of them only, see retrying.py.

    Attributes:
        count: failures of this run.
        stages: of them, so many at each stage.

    Raises:
        GridClipError: the file cannot be written.
    """

    def __init__(self, path: pathlib.Path, *, captions: bool = False, earlier_stand: bool = False) -> None:
        self.path = path
        self.count = 0
        self.stages: dict[str, int] = {}
        self._seen: set[str] = set()
        keep_lines(path, lambda record: earlier_stand or (record.get("stage") == CAPTION_STAGE) != captions)

    @property
    def video_ids(self) -> Collection[str]:
        """The videos that failed in this run."""
        return self._seen

    def add(self, failure: Failure) -> None:
        """Writes one line, unless the video has one."""
        if failure.video_id and failure.video_id in self._seen:
            return
        self._seen.add(failure.video_id)
        self.count += 1
        self.stages[failure.stage] = self.stages.get(failure.stage, 0) + 1
        # Opened anew: another job on the same output may have replaced the file.
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(as_line(failure))

    def __enter__(self) -> FailureLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every line is on the disk already."""
