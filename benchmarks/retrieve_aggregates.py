"""Unit embeddings and queries in, what ranking by each aggregate costs beside the bare matrix product out.

What an aggregate does to a video before it meets a query is timed apart: ranking does it twice, whatever the number of
queries, so that with few queries it weighs more than in a whole evaluation.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..engine.scoring import retrieval
from ..engine.scoring.aggregates import AGGREGATES
from . import measure, retrieve_peers


def run(vectors: torch.Tensor, offsets: np.ndarray, queries: torch.Tensor) -> dict[str, dict[str, Any]]:
    """Processor seconds by aggregate, each right after the bare product, so that a busy minute hits both.

    Args:
        vectors: float32 [T, D], of unit length.
        offsets: int64 [V + 1].
        queries: float32 [Q, D], of unit length.
    """
    own = np.random.default_rng(1).integers(0, len(offsets) - 1, len(queries))
    rows, texts = vectors.numpy(), queries.numpy()
    entries = {}
    for name in AGGREGATES:
        scoring = retrieval.Scoring(name)
        floor_s = _cpu_seconds(functools.partial(retrieve_peers.bare_product, vectors, queries))
        ranking = functools.partial(retrieval.ranks, texts, own, rows, offsets, scoring, device="cpu")
        ranking_s = _cpu_seconds(ranking)
        one_query = functools.partial(retrieval.best_videos, texts[:1], rows, offsets, scoring, top=1, device="cpu")
        one_query_s = _cpu_seconds(one_query)
        entries[name] = {
            "queries": len(queries),
            "bare_product_cpu_s": measure.significant(floor_s),
            "ranking_cpu_s": measure.significant(ranking_s),
            "to_bare_product": measure.significant(ranking_s / floor_s),
            "one_query_cpu_s": measure.significant(one_query_s),
        }
    return entries


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
