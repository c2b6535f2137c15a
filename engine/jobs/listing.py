"""A folder (and an annotation file) in, the videos of a job and what cannot be one of them out."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence

from ... import GridClipError
from ...dali_pipes.source import Failure, Notice, VideoFile

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp",
    ".ogv",
})


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a job is to do.

    Attributes:
        videos: sorted by id, each id once.
        failures: videos of the job that have no file of their own, sorted by id.
        notices: what is to be known about the videos, no failures.
    """

    videos: list[VideoFile]
    failures: list[Failure]
    notices: list[Notice] = dataclasses.field(default_factory=list)

    def shard(self, num_shards: int, shard_id: int) -> Listing:
        """The part of one of num_shards jobs; a video's shard depends on its id alone."""
        if num_shards < 1:
            raise ValueError(f"num_shards ({num_shards}) must be >= 1")
        if not 0 <= shard_id < num_shards:
            raise ValueError(f"shard_id ({shard_id}) must be in [0, {num_shards - 1}]")

        def ours(video_id: str) -> bool:
            return zlib.crc32(video_id.encode(errors="surrogateescape")) % num_shards == shard_id

        return Listing(
            [video for video in self.videos if ours(video.video_id)],
            [failure for failure in self.failures if ours(failure.video_id)],
            [notice for notice in self.notices if ours(notice.video_id)],
        )


def list_videos(video_dir: pathlib.Path, annotated: Sequence[str] | None = None) -> Listing:
    """The videos of a folder and its subfolders, known by their suffixes; hidden ones are left out.

    Args:
        video_dir: a folder.
        annotated: only these videos; the ones without a file become failures. Default: all videos.

    Raises:
        GridClipError: the folder is missing, no folder, unreadable, or holds none of the videos.
    """
    unreadable: list[Failure] = []
    paths: dict[str, list[pathlib.Path]] = {}
    for path in _files(_checked(video_dir, "--video-dir"), unreadable):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            paths.setdefault(path.stem, []).append(path)
    if not paths:
        raise GridClipError(f"no video in {video_dir}: expected files that end in {', '.join(sorted(VIDEO_SUFFIXES))}")
    wanted = paths.keys() if annotated is None else set(annotated)
    videos, failures = [], unreadable
    for video_id in sorted(wanted):
        found = sorted(paths.get(video_id, []))
        if found:
            videos.append(VideoFile(video_id, found[0]))
        if not found:
            failures.append(Failure(video_id, "list", f"no file for this video in {video_dir}"))
        elif len(found) > 1:
            others = ", ".join(str(path) for path in found[1:])
            failures.append(Failure(video_id, "list", f"several files have this id: {found[0]} is used, not {others}"))
    if not videos:
        raise GridClipError(
            f"none of the {len(wanted)} annotated videos (first: {min(wanted, default='none')}) is in "
            f"{video_dir}, which has {len(paths)} videos (first: {min(paths)}): file names without suffix must be the "
            "annotation's ids"
        )
    return Listing(videos, failures)


def list_image_folders(image_dir: pathlib.Path) -> list[VideoFile]:
    """The folders in image_dir, one per video; hidden ones are left out.

    Raises:
        GridClipError: image_dir is missing, no folder, unreadable, or has no folder in it.
    """
    root = _checked(image_dir, "--image-dir")
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise GridClipError(f"no folder in {image_dir}: expected <video_id>/img_0001.jpg, as "
                            "gridclip superimages writes")
    return [VideoFile(name, root / name) for name in names]


def _checked(folder: pathlib.Path, option: str) -> pathlib.Path:
    try:
        os.scandir(folder).close()
    except FileNotFoundError as error:
        raise GridClipError(f"{option} {folder} does not exist") from error
    except NotADirectoryError as error:
        raise GridClipError(f"{option} {folder} is a file, expected a folder") from error
    except OSError as error:
        raise GridClipError(f"{option} {folder} cannot be read: {error.strerror}") from error
    return folder.absolute()


def _files(root: pathlib.Path, unreadable: list[Failure]) -> Iterator[pathlib.Path]:
    """All files below root, links followed, each folder once, hidden ones not; unreadable folders become failures."""
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        folder = pathlib.Path(error.filename)
        reason = f"cannot read the folder {folder}: {error.strerror}"
        unreadable.append(Failure(str(folder.relative_to(root)), "list", reason))

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=note):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (pathlib.Path(folder, name) for name in names if not name.startswith("."))
