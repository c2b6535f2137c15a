"""Super images or their JPEG files in, as sources yield them, finished folders of each video out; threads write."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Generator, Iterable
from typing import assert_never

from ...dali_pipes.contract import (
    CompressedImages,
    Event,
    Failure,
    Finished,
    News,
    Notice,
    Restarted,
    SuperImages,
    VideoError,
    VideoFile,
)
from ...dali_pipes.image_folders import jpeg
from ...dali_pipes.image_folders.grids import FolderWriters
from ...dali_pipes.sampling import Sampling

Written = concurrent.futures.Future[None]


@dataclasses.dataclass
class _Folder:
    writer: FolderWriters
    written: list[Written] = dataclasses.field(default_factory=list)
    count: int = 0  # super images that were handed over

    def discard(self) -> None:
        concurrent.futures.wait(self.written)
        self.writer.discard()


def write_folders(
    events: Iterable[tuple[VideoFile, Event | CompressedImages]],
    sampling: Sampling,
    save_dir: pathlib.Path,
    part_dir: pathlib.Path,
    *,
    num_threads: int,
) -> Generator[tuple[VideoFile, int | News], None, None]:
    """Yields how many super images a folder has, notices, then Finished or Failure, of every video, as `pool.run` does.

    Args:
        events: of a source, see `contract.Source`; or the same with chunks of JPEG files.
        sampling, save_dir, part_dir: see FolderWriters.
        num_threads: that make and write JPEG files; at most twice as many chunks wait for them.

    Raises:
        GridClipError: the disk is full or read-only.
    """
    folders: dict[str, _Folder | VideoError] = {}
    waiting: collections.deque[Written] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        try:
            for video, event in events:
                match event:
                    case SuperImages() | CompressedImages():
                        if video.video_id not in folders:
                            folders[video.video_id] = _open_folder(video, sampling, save_dir, part_dir)
                        folder = folders[video.video_id]
                        if isinstance(folder, _Folder):
                            folder.written.append(pool.submit(_write, folder.writer, event))
                            waiting.append(folder.written[-1])
                            if len(waiting) > 2 * num_threads:
                                _raise_for_all(waiting.popleft())
                            folder.count += len(event.start_s)
                            yield video, folder.count
                    case Notice():
                        yield video, event
                    case Restarted():  # its folder stays: that it is there shows other jobs that it is in work
                        _await(folders.pop(video.video_id, None))
                        yield video, event
                    case Failure():
                        _discard(folders.pop(video.video_id, None))
                        yield video, event
                    case Finished():
                        yield video, _finish(video, folders.pop(video.video_id, None))
                    case _:
                        assert_never(event)
        finally:
            for left in folders.values():
                _discard(left)


def _open_folder(
    video: VideoFile, sampling: Sampling, save_dir: pathlib.Path, part_dir: pathlib.Path
) -> _Folder | VideoError:
    try:
        return _Folder(FolderWriters(video.video_id, sampling, save_dir, part_dir))
    except VideoError as error:
        return error


def _write(writer: FolderWriters, chunk: SuperImages | CompressedImages) -> None:
    writer.write(jpeg.compress(chunk) if isinstance(chunk, SuperImages) else chunk)


def _raise_for_all(written: Written) -> None:
    """Waits; raises what hits every video (a full disk). What costs one video is raised when it is finished."""
    error = written.exception()
    if error is not None and not isinstance(error, VideoError):
        raise error


def _await(folder: _Folder | VideoError | None) -> None:
    if isinstance(folder, _Folder):
        concurrent.futures.wait(folder.written)


def _discard(folder: _Folder | VideoError | None) -> None:
    if isinstance(folder, _Folder):
        folder.discard()


def _finish(video: VideoFile, folder: _Folder | VideoError | None) -> Finished | Failure:
    try:
        if folder is None:
            raise VideoError("decode", "no super image came out")
        if isinstance(folder, VideoError):
            raise folder
        try:
            for written in folder.written:
                written.result()
            folder.writer.finish()
        finally:
            folder.discard()
    except VideoError as error:
        return Failure(video.video_id, error.stage, error.reason)
    return Finished()
