"""Failures in, failures.jsonl out: one line per failed video of the last run, written as soon as it is known."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from types import TracebackType
from typing import final

from ... import GridClipError
from ...dali_pipes.source import Failure

FILE = "failures.jsonl"
CAPTION_STAGE = "caption"


def failures_path(folder: pathlib.Path, num_shards: int = 1, shard_id: int = 0) -> pathlib.Path:
    """Where a job whose output is in `folder` writes its failures; parallel shards do not share a file."""
    return folder / (FILE if num_shards == 1 else f"failures.{shard_id}-of-{num_shards}.jsonl")


@final
class FailureLog:
    """The file of one run. Failures of an earlier run go, since what failed is tried again.

    Args:
        path: the file.
        captions: this run reads captions; runs on videos and runs on captions keep each other's lines.

    Attributes:
        count: failures of this run.

    Raises:
        GridClipError: the file cannot be written.
    """

    def __init__(self, path: pathlib.Path, *, captions: bool = False) -> None:
        self.path = path
        self.count = 0
        self._seen: set[str] = set()
        try:
            kept = [line for line in _lines(path) if (_stage(line) == CAPTION_STAGE) != captions]
            path.write_text("".join(kept), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise GridClipError(f"cannot write {path}: {error.strerror}") from error

    def add(self, failure: Failure) -> None:
        """Writes one line, unless the video has one."""
        if failure.video_id and failure.video_id in self._seen:
            return
        self._seen.add(failure.video_id)
        self.count += 1
        line = json.dumps(dataclasses.asdict(failure), ensure_ascii=True)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise GridClipError(f"cannot write {self.path}: {error.strerror}; finished videos are kept") from error

    def __enter__(self) -> FailureLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:  # a full disk: add() has raised already
            pass


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _stage(line: str) -> str | None:
    try:
        return json.loads(line)["stage"]
    except (ValueError, KeyError, TypeError):
        return None
