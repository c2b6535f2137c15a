"""Hits, a searcher and a model in, how probably the best super image of each video matches the sentence out."""

from __future__ import annotations

import collections.abc

import numpy as np

from ...export.model_info import ModelFacts
from ..scoring.match_probability import match_probability
from . import scores
from .search import Hit, Searcher


def match_probabilities(
    hits: collections.abc.Iterable[Hit], searcher: Searcher, sentence_vector: np.ndarray, facts: ModelFacts
) -> dict[str, float]:
    """The probability by video id, in [0, 1]: of a part of the video, not of all of it; see `match_probability`.

    Args:
        hits: of one sentence.
        searcher: that found them.
        sentence_vector: float [D], from the store's model.
        facts: of that model.

    Raises:
        GridClipError: the model was not trained to say it; those that were have a `logit_bias`.
    """
    sentence = scores.unit(np.asarray(sentence_vector, np.float32).reshape(1, -1))
    found = {}
    for hit in hits:
        vectors, _ = searcher.video(hit.video_id)
        best = scores.cosines(scores.unit(vectors), sentence).max()
        found[hit.video_id] = float(match_probability(best, facts))
    return found
