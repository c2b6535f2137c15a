"""A store and one query vector in, the best videos with score and best moment out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .. import GridClipError
from . import choices
from .retrieval import Scoring, best_videos
from .store.store import Store


@dataclasses.dataclass(frozen=True)
class Hit:
    """A video that answers a query.

    Attributes:
        video_id: the video's id.
        score: cosine of the query and the video's aggregate, -1 to 1.
        start_s: start of the super image with the largest weight in seconds, None where the store has no times.
        end_s: end of that super image in seconds, None where the store has no times.
    """

    video_id: str
    score: float
    start_s: float | None
    end_s: float | None


def search(
    store: Store,
    query_vector: np.ndarray,
    top: int = choices.TOP,
    *,
    aggregate: str = choices.AGGREGATE,
    temperature: float = choices.TEMPERATURE,
    device: str | None = None,
) -> list[Hit]:
    """The best videos for a query, best first.

    Args:
        store: holds super images.
        query_vector: float [D] or [1, D], from the store's model.
        top: how many videos, >= 1.
        aggregate, temperature: see `retrieval.Scoring`.
        device: where to compute, by default CUDA if there is one.

    Raises:
        GridClipError: the store holds no videos, or vectors of another width, or a vector that is not finite.
    """
    videos = store.read_super_images()
    query = np.asarray(query_vector, np.float32).reshape(1, -1)
    if not np.isfinite(query).all():
        raise GridClipError(
            "the query's vector holds values that are not finite, so that it has no scores: the model "
            "gives such values for this sentence; try another one, or export the model in fp32"
        )
    if query.shape[1] != videos.vectors.shape[1]:
        raise GridClipError(
            f"the query is {query.shape[1]} wide, the store {store.path} has {videos.vectors.shape[1]}"
            ": use the model that the store was made with"
        )
    scoring = Scoring(aggregate, temperature)
    scores, best = best_videos(query, videos.vectors, videos.offsets, scoring, top=top, device=device)
    hits = []
    for score, video in zip(scores[0], best[0], strict=True):
        first, last = videos.offsets[video], videos.offsets[video + 1]
        # The weight grows with the similarity, so that the most similar super image has the largest.
        moment = first + int((videos.vectors[first:last].astype(np.float32) @ query[0]).argmax())
        start_s, end_s = _seconds(videos.start_s[moment]), _seconds(videos.end_s[moment])
        hits.append(Hit(videos.video_ids[video], float(score), start_s, end_s))
    return hits


def _seconds(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
