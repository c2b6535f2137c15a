"""A question in, the best videos with their moments and curves out, as the page and the JSON interface show them."""

from __future__ import annotations

import collections
import logging
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ... import GridClipError
from ...export.model_info import ModelInfo
from ..moments.best import Moment
from ..retrieval import Scoring
from . import noise
from .bounds import CURVE_POINTS, LONGEST_TEXT, Bounds
from .in_order import moments_in_order
from .questions import Question
from .refusal import NOT_FOUND, UNUSABLE, Refusal
from .standin import Hit, Searcher

logger = logging.getLogger(__name__)

_TEXTS_HELD = 1024  # vectors of sentences, some KB each


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
        encoder: the model that the store was made with.
        scoring: how the searcher scores, for the weights of the curves.
    """

    def __init__(self, searcher: Searcher, encoder: TextEncoder, scoring: Scoring, bounds: Bounds) -> None:
        self._searcher, self._encoder, self._scoring, self._bounds = searcher, encoder, scoring, bounds
        self._texts: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._noise: noise.Noise | None = None

    @property
    def picture_size_px(self) -> int:
        """Side of the pictures that `of_picture` takes."""
        return self._encoder.info.image_size

    def measure_noise(self) -> None:
        """Measures what nonsense scores in the store as it is now; takes as long as that many searches."""
        try:
            sentences = noise.nonsense(self._encoder.model_dir)
            self._noise = noise.measure_noise(sentences, lambda each: self._best(self._vector(each), 1, 0)[0].score)
        except (GridClipError, OSError, ValueError, KeyError, TypeError) as error:  # a vocabulary of another make
            logger.info("the noise of the store is not known: %s", error)

    def of_question(self, question: Question) -> dict[str, Any]:
        """The answer as JSON; raises Refusal."""
        begun = time.perf_counter()
        if question.like is not None:
            results = self._alike(question, *question.like)
        elif len(question.sentences) > 1:
            results = self._in_order(question)
        else:
            results = self._plain(question, self._vector(question.sentences[0]))
        told = self._noise if len(question.sentences) == 1 else None
        return _answer(results, told, begun)

    def of_picture(self, question: Question, pixels: bytes) -> dict[str, Any]:
        """The same for a picture, uint8 [S, S, 3] as bytes."""
        begun = time.perf_counter()
        size = self.picture_size_px
        picture = np.frombuffer(pixels, np.uint8).reshape(1, size, size, 3)
        vector = _finite(self._encoder.encode_images(picture)[0])
        return _answer(self._plain(question, vector), None, begun)

    def _vector(self, sentence: str) -> np.ndarray:
        with self._lock:
            known = self._texts.get(sentence)
            if known is not None:
                self._texts.move_to_end(sentence)
                return known
        vector = _finite(self._encoder.encode_texts([sentence[:LONGEST_TEXT]])[0])
        with self._lock:
            self._texts[sentence] = vector
            if len(self._texts) > _TEXTS_HELD:
                self._texts.popitem(last=False)
        return vector

    def _best(self, vector: np.ndarray, top: int, moments: int) -> list[Hit]:
        return self._searcher.search(vector, top=top, moments=moments)

    def _plain(self, question: Question, vector: np.ndarray) -> list[dict[str, Any]]:
        if not question.only:
            hits = self._best(vector, question.top, question.moments)
        else:
            hits = self._filtered(question, self._best(vector, self._bounds.looked_at, question.moments))
        return [self._row(hit.video_id, hit.score, hit.moments, vector[None]) for hit in hits]

    def _filtered(self, question: Question, hits: list[Hit]) -> list[Hit]:
        kept: list[Hit] = []
        for hit in hits:
            if len(kept) == question.top:
                break
            if question.only.lets_through(hit.video_id) and question.only.fits_length(self._duration_s(hit.video_id)):
                kept.append(hit)
        return kept

    def _alike(self, question: Question, video_id: str, at_s: float) -> list[dict[str, Any]]:
        """Videos like a moment: its embedding is the query. The moment's own video is among them."""
        vectors, spans = self._video(video_id)
        inside = (spans[:, 0] <= at_s) & (at_s < spans[:, 1])
        chosen = int(inside.argmax()) if inside.any() else len(vectors) - 1
        return self._plain(question, vectors[chosen].astype(np.float32))

    def _in_order(self, question: Question) -> list[dict[str, Any]]:
        """Videos that show one sentence after the other; their score is the mean cosine of these moments."""
        vectors = np.stack([self._vector(sentence) for sentence in question.sentences])
        candidates = dict.fromkeys(
            hit.video_id
            for vector in vectors
            for hit in self._best(vector, self._bounds.looked_at // len(vectors), 0)
            if question.only.lets_through(hit.video_id)
        )
        found = []
        for video_id in candidates:
            moments = moments_in_order(vectors, *self._video(video_id))
            if moments and question.only.fits_length(self._duration_s(video_id)):
                found.append((float(np.mean([moment.score for moment in moments])), video_id, moments))
        found.sort(key=lambda each: (-each[0], each[1]))
        return [self._row(video_id, score, moments, vectors) for score, video_id, moments in found[: question.top]]

    def _row(self, video_id: str, score: float, moments: list[Moment], queries: np.ndarray) -> dict[str, Any]:
        vectors, spans = self._video(video_id)
        units = vectors.astype(np.float32)
        units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        cosines = units @ (queries / np.linalg.norm(queries, axis=1, keepdims=True)).T
        return {
            "video_id": video_id,
            "score": round(score, 6),
            "duration_s": self._duration_s(video_id),
            "moments": [
                {"start_s": moment.start_s, "end_s": moment.end_s, "score": round(moment.score, 6)}
                for moment in moments
            ],
            "curve": _curve(cosines.max(axis=1), spans, self._scoring),
        }

    def _video(self, video_id: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            return self._searcher.video(video_id)
        except KeyError:
            raise Refusal(NOT_FOUND, "the store has no video of this id") from None

    def _duration_s(self, video_id: str) -> float | None:
        """The end of its last super image, None where the store has no times."""
        end_s = self._video(video_id)[1][:, 1]
        return float(np.nanmax(end_s)) if np.isfinite(end_s).any() else None


def _answer(results: list[dict[str, Any]], told: noise.Noise | None, begun: float) -> dict[str, Any]:
    level = None if told is None else {"level": told.level, "median": told.median, "sentences": told.sentences}
    return {"results": results, "noise": level, "took_ms": round(1000 * (time.perf_counter() - begun), 1)}


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
    return weights / weights.sum()


def _finite(vector: np.ndarray) -> np.ndarray:
    if not np.isfinite(vector).all():
        raise Refusal(UNUSABLE, "the model gives values that are not finite for this: try another sentence")
    return vector
