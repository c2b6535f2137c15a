"""A store in, recall out: how high each caption ranks its own video among all videos."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
from typing import Any

import numpy as np

from .. import ArgumentError, GridClipError
from . import choices
from .aggregates import AGGREGATES
from .annotations import Query, load_annotations
from .moments.evaluation import MomentEvaluation, depth, evaluate_moments
from .normalisation import Normalisation, rank_normalised
from .query_bank import load_query_bank
from .retrieval import Ranking, Scoring, Wanted, rank_videos
from .store.store import QueryTable, Store, SuperImageTable
from .sweep import SweepEntry, scorings, table

EXAMPLE_VIDEOS = 5  # the best ones of an example
TIE_RULE = "videos with equal scores (to within 1e-6) rank in the order of their ids"


@dataclasses.dataclass(frozen=True)
class Example:
    """One query with the rank of its own video and the best videos, (video id, score), best first."""

    query: Query
    rank: int
    best: list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Recall of one store.

    Attributes:
        recall: R@K in percent, by K.
        sum_recall: SumR, the sum of `recall`.
        median_rank, mean_rank: over the evaluated queries; a query of a missing video that is counted as a failure has
            the rank candidates + 1.
        chance: R@K in percent of a random order, by K.
        queries: evaluated queries.
        candidates: videos that are ranked.
        super_images: super images of the candidates.
        missing_queries: queries whose video has no embeddings.
        missing_videos: those videos, sorted.
        missing: what happened to these queries, "drop" or "count-as-failures".
        scoring: aggregate and temperature.
        model, sampling: the store's record.
        examples: some queries with their best videos, where asked for.
        moments: the moment metrics, where asked for and where queries have times.
        normalisation: what was done against hubs.
        too_short: candidates that are too short for the aggregate's definition: tf-prvr scores them by windows, too.
        sweep: the recall of other scorings, where asked for.
    """

    recall: dict[int, float]
    sum_recall: float
    median_rank: float
    mean_rank: float
    chance: dict[int, float]
    queries: int
    candidates: int
    super_images: int
    missing_queries: int
    missing_videos: list[str]
    missing: str
    scoring: Scoring
    model: dict[str, Any] | None
    sampling: dict[str, Any] | None
    examples: list[Example] = dataclasses.field(default_factory=list)
    moments: MomentEvaluation | None = None
    normalisation: Normalisation = dataclasses.field(default_factory=Normalisation)
    too_short: int = 0
    sweep: list[SweepEntry] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything but the examples, ready for json.dump; R@K under "R@1" and so on."""
        return {
            **{f"R@{k}": value for k, value in self.recall.items()},
            "SumR": self.sum_recall,
            "median_rank": self.median_rank,
            "mean_rank": self.mean_rank,
            "chance": {f"R@{k}": value for k, value in self.chance.items()},
            "queries": self.queries,
            "candidates": self.candidates,
            "super_images": self.super_images,
            "missing": self.missing,
            "missing_queries": self.missing_queries,
            "missing_videos": self.missing_videos,
            "aggregate": self.scoring.aggregate,
            "temperature": self.scoring.temperature,
            "too_short_videos": self.too_short,
            "normalise": self.normalisation.to_json(),
            "ties": TIE_RULE,
            "model": self.model,
            "sampling": self.sampling,
            **({} if self.moments is None else self.moments.to_json()),
            **({"sweep": [entry.to_json() for entry in self.sweep]} if self.sweep else {}),
        }

    def __str__(self) -> str:
        """A table in plain text."""
        names = [f"R@{k}" for k in self.recall] + ["SumR", "median rank", "mean rank"]
        values = [f"{value:.2f}" for value in self.recall.values()]
        values += [f"{self.sum_recall:.2f}", f"{self.median_rank:g}", f"{self.mean_rank:.1f}"]
        chance = [f"{value:.2f}" for value in self.chance.values()]
        middle = (self.candidates + 1) / 2
        chance += [f"{sum(self.chance.values()):.2f}", f"{middle:g}", f"{middle:.1f}"]
        widths = [max(map(len, column)) for column in zip(names, values, chance, strict=True)]
        lines = [
            label.ljust(8) + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            for label, cells in (("", names), ("store", values), ("chance", chance))
        ]
        lines.append(
            f"{self.queries:,} queries, {self.candidates:,} videos, {self.super_images:,} super images ({self.scoring})"
        )
        if self.normalisation.name != choices.NORMALISATION:
            lines.append(f"normalised: {self.normalisation}")
        if self.too_short:
            lines.append(
                f"{self.too_short:,} of {self.candidates:,} videos are too short for {self.scoring.aggregate}: "
                "windows at all scales join in, which can lift them above longer ones"
            )
        if self.missing_queries:
            what = "dropped" if self.missing == "drop" else "counted as failures"
            shown = ", ".join(self.missing_videos[:5]) + (", ..." if len(self.missing_videos) > 5 else "")
            lines.append(
                f"{self.missing_queries:,} queries {what}: {len(self.missing_videos):,} videos have no "
                f"embeddings ({shown})"
            )
        if self.moments is not None:
            lines += ["", str(self.moments)]
        if self.sweep:
            lines += ["", table(self.sweep)]
        return "\n".join(lines)


def evaluate(
    store: Store,
    *,
    anno_path: str | os.PathLike[str] | None = None,
    aggregate: str = choices.AGGREGATE,
    temperature: float = choices.TEMPERATURE,
    topk: collections.abc.Sequence[int] = choices.TOPK,
    missing: str = choices.MISSING,
    examples: int = 0,
    moments: bool = False,
    sweep: collections.abc.Mapping[str, collections.abc.Sequence[Any]] | None = None,
    normalise: str = choices.NORMALISATION,
    query_bank: str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> Evaluation:
    """Ranks all videos for every query and counts how often its own video is among the first K.

    Args:
        store: holds super images and queries.
        anno_path: take only the captions of this annotation file, and only the videos that it names as candidates;
            by default all of the store.
        aggregate, temperature: see `retrieval.Scoring`.
        topk: the K of R@K, each >= 1.
        missing: "drop" leaves queries of videos without embeddings out, "count-as-failures" counts them in.
        examples: how many queries to return with their best videos.
        moments: also measure moments, see `moments.evaluation`.
        sweep: also measure the recall with other values of "temperature" or "aggregate", in the same pass.
        normalise: what to do against hubs, see `normalisation`; not together with `sweep`.
        query_bank: a store or an npz, see `query_bank.load_query_bank`; for "qb-norm".
        device: where to compute, by default CUDA if there is one.

    Raises:
        ValueError: an argument is out of range.
        GridClipError: the store holds no videos or no queries, or vectors that are not finite, the annotation file is
            not usable or has captions that are not embedded, or no query has a video.
    """
    scoring = Scoring(aggregate, temperature)
    cutoffs = sorted(set(topk))
    if not cutoffs or cutoffs[0] < 1:
        raise ValueError(f"topk ({list(topk)}) must hold numbers >= 1")
    if missing not in choices.MISSING_RULES:
        raise ValueError(f"missing ({missing!r}) must be one of {', '.join(choices.MISSING_RULES)}")

    others = scorings(scoring, sweep or {})
    if others and normalise != "none":
        raise ArgumentError(f"`sweep` and `normalise={normalise!r}` cannot be combined: evaluate each on its own")
    normalisation = Normalisation(normalise, None if query_bank is None else load_query_bank(query_bank))

    videos, queries = store.read_super_images(), store.read_queries()
    if anno_path is not None:
        annotations = load_annotations(anno_path)
        queries = _choose_queries(queries, annotations.queries, f"{anno_path}", store)
        videos = _choose_videos(videos, set(annotations.video_ids), f"{anno_path}", store)

    position = {video_id: number for number, video_id in enumerate(videos.video_ids)}
    targets = np.array([position.get(query.video_id, -1) for query in queries.queries], np.int64)
    present = np.flatnonzero(targets >= 0)
    if not len(present):
        raise GridClipError(
            f"none of the {len(targets):,} queries has a video in the store {store.path}: the first is "
            f"of video {queries.queries[0].video_id}, the store's first video is {videos.video_ids[0]}"
        )
    top = max(depth(videos) if moments else 0, EXAMPLE_VIDEOS if examples > 0 else 0)
    wanted = [Wanted(scoring, top), *map(Wanted, others)]
    ranking, *swept = _rank(queries.vectors[present], targets[present], videos, wanted, normalisation, device)
    failures = len(targets) - len(present) if missing == "count-as-failures" else 0
    counted = _counted(ranking, failures, len(videos.video_ids))
    recall = _recall(counted, cutoffs, len(videos.video_ids))
    return Evaluation(
        recall=recall,
        sum_recall=sum(recall.values()),
        median_rank=float(np.median(counted)),
        mean_rank=float(counted.mean()),
        chance={k: 100 * min(k, len(videos.video_ids)) / len(videos.video_ids) for k in cutoffs},
        queries=len(counted),
        candidates=len(videos.video_ids),
        super_images=len(videos.vectors),
        missing_queries=len(targets) - len(present),
        missing_videos=sorted({query.video_id for query in queries.queries} - position.keys()),
        missing=missing,
        scoring=scoring,
        model=store.model,
        sampling=store.sampling,
        examples=_examples(queries, present, ranking, videos, examples),
        moments=_moments(queries, targets, present, ranking, videos, scoring, cutoffs) if moments else None,
        normalisation=normalisation,
        too_short=AGGREGATES[aggregate].too_short(np.diff(videos.offsets)),
        sweep=[
            SweepEntry(
                each.scoring,
                _recall(_counted(found, failures, len(videos.video_ids)), cutoffs, len(videos.video_ids)),
            )
            for each, found in zip(wanted[1:], swept, strict=True)
        ],
    )


def _rank(
    queries: np.ndarray,
    targets: np.ndarray,
    videos: SuperImageTable,
    wanted: list[Wanted],
    normalisation: Normalisation,
    device: str | None,
) -> list[Ranking]:
    """One ranking for each scoring that is wanted."""
    if normalisation.name == "none":
        return rank_videos(queries, targets, videos.vectors, videos.offsets, wanted, device=device)
    (only,) = wanted
    return [rank_normalised(queries, targets, videos.vectors, videos.offsets, only, normalisation, device=device)]


def _counted(ranking: Ranking, failures: int, candidates: int) -> np.ndarray:
    """int64 [Q]: the ranks, and those of queries that count as failures."""
    return np.append(ranking.ranks, np.full(failures, candidates + 1))


def _recall(ranks: np.ndarray, cutoffs: list[int], candidates: int) -> dict[int, float]:
    """R@K in percent by K."""
    return {k: 100 * int((ranks <= min(k, candidates)).sum()) / len(ranks) for k in cutoffs}


def _moments(
    queries: QueryTable,
    targets: np.ndarray,
    present: np.ndarray,
    ranking: Ranking,
    videos: SuperImageTable,
    scoring: Scoring,
    cutoffs: list[int],
) -> MomentEvaluation | None:
    best = np.full((len(targets), ranking.videos.shape[1]), -1)
    best[present] = ranking.videos
    return evaluate_moments(queries, targets, videos, scoring, best=best, topk=cutoffs)


def _choose_queries(table: QueryTable, wanted: list[Query], source: str, store: Store) -> QueryTable:
    """The wanted queries with their stored vectors, found by video and text."""
    rows = {(query.video_id, query.text): row for row, query in enumerate(table.queries)}
    lost = [query for query in wanted if (query.video_id, query.text) not in rows]
    if lost:
        raise GridClipError(
            f"{len(lost):,} of {len(wanted):,} captions of {source} are not in the store {store.path} "
            f"(first: {lost[0].text[:60]!r} of video {lost[0].video_id}): run gridclip embed-text with "
            "this file"
        )
    return QueryTable(wanted, table.vectors[[rows[query.video_id, query.text] for query in wanted]])


def _choose_videos(table: SuperImageTable, wanted: set[str], source: str, store: Store) -> SuperImageTable:
    kept = [number for number, video_id in enumerate(table.video_ids) if video_id in wanted]
    if not kept:
        raise GridClipError(
            f"none of the {len(table.video_ids):,} videos in the store {store.path} is named in {source}"
        )
    if len(kept) == len(table.video_ids):
        return table
    sizes = np.diff(table.offsets)[kept]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.repeat(table.offsets[kept] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return SuperImageTable(
        [table.video_ids[number] for number in kept],
        offsets,
        table.vectors[rows],
        table.start_s[rows],
        table.end_s[rows],
    )


def _examples(
    queries: QueryTable, present: np.ndarray, ranking: Ranking, videos: SuperImageTable, count: int
) -> list[Example]:
    if count < 1:
        return []
    chosen = np.unique(np.linspace(0, len(present) - 1, count).astype(int))
    return [
        Example(
            queries.queries[present[number]],
            int(ranking.ranks[number]),
            [
                (videos.video_ids[video], float(score))
                for video, score in zip(
                    ranking.videos[number, :EXAMPLE_VIDEOS], ranking.scores[number, :EXAMPLE_VIDEOS], strict=True
                )
            ],
        )
        for number in chosen
    ]
