"""Vectors in; whether the device ranks them as an independent computation in float64 does, out. Step G."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from gridclip.engine.scoring import retrieval, tallies
from gridclip.engine.scoring.scoring import Scoring

from .checks import Check, judged
from .plans import Work

DIMENSIONS = 256
TOP = 10
# Scores that differ by less than this in float64 may be ranked either way in float32.
TIE = 2 * tallies.TIE


def run(work: Work) -> Iterator[Check]:
    """Each aggregate of the definition."""
    device = "cpu" if work.place.device_id is None else f"cuda:{work.place.device_id}"
    queries, targets, vectors, offsets = make_vectors(work.plan.queries, work.plan.candidates)
    for name, scoring in {"softmax": Scoring(), "softmax, tau 0.05": Scoring(temperature=0.05)}.items():
        expected = float64_scores(queries, vectors, offsets, scoring.temperature)
        found = retrieval.ranks(queries, targets, vectors, offsets, scoring, device=device)
        yield check_ranks(f"{name}: ranks", found, expected, targets)
        _, best = retrieval.best_videos(queries, vectors, offsets, scoring, top=TOP, device=device)
        yield check_best(f"{name}: best {TOP} videos", best, expected)


def make_vectors(queries: int, candidates: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """float32 [Q, D], int64 [Q], float32 [T, D], int64 [V + 1]; each query lies near a super image of its video."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 31, candidates))])
    vectors = rng.standard_normal((offsets[-1], DIMENSIONS)).astype(np.float32)
    targets = rng.integers(0, candidates, queries)
    near = vectors[offsets[targets] + rng.integers(0, np.diff(offsets)[targets])]
    return (near + rng.standard_normal((queries, DIMENSIONS)) * 2).astype(np.float32), targets, vectors, offsets


def float64_scores(queries: np.ndarray, vectors: np.ndarray, offsets: np.ndarray, temperature: float) -> np.ndarray:
    """The definition written out, video by video: float64 [Q, V]."""
    queries = queries.astype(float) / np.linalg.norm(queries.astype(float), axis=1, keepdims=True)
    vectors = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    scores = np.empty((len(queries), len(offsets) - 1))
    for video in range(len(offsets) - 1):
        own = vectors[offsets[video] : offsets[video + 1]]
        similar = queries @ own.T
        weights = np.exp((similar - similar.max(axis=1, keepdims=True)) / temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        aggregate = weights @ own
        aggregate /= np.linalg.norm(aggregate, axis=1, keepdims=True)
        scores[:, video] = (queries * aggregate).sum(axis=1)
    return scores


def check_ranks(name: str, found: np.ndarray, expected: np.ndarray, targets: np.ndarray) -> Check:
    """Ranks int64 [Q] lie between the best and the worst that float64 scores [Q, V] allow, ties apart."""
    lead = expected - expected[np.arange(len(targets)), targets][:, None]
    lead[np.arange(len(targets)), targets] = -np.inf
    best, worst = 1 + (lead > TIE).sum(axis=1), 1 + (lead > -TIE).sum(axis=1)
    wrong = np.flatnonzero((found < best) | (found > worst))
    ties = int((best != worst).sum())
    told = f"{len(found):,} queries, {len(wrong)} ranks differ from float64 ({ties} ties apart)"
    if len(wrong):
        told += f", e.g. query {wrong[0]}: {found[wrong[0]]} instead of {best[wrong[0]]}"
    return judged(name, not len(wrong), told, wrong=len(wrong), ties=ties)


def check_best(name: str, found: np.ndarray, expected: np.ndarray) -> Check:
    """Best videos int64 [Q, k] have, place by place, the best scores of float64 [Q, V], ties apart."""
    mine = np.take_along_axis(expected, found, axis=1)
    right = -np.sort(-expected, axis=1)[:, : found.shape[1]]
    wrong = np.flatnonzero((np.abs(mine - right) > TIE).any(axis=1))
    twice = sum(len(set(row)) < len(row) for row in found.tolist())
    told = f"{len(found):,} queries, {len(wrong)} lists differ from float64, {twice} name a video twice"
    return judged(name, not len(wrong) and not twice, told, wrong=len(wrong), twice=twice)
