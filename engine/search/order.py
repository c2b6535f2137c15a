"""Cosines of super images and of several sentences in; how well, and where, a video shows them one after the other out.

"First this, then that": sentence 1 is placed on one super image of the video, sentence 2 on a later one, and so on.
The score is the mean of the cosines of the best such placement, which a dynamic programme finds: with
best_1[i] = s[i, 1] and best_m[i] = s[i, m] + max over j < i of best_(m-1)[j], it is max over i of best_M[i] / M. In a
video that has fewer super images than there are sentences, neighbours may share one (j <= i).
"""

from __future__ import annotations

import numpy as np


def ordered_scores(similar: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The score of the best placement in each of n videos, float32 [n], -1 to 1.

    Args:
        similar: float32 [R, M], cosines of the super images, which lie video by video in time order, and M sentences.
        offsets: int64 [n + 1], rows of video v are offsets[v] to offsets[v + 1], at least one.
    """
    best = _best(similar.astype(np.float64), offsets)[-1]
    scores: np.ndarray = np.maximum.reduceat(best, offsets[:-1]) / similar.shape[1]
    return scores.astype(np.float32)


def placement(similar: np.ndarray) -> np.ndarray:
    """The best placement in one video: int64 [M], the super image of each sentence, the earliest among equals.

    Args:
        similar: float32 [L, M], cosines of the video's super images and M sentences.
    """
    length, sentences = similar.shape
    best = _best(similar.astype(np.float64), np.array([0, length]))
    strict = length >= sentences
    places = [int(best[-1].argmax())]
    for row in range(sentences - 2, -1, -1):
        last = places[-1] if strict else places[-1] + 1
        places.append(int(best[row][:last].argmax()))
    return np.array(places[::-1])


def _best(similar: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """best_m of every row, float64 [R], for m = 1 to M; far below -M where nothing can be placed so early."""
    sentences, sizes = similar.shape[1], np.diff(offsets)
    # One running maximum serves all videos: each stands so much above the one before that it never sees that one's.
    stairs = np.repeat(np.arange(len(sizes)) * 4.0 * sentences, sizes)
    shares = np.repeat(sizes < sentences, sizes)
    best = [similar[:, 0]]
    for sentence in range(1, sentences):
        running = np.maximum.accumulate(best[-1] + stairs) - stairs
        before = np.roll(running, 1)
        before[offsets[:-1]] = -3.0 * sentences
        best.append(similar[:, sentence] + np.where(shares, running, before))
    return best
