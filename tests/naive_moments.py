"""One video's unit vectors and a query in, scores and moments out: the moment aggregates as loops, from their words.

Float64, one number at a time, nothing of the product: what peaks, windows and tf_prvr of engine/scoring are held to.
"""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pywt

HEIGHT = 0.7  # of a peak above the median: so much of it bounds its reach


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(np.linalg.norm(vector), 1e-12)


def window_means(own: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """(first, last + 1, unit mean) of all runs of 1, 2, 4, ... embeddings."""
    found = []
    for size in (2**power for power in range(20)):
        firsts = range(len(own) - size + 1)
        found += [(first, first + size, unit(own[first : first + size].mean(0))) for first in firsts]
    return found


def smallest_mean(vectors: np.ndarray) -> float:
    """The shortest mean of a window or of the whole before it is made unit length: rounding grows with 1 / it."""
    own = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    runs = [own[first:last] for first, last, _ in window_means(own)] + [own]
    return max(min(float(np.linalg.norm(run.mean(0))) for run in runs), 1e-3)


def cut_places(own: np.ndarray) -> list[list[int]]:
    """For each level the embeddings before which TF-PRVR cuts."""
    steps = [own[i + 1] - own[i] for i in range(len(own) - 1)]
    signal = []
    for a, b in itertools.pairwise(steps):
        if np.linalg.norm(a) < 1e-8 and np.linalg.norm(b) < 1e-8:
            signal.append(0.0)
        else:
            cosine = (a / (np.linalg.norm(a) + 1e-8)) @ (b / (np.linalg.norm(b) + 1e-8))
            signal.append(1 - min(max(cosine, -1), 1))
    depth = pywt.dwt_max_level(len(signal), 8) if signal else 0
    places = []
    for level in range(1, depth + 1):
        values = [abs(value) for value in _detail(np.array(signal), level)]
        limit = np.mean(values) + np.std(values)
        places.append(
            [
                i + 2
                for i in range(1, len(values) - 1)
                if values[i] > values[i - 1] + 1e-9 and values[i] > values[i + 1] + 1e-9 and values[i] > limit + 1e-9
            ]
        )
    return places


def _detail(signal: np.ndarray, level: int) -> np.ndarray:
    """What one level's coefficients alone say of the signal, by single steps of the transform and back."""
    approximation, details = signal, []
    for _ in range(level):
        approximation, detail = pywt.dwt(approximation, "db4", mode="symmetric")
        details.append(detail)
    back = pywt.idwt(None, details[-1], "db4", mode="symmetric")
    for detail in reversed(details[:-1]):
        back = pywt.idwt(back[: len(detail)], None, "db4", mode="symmetric")
    return back[: len(signal)]


def moment_vectors(own: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """(first, last + 1, vector) of TF-PRVR's intervals; of a short video its mean and all windows."""
    places = cut_places(own)
    if not places:
        return [(0, len(own), unit(own.mean(0))), *window_means(own)]
    segments = []  # (level, start, end, feature)
    for level, cuts in enumerate(places):
        for start, end in itertools.pairwise([0, *cuts, len(own)]):
            segments.append((level, start, end, unit(own[start:end].mean(0))))
    weights = np.eye(len(segments))
    for i, (level, start, end, feature) in enumerate(segments):
        for j, (other, begin, stop, second) in enumerate(segments):
            alike = max(float(feature @ second), 0)
            if i != j and level == other:
                mean_size = np.mean([e - s for number, s, e, _ in segments if number == level])
                weights[i, j] = alike + math.exp(-abs((start + end) / 2 - (begin + stop) / 2) / mean_size)
            if abs(level - other) == 1:
                shared = len(set(range(start, end)) & set(range(begin, stop)))
                weights[i, j] = shared / len(set(range(start, end)) | set(range(begin, stop))) * alike
    degrees = weights.sum(1)
    normal = np.array(
        [[weights[i, j] / math.sqrt(degrees[i] * degrees[j]) for j in range(len(degrees))] for i in range(len(degrees))]
    )
    spread = 0.3 * np.linalg.solve(np.eye(len(segments)) - 0.7 * normal, np.stack([row for *_, row in segments]))
    edges = sorted({0, len(own), *itertools.chain(*places)})
    found = []
    for start, end in itertools.pairwise(edges):
        middle = (start + end) / 2
        holders = [spread[i] for i, (_, s, e, _) in enumerate(segments) if s <= middle < e]
        assert len(holders) == len(places)
        found.append((start, end, np.mean(holders, axis=0)))
    return found


def best(moments: list[tuple[int, int, np.ndarray]], query: np.ndarray) -> float:
    return max(float(vector @ query) for _, _, vector in moments)


MOMENTS = {"windows": window_means, "tf-prvr": moment_vectors}
SCORES = {name: lambda own, query, make=make: best(make(own), query) for name, make in MOMENTS.items()}


def naive_peaks(similar: list[float], background: float | None = None) -> list[tuple[int, range]]:
    """(highest embedding, embeddings) of each peak of similarities over time, in the order of time."""
    found = []
    level = statistics.median(similar) if background is None else background
    for peak, value in enumerate(similar):
        own = _reach(similar, peak, level)
        if value == max(similar[place] for place in own) and similar.index(value, own.start) == peak:
            found.append((peak, own))
    return found


def _reach(similar: list[float], peak: int, level: float) -> range:
    """The embeddings of one moment, as the definition says."""
    first = last = peak
    if similar[peak] > level:
        bound = level + HEIGHT * (similar[peak] - level)
        while first > 0 and similar[first - 1] >= bound:
            first -= 1
        while last + 1 < len(similar) and similar[last + 1] >= bound:
            last += 1
    return range(first, last + 1)
