"""A coarse ranking of videos for many queries in; the best ones looked at again, and moments cut anew, out.

For each query that is what `Refiner.search` does; here every video is looked at once, for all queries together.
"""

from __future__ import annotations

import collections
import collections.abc
import itertools

import numpy as np

from ..moments.best import unit
from ..moments.recut import Cut
from ..scoring.retrieval import Ranking
from ..scoring.scoring import Scoring
from ..store.store import SuperImageTable
from .choice import Coarse, frames_to_look_at
from .looking import VIDEOS_AT_ONCE, Request
from .score import Frames, background, frame_moments, refined_score

# Which frames of which videos in, as far as they can be had the frames out: see `Looker.look`.
Look = collections.abc.Callable[[collections.abc.Mapping[str, Request]], dict[str, Frames]]
# (query, place among its best videos), the positions of the frames to look at for it, and its background.
_Pair = tuple[int, int, np.ndarray, float]


def refine_ranking(
    look: Look,
    queries: np.ndarray,
    targets: np.ndarray,
    videos: SuperImageTable,
    ranking: Ranking,
    scoring: Scoring,
    coarse: Coarse,
    *,
    count: int,
    limit: int,
) -> tuple[Ranking, dict[tuple[int, str], Cut]]:
    """Looks at the best videos of each query again; they stay before all others, in the order of their new scores.

    Args:
        look: where frames come from.
        queries: float16 or float32 [Q, D].
        targets: int64 [Q], the position of each query's own video.
        videos: the candidates, with times.
        ranking: by the coarse embeddings, of at least `count` best videos where there are so many.
        scoring: of that ranking.
        coarse: which frames the candidates' embeddings hold.
        count: N, how many videos of each query.
        limit: moments to cut in the own video; in others it is one.

    Returns:
        The ranking, whose scores of the first `count` videos are the new ones, and the cuts, by query and video id. A
        video that cannot be looked at keeps its coarse score and has no cut.
    """
    units = unit(queries)
    best = ranking.videos[:, :count]
    scores = ranking.scores[:, :count].copy()
    cuts: dict[tuple[int, str], Cut] = {}
    grouped = iter(_by_video(best))
    while some := list(itertools.islice(grouped, VIDEOS_AT_ONCE)):
        pairs = {video: _positions(video, where, units, videos, scoring, coarse) for video, where in some}
        wanted = {
            videos.video_ids[video]: Request(
                np.unique(np.concatenate([positions for _, _, positions, _ in each])),
                int(videos.offsets[video + 1] - videos.offsets[video]),
            )
            for video, each in pairs.items()
        }
        looked_at = look(wanted)
        for video, each in pairs.items():
            frames = looked_at.get(videos.video_ids[video])
            if frames is None:
                continue
            for query, place, positions, level in each:
                own = frames.take(positions)
                if not len(own):  # all behind the end of a video that is shorter than one super image
                    continue
                most = limit if video == targets[query] else 1
                found = frame_moments(units[query], own, scoring, background=level, limit=most)
                scores[query, place] = refined_score(float(scores[query, place]), found)
                cuts[query, videos.video_ids[video]] = Cut(found, own.spans)
    return _ranked_anew(ranking, targets, scores), cuts


def _by_video(best: np.ndarray) -> list[tuple[int, list[tuple[int, int]]]]:
    """(video, the (query, place) at which it stands), each video once."""
    found: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
    for query, row in enumerate(best.tolist()):
        for place, video in enumerate(row):
            if video >= 0:
                found[video].append((query, place))
    return sorted(found.items())


def _positions(
    video: int,
    where: list[tuple[int, int]],
    units: np.ndarray,
    videos: SuperImageTable,
    scoring: Scoring,
    coarse: Coarse,
) -> list[_Pair]:
    own = videos.rows_of(video)
    vectors, spans = unit(videos.vectors[own]), np.stack([videos.start_s[own], videos.end_s[own]], axis=1)
    return [
        (
            query,
            place,
            frames_to_look_at(units[query], vectors, spans, scoring, coarse),
            background(units[query], vectors),
        )
        for query, place in where
    ]


def _ranked_anew(ranking: Ranking, targets: np.ndarray, scores: np.ndarray) -> Ranking:
    """The first videos in the order of new scores [Q, N]; equal ones in the order before."""
    count = scores.shape[1]
    order = np.argsort(-scores, axis=1, kind="stable")
    videos, all_scores = ranking.videos.copy(), ranking.scores.copy()
    videos[:, :count] = np.take_along_axis(ranking.videos[:, :count], order, axis=1)
    all_scores[:, :count] = np.take_along_axis(scores, order, axis=1)
    is_own = videos[:, :count] == targets[:, None]
    ranks = np.where(is_own.any(axis=1), is_own.argmax(axis=1) + 1, np.maximum(ranking.ranks, count + 1))
    return Ranking(ranks, all_scores, videos)
