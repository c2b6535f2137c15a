"""A place of videos (and an annotation file) in, the videos of a job and what cannot be one of them out."""

from __future__ import annotations

import dataclasses
import filecmp
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.contract import Failure, Notice, VideoFile
from ...dali_pipes.image_folders import jpeg
from ...dali_pipes.places import Place
from .finding import Where, checked, find, noting, where
from .walk import walk


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a job is to do.

    Attributes:
        videos: sorted by id, each id once.
        failures: videos of the job that have no file of their own, sorted by id.
        notices: videos of which there is another file, too, sorted by id; kind "duplicate".
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
            return zlib.crc32(video_id.encode()) % num_shards == shard_id

        return Listing(
            [video for video in self.videos if ours(video.video_id)],
            [failure for failure in self.failures if ours(failure.video_id)],
            [notice for notice in self.notices if ours(notice.video_id)],
        )


def list_videos(video_dir: str | os.PathLike[str], annotated: Sequence[str] | None = None) -> Listing:
    """The videos of a folder and its subfolders, of a list of paths, of tars, or below a URL; hidden ones are left out.

    Args:
        video_dir: see `finding`.
        annotated: names of an annotation file: only these videos, under these ids. A name without a file, or with
            several that differ, becomes a failure; see `ids.answering`. Default: all videos, see `ids.of_files`.

    Raises:
        GridClipError: it is missing, unreadable, or holds none of the videos.
    """
    video_dir = where(video_dir)
    seen = find(video_dir)
    places = {video_id: seen.places[name] for name, video_id in ids.of_files(seen.places).items()}
    if annotated is None:
        found = Listing([VideoFile(*pair) for pair in places.items()], seen.failures, seen.notices)
    else:
        found = _annotated(annotated, places, {each.video_id: each.reason for each in seen.failures}, str(video_dir))
    videos, unusable = _usable(found.videos)
    if not videos:
        raise GridClipError(_none_found(video_dir, places, annotated, unusable + found.failures + seen.unread))
    return Listing(
        sorted(videos, key=lambda video: video.video_id),
        sorted(seen.unread + unusable + found.failures, key=lambda failure: failure.video_id),
        found.notices,
    )


def list_image_folders(image_dir: pathlib.Path) -> Listing:
    """The folders of super images in image_dir, at any depth; hidden ones are left out.

    A folder without images in it or below it is listed, too (once, not with its subfolders): it is a video that will
    fail, not one that is forgotten.

    Raises:
        GridClipError: image_dir is missing, no folder, unreadable, or has no folder in it.
    """
    root = checked(image_dir, "`image_dir`")
    failures: list[Failure] = []
    holding: dict[str, bool] = {
        folder: any(name == jpeg.SIDECAR or jpeg.IMAGE_NAME.fullmatch(name) for name in names)
        for folder, names in walk(root, noting(root, failures))
    }
    above = {""} | {
        "/".join(parts[:depth])
        for parts in (folder.split("/") for folder, holds in holding.items() if holds)
        for depth in range(1, len(parts))
    }
    names = [
        folder
        for folder, holds in holding.items()
        if folder and (holds or (folder not in above and folder.rpartition("/")[0] in above))
    ]
    if not names:
        raise GridClipError(
            f"no folder in {image_dir}: expected <video_id>/img_0001.jpg, as gridclip superimages writes"
        )
    folders, unusable = _usable([VideoFile(name, root / name) for name in sorted(names)])
    return Listing(folders, failures + unusable)


def _annotated(annotated: Sequence[str], places: Mapping[str, Place], lost: Mapping[str, str], root: str) -> Listing:
    """The files that an annotation's names mean, under these names.

    Args:
        annotated: the names.
        places: of videos by id.
        lost: why there is nothing to read of others, by id.
        root: where they were sought, for messages.
    """
    videos: list[VideoFile] = []
    failures: list[Failure] = []
    notices: list[Notice] = []
    fitting_lost = ids.answering(annotated, list(lost))
    for name, fitting in sorted(ids.answering(annotated, list(places)).items()):
        files = [places[video_id] for video_id in fitting]
        if not files:
            reasons = [lost[video_id] for video_id in fitting_lost[name]]
            reasons.append(f"no file for this video in {ids.printable(root)}")
            problem = ids.id_problem(name) or reasons[0]
            failures.append(Failure(ids.printable(name), "list", problem))
            continue
        others = ", ".join(ids.printable(str(file)) for file in files[1:])
        used = ids.printable(str(files[0]))
        if not all(_same_video(files[0], file) for file in files[1:]):
            reason = f"several files fit this id: {used}, {others}; name the video by its path in the annotation file"
            failures.append(Failure(name, "list", reason))
            continue
        videos.append(VideoFile(name, files[0]))
        if others:
            notices.append(Notice(name, "duplicate", f"several files have this id: {used} is used, not {others}"))
    return Listing(videos, failures, notices)


def _same_video(one: Place, other: Place) -> bool:
    """Whether two files of one name are one video: they lie side by side in two formats, or do not differ at all."""
    if pathlib.PurePath(str(one)).with_suffix("") == pathlib.PurePath(str(other)).with_suffix(""):
        return True
    if not isinstance(one, pathlib.Path) or not isinstance(other, pathlib.Path):
        return False
    try:
        return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _usable(videos: Iterable[VideoFile]) -> tuple[list[VideoFile], list[Failure]]:
    """Videos whose ids can be stored, and failures for the others."""
    usable: list[VideoFile] = []
    failures: list[Failure] = []
    for video in videos:
        problem = ids.id_problem(video.video_id)
        if problem is None:
            usable.append(video)
        else:
            failures.append(Failure(ids.printable(video.video_id), "list", problem))
    return usable, failures


def _none_found(
    video_dir: Where, places: Mapping[str, Place], annotated: Iterable[str] | None, lost: Sequence[Failure]
) -> str:
    if annotated is None:
        first = f"; {lost[0].video_id}: {lost[0].reason}" if lost else ""
        return f"none of the {len(places)} videos in {video_dir} can be used{first}"
    names = {ids.printable(name) for name in annotated}
    first = ids.printable(min(places, default="none"))
    return (
        f"none of the {len(names)} annotated videos (first: {min(names, default='none')}) can be taken from "
        f"{video_dir}, which has {len(places)} videos (first: {first}): expected the annotation's "
        "ids as file names without suffix" + (f"; {lost[0].video_id}: {lost[0].reason}" if lost else "")
    )
