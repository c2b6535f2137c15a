"""Hits and a place of videos in, the files that belong to them out: the videos, and clips of their moments."""

from __future__ import annotations

import collections.abc
import dataclasses
import logging
import pathlib

from ...dali_pipes import ids
from ...dali_pipes.errors import GridClipError
from ...dali_pipes.places import Place
from ..clips.writing import clip_path, write_clip
from ..listing.finding import Where
from ..listing.listing import list_videos
from ..moments.best import Moment
from .search import Hit

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Files:
    """Files that belong to hits.

    Args:
        videos: by id.
        clips: by id and moment.
    """

    videos: collections.abc.Mapping[str, Place] = dataclasses.field(default_factory=dict)
    clips: collections.abc.Mapping[tuple[str, Moment], pathlib.Path] = dataclasses.field(default_factory=dict)


def find_videos(video_dir: Where, hits: collections.abc.Sequence[Hit]) -> dict[str, Place]:
    """The places of the hits' videos, by id; one without a file is a warning.

    Raises:
        GridClipError: `video_dir` cannot be read, or has none of the videos.
    """
    listing = list_videos(video_dir, [hit.video_id for hit in hits])
    for failure in listing.failures:
        logger.warning("%s: %s", failure.video_id, failure.reason)
    return {video.video_id: video.place for video in listing.videos}


def write_clips(
    hits: collections.abc.Sequence[Hit], videos: collections.abc.Mapping[str, Place], clip_dir: pathlib.Path
) -> dict[tuple[str, Moment], pathlib.Path]:
    """A clip of every moment of every hit whose video has a file, below a folder; what cannot be cut is a warning.

    Args:
        hits: with moments.
        videos: places by id, from `find_videos`.
        clip_dir: made where it is missing.
    """
    clips = {}
    for hit in hits:
        for moment in hit.moments if hit.video_id in videos else []:
            try:
                clip = clip_path(clip_dir, hit.video_id, moment.start_s, moment.end_s)
                write_clip(videos[hit.video_id], moment.start_s, moment.end_s, clip)
            except (GridClipError, ids.UnusableId) as error:
                logger.warning("%s", error)
            else:
                clips[hit.video_id, moment] = clip
    return clips
