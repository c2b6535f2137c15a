"""Scores of all videos for all queries in, scores without hubs out: videos that are near to every query rank lower.

Both ways take something off a video's scores, and both need the scores of all queries and videos at once.

- QB-Norm with the dynamic inverted softmax (Bogolin et al., Cross Modal Retrieval with Querybank Normalisation, CVPR
  2022): a video pays for its nearness to a bank of queries, but only for queries whose best video is some bank query's
  best, too. Their exp(b s) / sum over the bank of exp(b s) ranks as s - log(mean over the bank of exp(b s)) / b does.
- Sinkhorn (Sinkhorn and Knopp, 1967; Cuturi, NeurIPS 2013): exp(b s) is scaled until every query has the weight 1 and
  every video the same share of the queries; a video pays for its scaling. It sees all test queries together, and so
  knows more than a user's single query can: transductive.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from ... import ArgumentError, GridClipError
from .. import choices
from .retrieval import Ranking, Wanted, chosen_device, score_blocks
from .scoring import Scoring
from .tallies import BestVideos, Ranks, ScoreBlock

SHARPNESS = 20.0  # b, that of Bogolin et al.
SINKHORN_ROUNDS = 20
MOST_SCORES = 2**30  # queries x videos, 4 GiB in float32
QUERIES_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class QueryBank:
    """Queries that stand for those that users ask.

    Attributes:
        vectors: float16 or float32 [B, D], B >= 1.
        source: where they are from, for reports.
    """

    vectors: np.ndarray
    source: str


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """What is done against hubs.

    Args:
        name: of choices.NORMALISATIONS.
        bank: for "qb-norm", and for nothing else.

    Raises:
        ArgumentError: the name is unknown, or bank and name do not fit.
    """

    name: str = choices.NORMALISATION
    bank: QueryBank | None = None

    def __post_init__(self) -> None:
        if self.name not in choices.NORMALISATIONS:
            raise ArgumentError(f"normalise ({self.name!r}) must be one of {', '.join(choices.NORMALISATIONS)}")
        if self.name == "qb-norm" and self.bank is None:
            raise ArgumentError("`normalise='qb-norm'` needs a bank of queries: name a store or an npz as `query_bank`")
        if self.name != "qb-norm" and self.bank is not None:
            raise ArgumentError(f"`query_bank` is for `normalise='qb-norm'`: with {self.name!r} there is no bank")

    @property
    def transductive(self) -> bool:
        """Whether the rank of a query depends on the other test queries."""
        return self.name == "sinkhorn"

    def to_json(self) -> dict[str, object]:
        """Ready for json.dump."""
        content: dict[str, object] = {"name": self.name, "transductive": self.transductive}
        if self.name != choices.NORMALISATION:
            content["sharpness"] = SHARPNESS
        if self.bank is not None:
            content |= {"query_bank": self.bank.source, "bank_queries": len(self.bank.vectors)}
        return content

    def __str__(self) -> str:
        """What a report says."""
        if self.bank is not None:
            return f"{self.name}, bank of {len(self.bank.vectors):,} queries from {self.bank.source}"
        return f"{self.name}, over the test queries (transductive)" if self.transductive else self.name


def rank_normalised(
    queries: np.ndarray,
    targets: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    wanted: Wanted,
    normalisation: Normalisation,
    *,
    device: torch.device | str | None = None,
) -> Ranking:
    """Ranks and best videos by normalised scores; ties as in `retrieval.rank_videos`.

    Args:
        queries, targets, vectors, offsets, device: as in `retrieval.rank_videos`.
        wanted: the scoring, and how many of the best videos.
        normalisation: "qb-norm" or "sinkhorn".

    Raises:
        GridClipError: there are more than MOST_SCORES scores, or the bank's queries are of another width.
    """
    count = len(queries) * (len(offsets) - 1)
    if count > MOST_SCORES:
        raise GridClipError(
            f"{len(queries):,} queries x {len(offsets) - 1:,} videos are {count:,} scores, and {normalisation.name} "
            f"keeps all of them in memory: at most {MOST_SCORES:,} ({4 * MOST_SCORES >> 30} GiB); evaluate fewer "
            "captions, or without normalisation"
        )
    chosen = chosen_device(device)
    scores = _all_scores(queries, vectors, offsets, wanted.scoring, chosen)
    if normalisation.bank is None:
        scores -= _sinkhorn_prices(scores)
    else:
        _take_bank_prices(scores, *_bank_prices(normalisation.bank, vectors, offsets, wanted.scoring, chosen))
    return _ranking(scores, torch.from_numpy(np.asarray(targets, np.int64)).to(chosen), wanted.top)


def _all_scores(
    queries: np.ndarray, vectors: np.ndarray, offsets: np.ndarray, scoring: Scoring, device: torch.device
) -> torch.Tensor:
    """float32 [Q, V]."""
    scores = torch.empty(len(queries), len(offsets) - 1, device=device)
    for block in score_blocks(queries, vectors, offsets, scoring, device=device):
        scores[block.rows, block.videos] = block.scores.T
    return scores


def _bank_prices(
    bank: QueryBank, vectors: np.ndarray, offsets: np.ndarray, scoring: Scoring, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each video pays, float32 [V], and whether it is the best of some bank query, bool [V]; the bank streams."""
    if bank.vectors.shape[1] != vectors.shape[1]:
        raise GridClipError(
            f"the query bank {bank.source} is {bank.vectors.shape[1]} wide, the videos are {vectors.shape[1]}: embed "
            "the bank with the model of the store"
        )
    sums = torch.full((len(offsets) - 1,), -torch.inf, device=device)
    best_scores = torch.full((len(bank.vectors),), -torch.inf, device=device)
    best_videos = torch.zeros(len(bank.vectors), dtype=torch.int64, device=device)
    for block in score_blocks(bank.vectors, vectors, offsets, scoring, device=device):
        found = torch.logsumexp(SHARPNESS * block.scores, dim=1)
        sums[block.videos] = torch.logaddexp(sums[block.videos], found)
        highest, places = block.scores.max(0)
        better = highest > best_scores[block.rows]
        best_scores[block.rows] = torch.where(better, highest, best_scores[block.rows])
        best_videos[block.rows] = torch.where(better, block.videos[places], best_videos[block.rows])
    is_best = torch.zeros(len(sums), dtype=torch.bool, device=device)
    is_best[best_videos] = True
    return (sums - math.log(len(bank.vectors))) / SHARPNESS, is_best


def _take_bank_prices(scores: torch.Tensor, prices: torch.Tensor, is_best: torch.Tensor) -> None:
    """Takes the prices [V] off the rows of scores [Q, V] whose best video is some bank query's, in place."""
    for rows in torch.split(scores, QUERIES_AT_ONCE):
        rows -= torch.where(is_best[rows.argmax(1)][:, None], prices, 0)


def _sinkhorn_prices(scores: torch.Tensor) -> torch.Tensor:
    """What each video pays, float32 [V], from scores [Q, V] in SINKHORN_ROUNDS passes; the scores stay as they are."""
    share = len(scores) / scores.shape[1]
    prices = torch.zeros(scores.shape[1], device=scores.device)
    for _ in range(SINKHORN_ROUNDS):
        weights = torch.zeros_like(prices)
        for rows in torch.split(scores, QUERIES_AT_ONCE):
            weights += torch.softmax(SHARPNESS * (rows - prices), dim=1).sum(0)
        prices += (weights.clamp_(min=torch.finfo(torch.float32).tiny) / share).log_() / SHARPNESS
    return prices


def _ranking(scores: torch.Tensor, targets: torch.Tensor, top: int) -> Ranking:
    """From dense scores [Q, V], in blocks of queries."""
    count, videos = scores.shape
    ranks = Ranks(scores.gather(1, targets[:, None])[:, 0], targets)
    names = torch.arange(videos, device=scores.device)
    best_scores = np.zeros((count, min(top, videos)), np.float32)
    best = np.zeros(best_scores.shape, np.int64)
    for first in range(0, count, QUERIES_AT_ONCE):
        rows = scores[first : first + QUERIES_AT_ONCE].T
        ranks.add(ScoreBlock(names, torch.arange(first, first + rows.shape[1]), rows))
        if best.shape[1]:
            kept = BestVideos(rows.shape[1], best.shape[1], most_waiting=videos, device=scores.device)
            kept.add(ScoreBlock(names, torch.arange(rows.shape[1]), rows))
            best_scores[first : first + rows.shape[1]], best[first : first + rows.shape[1]] = kept.result()
    return Ranking(ranks.result(), best_scores, best)
