"""A coarse store and the folder of its videos in; answers whose best videos were looked at again out."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib

import numpy as np

from ... import ArgumentError, GridClipError
from ...dali_pipes.sampling import Sampling, of_record
from .. import choices
from ..encoding.encoder import Encoder
from ..listing.listing import list_videos
from ..moments.best import unit
from ..moments.recut import Cut, with_coarse
from ..search.questions import Question
from ..search.search import Hit, Searcher
from ..store.copies import View
from ..store.store import Store
from .cache import FrameCache
from .choice import Coarse, frames_to_look_at
from .looking import Cost, Looker, Request
from .score import Frames, background, frame_moments, refined_score


@dataclasses.dataclass(frozen=True)
class Refining:
    """What a user asked of refinement.

    Args:
        videos: N, how many of the best videos of a query are looked at, >= 1.
        video_dir: the videos, see `finding`.
        encoder: the store's model.
        cache_frames: that are kept for the next query, at most; 0: none.
    """

    videos: int
    video_dir: pathlib.Path | str
    encoder: Encoder
    cache_frames: int = choices.REFINE_CACHE_FRAMES


class Refiner:
    """Looks again at the best videos of queries; not for several threads at once.

    Args:
        store: of the videos; frames are kept in its folder.
        view: the level and grid size of the coarse embeddings.
        asked: what is looked at.
        num_workers: decoding processes, default one per core.

    Raises:
        ArgumentError: `videos` is less than 1.
        GridClipError: the store does not say how its videos were sampled, its embeddings are frames already, it is of
            another model, or the folder has no videos.
    """

    def __init__(self, store: Store, view: View, asked: Refining, *, num_workers: int | None = None) -> None:
        if asked.videos < 1:
            raise ArgumentError(f"`refine={asked.videos}` must be >= 1, a number of videos")
        self.videos = asked.videos
        self.coarse = Coarse(view, _sampling(store, view))
        store.require_model(asked.encoder.info.to_json())
        self._looker = Looker(
            asked.encoder,
            {video.video_id: video for video in list_videos(asked.video_dir).videos},
            self.coarse,
            FrameCache.of(store, most_frames=asked.cache_frames),
            num_workers=num_workers or os.cpu_count() or 1,
        )

    @property
    def cost(self) -> Cost:
        """Of everything so far."""
        return self._looker.cost

    def look(self, wanted: collections.abc.Mapping[str, Request]) -> dict[str, Frames]:
        """See `Looker.look`."""
        return self._looker.look(wanted)

    def search(self, searcher: Searcher, query_vector: np.ndarray, top: int, moments: int = 1) -> list[Hit]:
        """As `Searcher.search`, and then the N best videos are looked at again, and come in the order of that.

        They stay before all others. A video that cannot be looked at keeps its coarse score and moments.

        Args:
            searcher: of the store, and of the coarse embeddings.
            query_vector, top, moments: see there, as are the errors.
        """
        hits = searcher.search(query_vector, max(top, self.videos), moments)
        query = unit(np.asarray(query_vector, np.float32).reshape(1, -1))[0]
        best = [hit.video_id for hit in hits[: self.videos]]
        coarse: dict[str, np.ndarray] = {}
        wanted = {}
        for video_id in best:
            vectors, spans = searcher.video(video_id)
            units = coarse[video_id] = unit(vectors)
            positions = frames_to_look_at(query, units, spans, searcher.scoring, self.coarse)
            wanted[video_id] = Request(positions, len(units))
        looked_at = self.look(wanted)
        refined = []
        for hit in hits[: self.videos]:
            frames = looked_at.get(hit.video_id)
            if frames is None:
                refined.append(hit)
                continue
            level = background(query, coarse[hit.video_id])
            found = frame_moments(query, frames, searcher.scoring, background=level, limit=moments)
            shown = with_coarse(Cut(found, frames.spans), hit.moments, limit=moments)
            score = refined_score(hit.score, found)
            refined.append(Hit(hit.video_id, score, shown[0].start_s, shown[0].end_s, shown))
        refined.sort(key=lambda hit: -hit.score)  # stable: equal ones in the coarse order
        return [*refined, *hits[self.videos :]][:top]


def answer_refined(
    refiner: Refiner, searcher: Searcher, model: Encoder, question: Question, *, top: int, moments: int = 1
) -> list[Hit]:
    """The best videos for a question of one sentence; see `Refiner.search`.

    Raises:
        ArgumentError: the question is another one.
    """
    if len(question.sentences) != 1 or question.unwanted or question.picture is not None:
        raise ArgumentError(f"`refine={refiner.videos}` is for one sentence: leave out the others, or `refine`")
    return refiner.search(searcher, model.encode_texts(list(question.sentences))[0], top, moments)


def _sampling(store: Store, view: View) -> Sampling:
    """How the frames of the store's videos are found at grid size 1.

    Raises:
        GridClipError: nobody knows, or they are at grid size 1 already.
    """
    record = store.sampling or {}
    if view.grid_size is None or record.get("fps") is None:
        raise GridClipError(
            f"the store {store.path} does not say how its videos were sampled, so that they cannot be looked at again: "
            "leave out `refine`, or make it with gridclip embed-videos"
        )
    if view.grid_size == 1:
        raise GridClipError(
            f"the store {store.path} is searched at grid size 1, which `refine` could not make finer: leave it out, or "
            "give the `grid_size` of coarser embeddings"
        )
    return of_record(record)
