"""A listing and the failures of earlier jobs in, the listing of only what has failed out."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence

from ... import ArgumentError, GridClipError
from ...dali_pipes.contract import Failure
from ..choices import ANY_STAGE, RETRIED_STAGES
from ..listing.listing import Listing
from .failures import CAPTION_STAGE, FailureLog
from .line_file import find_files, read_all, read_records, replace_records


def check(retry_failed: str | None, overwrite: bool) -> None:
    """Raises ArgumentError where the two exclude each other, or there is no such stage."""
    if retry_failed is None:
        return
    if overwrite:
        raise ArgumentError("`retry_failed` and `overwrite=True` exclude each other: what is stored stays in a retry")
    if retry_failed not in RETRIED_STAGES:
        raise ArgumentError(f"`retry_failed={retry_failed!r}` must be one of {', '.join(RETRIED_STAGES)}")


def failed_videos(folder: pathlib.Path, stage: str = ANY_STAGE) -> set[str]:
    """The ids that the failures of all jobs on an output name.

    Args:
        folder: of the output.
        stage: only failures of this one, see `choices.RETRIED_STAGES`.
    """
    return {
        record["video_id"]
        for record in read_all(folder, "failures")
        if isinstance(record.get("video_id"), str)
        and record.get("stage") != CAPTION_STAGE
        and stage in (ANY_STAGE, record.get("stage"))
    }


def only_failed(listing: Listing, folder: pathlib.Path, stage: str) -> Listing:
    """What has failed of a listing; a failed video that it has no more stays failed.

    Raises:
        GridClipError: nothing has failed (at this stage).
    """
    failed = failed_videos(folder, stage)
    if not failed:
        at_stage = "" if stage == ANY_STAGE else f" at stage {stage}"
        raise GridClipError(
            f"there is nothing to retry: no video is named as failed{at_stage} in {folder / 'failures.jsonl'} "
            "(or the file of a shard); run without `retry_failed` to look for new videos"
        )
    videos = [video for video in listing.videos if video.video_id in failed]
    failures = [failure for failure in listing.failures if failure.video_id in failed]
    known = {video.video_id for video in videos} | {failure.video_id for failure in failures}
    gone = [Failure(video_id, "list", "it failed before, and is gone now") for video_id in sorted(failed - known)]
    return dataclasses.replace(
        listing,
        videos=videos,
        failures=[*failures, *gone],
        notices=[notice for notice in listing.notices if notice.video_id in failed],
    )


def only_failed_of_each(listing: Listing, folders: Sequence[pathlib.Path], stage: str) -> list[Listing]:
    """The same for outputs that one job fills; those in which nothing has failed get an empty listing.

    Raises:
        GridClipError: nothing has failed in any.
    """
    failed = [bool(failed_videos(folder, stage)) for folder in folders]
    return [
        only_failed(listing, folder, stage) if some or not any(failed) else Listing([], [])
        for folder, some in zip(folders, failed, strict=True)
    ]


@contextlib.contextmanager
def settling(log: FailureLog, find_done: Callable[[], Callable[[str], bool]]) -> Iterator[None]:
    """Around a retry: at its end every file holds what still fails, once. A killed retry leaves all that it was to try.

    Args:
        log: of the retry; it has kept the earlier lines.
        find_done: asked at the end, says whether a video is stored (or its folder made).
    """
    try:
        yield
    finally:
        is_done = find_done()
        for path in find_files(log.path.parent, "failures"):
            _settle(path, is_done, log.video_ids if path != log.path else frozenset())


def _settle(path: pathlib.Path, is_done: Callable[[str], bool], failed_elsewhere: Collection[str]) -> None:
    """Leaves the last line of each video that is not done; other shards' files, in which nothing is to go, stay."""
    last: dict[str, int] = {}
    records = read_records(path)
    for number, record in enumerate(records):
        video_id = record.get("video_id")
        if record.get("stage") == CAPTION_STAGE or not isinstance(video_id, str):
            last[f"line {number}"] = number
        elif video_id not in failed_elsewhere and not is_done(video_id):
            last[f"video {video_id}"] = number
    if len(last) < len(records):
        kept = [records[number] for number in sorted(last.values())]
        replace_records(path, kept)
