"""A question in, the best videos with their moments and curves out, as the page and the JSON interface show them."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ... import GridClipError
from ...export.model_info import ModelInfo
from ..scoring.scoring import Scoring
from ..search.scores import unit
from ..search.search import Hit, Searcher
from . import noise
from .bounds import CURVE_POINTS, LONGEST_TEXT, Bounds
from .contents import Contents
from .questions import Question
from .recent import Recent
from .refusal import NOT_FOUND, UNUSABLE, Refusal
from .together import Together

logger = logging.getLogger(__name__)

_TEXTS_HELD = 1024  # vectors of sentences, some KB each
_READ_AT_ONCE = 64  # videos, while a filter looks for those of some length
_VIDEOS_HELD = 512  # vectors and times of videos that answered, 20 KB for two minutes of 768 wide ones


class TextEncoder(Protocol):
    """What an `Encoder` does here."""

    model_dir: pathlib.Path
    info: ModelInfo

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray: ...
    def encode_images(self, super_images: np.ndarray, /) -> np.ndarray: ...


class Answers:
    """Answers questions from one store; several threads may ask at once.

    Args:
        searcher: of the store.
        contents: of the same; they follow it together.
        encoder: the model that the store was made with.
        bounds: see there.
        date: of a video by its id, for filters; raises Refusal where no video has one.
    """

    def __init__(
        self,
        searcher: Searcher,
        contents: Contents,
        encoder: TextEncoder,
        bounds: Bounds,
        date: Callable[[str], datetime.date | None],
    ) -> None:
        self._searcher, self._contents, self._encoder, self._bounds = searcher, contents, encoder, bounds
        self._date = date
        self._together = Together(searcher)
        self._encoding = (
            threading.Lock()
        )  # a run takes all cores, and ONNX Runtime keeps memory for as many as ran at once
        self._texts: Recent[str, np.ndarray] = Recent(_TEXTS_HELD)
        self._videos: Recent[str, tuple[np.ndarray, np.ndarray]] = Recent(_VIDEOS_HELD)
        self._noise: noise.Noise | None = None

    def refresh(self) -> None:
        """Follows the store to its newest version; raises GridClipError."""
        self._contents.refresh()
        if self._searcher.refresh():
            self._videos.clear()  # one of them may have been embedded again

    def measure_noise(self) -> None:
        """Measures what nonsense scores in the store as it is now; takes as long as that many searches."""
        try:
            sentences = noise.nonsense(self._encoder.model_dir)
            if sentences:
                found = self._searcher.search_many(self._encoder.encode_texts(sentences), top=1)
                self._noise = noise.of_scores([hits[0].score for hits in found])
        except (GridClipError, OSError, ValueError, KeyError, TypeError) as error:  # a vocabulary of another make
            logger.info("the noise of the store is not known: %s", error)

    def of_question(self, question: Question) -> dict[str, Any]:
        """The answer as JSON; raises Refusal."""
        begun = time.perf_counter()
        if question.like is not None:
            wanted = self._moment_vector(*question.like)[None]
        else:
            wanted = self._vectors(question.sentences)
        unwanted = self._vectors(question.unwanted) if question.unwanted else None
        hits = self._best(question, wanted, unwanted)
        # Measured for one sentence: more of them, and pictures, score on other scales.
        told = self._noise if len(question.sentences) == 1 and unwanted is None else None
        return self._answer(hits, wanted, told, begun)

    def of_picture(self, question: Question, pixels: bytes) -> dict[str, Any]:
        """The same for a picture, laid out as a super image: uint8 [S, S, 3] as bytes."""
        begun = time.perf_counter()
        size = self._encoder.info.image_size
        super_image = np.frombuffer(pixels, np.uint8).reshape(1, size, size, 3)
        wanted = _finite(self._encoder.encode_images(super_image))
        return self._answer(self._best(question, wanted, None), wanted, None, begun)

    def _vectors(self, sentences: Sequence[str]) -> np.ndarray:
        """float32 [n, D] of the sentences."""
        return np.stack([self._texts.get(each, self._encoded) for each in sentences])

    def _encoded(self, sentence: str) -> np.ndarray:
        with self._encoding:
            return _finite(self._encoder.encode_texts([sentence[:LONGEST_TEXT]])[0])

    def _moment_vector(self, video_id: str, at_s: float) -> np.ndarray:
        """float32 [D]: the embedding on screen at a second, the last one behind the end."""
        vectors, spans = self._read([video_id])[0]
        inside = (spans[:, 0] <= at_s) & (at_s < spans[:, 1])
        chosen = int(inside.argmax()) if inside.any() else len(vectors) - 1
        vector: np.ndarray = vectors[chosen].astype(np.float32)
        return vector

    def _best(self, question: Question, wanted: np.ndarray, unwanted: np.ndarray | None) -> list[Hit]:
        top = self._bounds.looked_at if question.only else question.top
        if len(wanted) == 1 and unwanted is None and not question.only:
            return self._together.search(wanted[0], top, question.moments)
        hits = self._together.search_terms(wanted, unwanted, top, question.moments)
        return self._filtered(question, hits) if question.only else hits

    def _filtered(self, question: Question, hits: list[Hit]) -> list[Hit]:
        only = question.only
        kept = [hit for hit in hits if only.lets_through(hit.video_id)]
        if only.by_date:
            fitting_date = (hit for hit in kept if only.fits_date(self._date(hit.video_id)))
            # Each date may cost a look at the disk.
            kept = list(itertools.islice(fitting_date, None if only.by_length else question.top))
        if not only.by_length:
            return kept[: question.top]
        fitting: list[Hit] = []
        for first in range(0, len(kept), _READ_AT_ONCE):
            some = kept[first : first + _READ_AT_ONCE]
            videos = self._read([hit.video_id for hit in some])
            fitting += [
                hit for hit, (_, spans) in zip(some, videos, strict=True) if only.fits_length(_duration_s(spans))
            ]
            if len(fitting) >= question.top:
                break
        return fitting[: question.top]

    def _read(self, video_ids: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Embeddings and spans of videos; raises Refusal where one of them is not in the store."""
        try:
            return self._videos.get_many(video_ids, self._contents.read)
        except KeyError:
            raise Refusal(NOT_FOUND, "the store has no video of this id") from None

    def _answer(self, hits: list[Hit], wanted: np.ndarray, told: noise.Noise | None, begun: float) -> dict[str, Any]:
        videos = self._read([hit.video_id for hit in hits])
        queries = unit(wanted)
        results = [
            _row(hit, (unit(vectors) @ queries.T).max(axis=1), spans, self._searcher.scoring)
            for hit, (vectors, spans) in zip(hits, videos, strict=True)
        ]
        level = None if told is None else dataclasses.asdict(told)
        return {"results": results, "noise": level, "took_ms": round(1000 * (time.perf_counter() - begun), 1)}


def _row(hit: Hit, cosines: np.ndarray, spans: np.ndarray, scoring: Scoring) -> dict[str, Any]:
    """A hit as JSON; cosines float32 [L] and spans float64 [L, 2] of its video's embeddings."""
    return {
        "video_id": hit.video_id,
        "score": round(hit.score, 6),
        "duration_s": _duration_s(spans),
        "moments": [
            {"start_s": moment.start_s, "end_s": moment.end_s, "score": round(moment.score, 6)}
            for moment in hit.moments
        ],
        "curve": _curve(cosines, spans, scoring),
    }


def _duration_s(spans: np.ndarray) -> float | None:
    """The end of a video's last embedding, None where the store has no times."""
    ends = spans[np.isfinite(spans[:, 1]), 1]
    return float(ends.max()) if len(ends) else None


def _curve(cosines: np.ndarray, spans: np.ndarray, scoring: Scoring) -> dict[str, list[float] | None] | None:
    """Cosine and weight of every super image over time, at most CURVE_POINTS of them; None without times.

    Args:
        cosines: float32 [L], with the sentence that fits best where there are several.
        spans: float64 [L, 2], seconds.
    """
    if not np.isfinite(spans).all():
        return None
    weights = _weights(cosines, scoring)
    # Of neighbours that share a point the best is drawn: a peak is what the curve is looked at for.
    parts = np.array_split(np.arange(len(cosines)), min(CURVE_POINTS, len(cosines)))
    peaks = [int(part[cosines[part].argmax()]) for part in parts]
    return {
        "start_s": [float(spans[part[0], 0]) for part in parts],
        "end_s": [float(spans[part[-1], 1]) for part in parts],
        "cosine": [round(float(cosines[peak]), 5) for peak in peaks],
        "weight": None if weights is None else [round(float(weights[peak]), 6) for peak in peaks],
    }


def _weights(cosines: np.ndarray, scoring: Scoring) -> np.ndarray | None:
    """What each super image counts for in the video's score, float32 [L]; None where the aggregate has no weights."""
    if scoring.aggregate != "softmax":
        return None
    heated = cosines / scoring.temperature
    weights: np.ndarray = np.exp(heated - heated.max())
    weights /= weights.sum()
    return weights


def _finite(vector: np.ndarray) -> np.ndarray:
    if not np.isfinite(vector).all():
        raise Refusal(UNUSABLE, "the model gives values that are not finite for this: try another sentence")
    return vector
