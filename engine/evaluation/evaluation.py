"""A store in, recall out: how high each caption ranks its own video among all videos."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import ArgumentError, GridClipError
from .. import choices
from ..annotations.annotations import Query, load_annotations
from ..moments.evaluation import MomentEvaluation, depth, evaluate_moments
from ..moments.intervals import Interval, bootstrap
from ..moments.predictions import write_predictions
from ..moments.ranking import DEPTH
from ..moments.recut import Cuts
from ..scoring.aggregates import AGGREGATES
from ..scoring.normalisation import Normalisation, rank_normalised
from ..scoring.query_bank import load_query_bank
from ..scoring.retrieval import Ranking, Wanted, best_videos, rank_videos
from ..scoring.scoring import Scoring
from ..store.store import QueryTable, Store, SuperImageTable, View
from .outcomes import PER_QUERY, Outcomes, digest, hits, sum_of_hits
from .sweep import SweepEntry, scorings, table

if TYPE_CHECKING:
    from ..refinement.looking import Cost
    from ..refinement.refiner import Refining

SUPER_IMAGES = View("super", None)
EXAMPLE_ANSWERS = 5  # best videos of an example
TIE_RULE = "videos with equal scores (to within 1e-6) rank in the order of their ids"


@dataclasses.dataclass(frozen=True)
class Spot:
    """The super image of a video that is nearest to a query.

    Attributes:
        video_id: the video.
        number: which of its super images, from 0.
        start_s, end_s: what that stands for, in seconds; None where the store has no times.
        score: of the video, a cosine.
    """

    video_id: str
    number: int
    start_s: float | None
    end_s: float | None
    score: float


@dataclasses.dataclass(frozen=True)
class Example:
    """One query.

    Attributes:
        query: with its own video.
        rank: of that video.
        own: its best spot there.
        spots: of the best videos, best first.
    """

    query: Query
    rank: int
    own: Spot | None
    spots: list[Spot]

    @property
    def best(self) -> list[tuple[str, float]]:
        """The best videos, (video id, score), best first."""
        return [(spot.video_id, spot.score) for spot in self.spots]


@dataclasses.dataclass(frozen=True)
class Refinement:
    """What refinement won, and what it cost.

    Attributes:
        videos: how many of each query's best videos were looked at again.
        coarse_recall: R@K in percent without it, by K.
        coarse_passes: encoder passes that made the coarse embeddings.
        cost: of looking.
    """

    videos: int
    coarse_recall: dict[int, float]
    coarse_passes: int
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dump."""
        return {
            "videos": self.videos,
            "coarse_recall": {str(k): value for k, value in self.coarse_recall.items()},
            "coarse_sum_recall": sum(self.coarse_recall.values()),
            "coarse_passes": self.coarse_passes,
            **self.cost.to_json(),
        }

    def __str__(self) -> str:
        before = ", ".join(f"R@{k} {value:.2f}" for k, value in self.coarse_recall.items())
        return (
            f"refined the {self.videos:,} best videos of each query: {self.cost}\n"
            f"before: {before}, SumR {sum(self.coarse_recall.values()):.2f}, {self.coarse_passes:,} encoder passes"
        )


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
        super_images: embeddings of the candidates: super images, or cells.
        missing_queries: queries whose video has no embeddings.
        missing_videos: those videos, sorted.
        missing: what happened to these queries, "drop" or "count-as-failures".
        scoring: aggregate and temperature.
        model, sampling: the store's record.
        examples: the queries whose own videos rank worst, with their best videos, where asked for.
        moments: the moment metrics, where asked for and where queries have times.
        intervals: of R@K, by K, and `sum_interval` of SumR: 95%, over queries.
        evaluated: the evaluated queries; `outcomes`, what became of each, in this order; and `durations_s`,
            float64 [Q], of their own videos, NaN where unknown.
        view: the level and grid size of the embeddings.
        normalisation: what was done against hubs.
        too_short: candidates that are too short for the aggregate's definition: tf-prvr scores them by windows, too.
        sweep: the recall of other scorings, where asked for.
        refinement: where the best videos were looked at again: all figures are with it.
        super_image_recall: R@K in percent, by K, by the super images that the cells lie in, as the reference ranks;
            where no level was asked for.
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
    intervals: dict[int, Interval] = dataclasses.field(default_factory=dict)
    sum_interval: Interval | None = None
    evaluated: list[Query] = dataclasses.field(default_factory=list)
    outcomes: Outcomes | None = None
    view: View = SUPER_IMAGES
    normalisation: Normalisation = dataclasses.field(default_factory=Normalisation)
    too_short: int = 0
    sweep: list[SweepEntry] = dataclasses.field(default_factory=list)
    durations_s: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    refinement: Refinement | None = None
    super_image_recall: dict[int, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the examples, ready for json.dump; R@K under "recall", and, as older readers expect, "R@1"."""
        return {
            "recall": _by_text(self.recall),
            "sum_recall": self.sum_recall,
            "recall_intervals": {str(k): [each.low, each.high] for k, each in self.intervals.items()},
            "sum_recall_interval": None
            if self.sum_interval is None
            else [self.sum_interval.low, self.sum_interval.high],
            **{f"R@{k}": value for k, value in self.recall.items()},
            "SumR": self.sum_recall,
            "median_rank": self.median_rank,
            "mean_rank": self.mean_rank,
            "chance": {f"R@{k}": value for k, value in self.chance.items()},
            "queries": self.queries,
            "candidates": self.candidates,
            "super_images": self.super_images,
            "level": self.view.level,
            "grid_size": self.view.grid_size,
            "missing": self.missing,
            "missing_queries": self.missing_queries,
            "missing_videos": self.missing_videos,
            "aggregate": self.scoring.aggregate,
            "temperature": self.scoring.temperature,
            "too_short_videos": self.too_short,
            "normalise": self.normalisation.to_json(),
            "ties": TIE_RULE,
            **({} if self.super_image_recall is None else {"super_image_recall": _by_text(self.super_image_recall)}),
            "model": self.model,
            "sampling": self.sampling,
            **({} if self.moments is None else self.moments.to_json()),
            **({} if self.outcomes is None else {PER_QUERY: self.outcomes.to_json()}),
            **({} if self.refinement is None else {"refined": self.refinement.to_json()}),
            **({"sweep": [entry.to_json() for entry in self.sweep]} if self.sweep else {}),
        }

    def sum_over(self, cutoffs: collections.abc.Sequence[int]) -> float:
        """SumR over other K than those of `recall`, percent."""
        if self.outcomes is None:
            raise ValueError("there are no outcomes")
        return float(sum_of_hits(self.outcomes.ranks, cutoffs).mean())

    def write_predictions(self, path: str | os.PathLike[str]) -> None:
        """Writes the ranked moments in the format that the name asks for, see `moments.predictions`.

        Raises:
            GridClipError: moments were not measured, or the file cannot be written.
        """
        if self.moments is None:
            raise GridClipError("there are no moments to write: no query and its video have times, or `moments` is off")
        write_predictions(path, self.moments.timed, self.moments.predictions["svmr"], self.moments.predictions["vcmr"])

    def __str__(self) -> str:
        """A table in plain text."""
        names = [f"R@{k}" for k in self.recall] + ["SumR", "median rank", "mean rank"]
        values = [f"{value:.2f}" for value in self.recall.values()]
        values += [f"{self.sum_recall:.2f}", f"{self.median_rank:g}", f"{self.mean_rank:.1f}"]
        chance = [f"{value:.2f}" for value in self.chance.values()]
        middle = (self.candidates + 1) / 2
        chance += [f"{sum(self.chance.values()):.2f}", f"{middle:g}", f"{middle:.1f}"]
        rows = [("", names), ("store", values), *self._interval_rows(), ("chance", chance)]
        widths = [max(map(len, column)) for column in zip(*(cells for _, cells in rows), strict=True)]
        lines = [
            (label.ljust(9) + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))).rstrip()
            for label, cells in rows
        ]
        lines.append(
            f"{self.queries:,} queries, {self.candidates:,} videos, {self.super_images:,} {self.view} ({self.scoring})"
        )
        if self.super_image_recall is not None:
            shown = ", ".join(f"R@{k} {value:.2f}" for k, value in self.super_image_recall.items())
            lines.append(f"by the super images alone: {shown}, SumR {sum(self.super_image_recall.values()):.2f}")
        if self.normalisation.name != choices.NORMALISATION:
            lines.append(f"normalised: {self.normalisation}")
        if self.refinement is not None:
            lines += str(self.refinement).splitlines()
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

    def _interval_rows(self) -> list[tuple[str, list[str]]]:
        """Where recall lies with 95% confidence, as two rows of the table."""
        if self.sum_interval is None:
            return []
        known = [*self.intervals.values(), self.sum_interval]
        return [
            ("95% from", [*(f"{each.low:.2f}" for each in known), "", ""]),
            ("to", [*(f"{each.high:.2f}" for each in known), "", ""]),
        ]


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
    level: choices.Level | None = None,
    grid_size: int | None = None,
    sweep: collections.abc.Mapping[str, collections.abc.Sequence[Any]] | None = None,
    normalise: str = choices.NORMALISATION,
    query_bank: str | os.PathLike[str] | None = None,
    refine: Refining | None = None,
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
        examples: how many of the queries whose own videos rank worst to return with their best videos.
        moments: also measure moments, see `moments.evaluation`.
        level, grid_size: which of the store's embeddings, see `Store.read_super_images`. Where these are cells and no
            level is asked for, the recall by their super images is measured, too.
        sweep: also measure the recall with other values of "temperature" or "aggregate", in the same pass.
        normalise: what to do against hubs, see `normalisation`; not together with `sweep`.
        query_bank: a store or an npz, see `query_bank.load_query_bank`; for "qb-norm".
        refine: look at the best videos of each query again, see `refinement.ranking`; not with `sweep` or `normalise`.
        device: where to compute, by default CUDA if there is one.

    Raises:
        ValueError: an argument is out of range.
        GridClipError: the store holds no videos (of this level and grid size) or no queries, or vectors that are not
            finite, the annotation file is not usable or has captions that are not embedded, or no query has a video.
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
    if refine is not None and (others or normalise != "none"):
        other = "`sweep`" if others else f"`normalise={normalise!r}`"
        raise ArgumentError(f"`refine={refine.videos}` and {other} cannot be combined: evaluate each on its own")
    normalisation = Normalisation(normalise, None if query_bank is None else load_query_bank(query_bank))

    videos, queries = store.read_super_images(level, grid_size), store.read_queries()
    annotations = None if anno_path is None else load_annotations(anno_path)
    if annotations is not None:
        queries = _choose_queries(queries, annotations.queries, f"{anno_path}", store)

    def candidates_of(table: SuperImageTable) -> SuperImageTable:
        if annotations is None:
            return table
        return _choose_videos(table, set(annotations.video_ids), f"{anno_path}", store)

    videos = candidates_of(videos)

    position = {video_id: number for number, video_id in enumerate(videos.video_ids)}
    targets = np.array([position.get(query.video_id, -1) for query in queries.queries], np.int64)
    present = np.flatnonzero(targets >= 0)
    if not len(present):
        raise GridClipError(
            f"none of the {len(targets):,} queries has a video in the store {store.path}: the first is "
            f"of video {queries.queries[0].video_id}, the store's first video is {videos.video_ids[0]}"
        )
    top = max(depth(videos) if moments else 0, EXAMPLE_ANSWERS if examples > 0 else 0, refine.videos if refine else 0)
    wanted = [Wanted(scoring, top), *map(Wanted, others)]
    ranking, *swept = _rank(queries.vectors[present], targets[present], videos, wanted, normalisation, device)
    failures = len(targets) - len(present) if missing == "count-as-failures" else 0
    candidates = len(videos.video_ids)

    def recall_of(found: Ranking) -> dict[int, float]:
        return _recall(_counted(found, failures, candidates), cutoffs, candidates)

    super_image_recall = None
    if level is None and videos.level == "cell":
        supers = candidates_of(store.read_super_images("super", videos.grid_size))
        if supers.video_ids == videos.video_ids:  # as they are in every store that this version writes
            among = queries.vectors[present], targets[present], supers
            super_image_recall = recall_of(*_rank(*among, [Wanted(scoring)], normalisation, device))
    refinement, cuts = None, None
    if refine is not None:
        coarse_recall = recall_of(ranking)
        ranking, cuts, passes, cost = _refined(store, queries, targets, present, videos, ranking, scoring, refine)
        refinement = Refinement(refine.videos, coarse_recall, passes, cost)
    counted, recall = _counted(ranking, failures, candidates), recall_of(ranking)
    measured = _moments(queries, targets, present, ranking, videos, scoring, cutoffs, cuts) if moments else None
    kept = targets >= 0 if missing == "drop" else np.ones(len(targets), bool)
    rank_of = np.zeros(len(targets), np.int64)
    rank_of[present] = ranking.ranks
    outcomes = _outcomes(queries.queries, rank_of, measured).take(kept)
    return Evaluation(
        recall=recall,
        sum_recall=sum(recall.values()),
        median_rank=float(np.median(counted)),
        mean_rank=float(counted.mean()),
        chance={k: 100 * min(k, candidates) / candidates for k in cutoffs},
        queries=len(counted),
        candidates=candidates,
        super_images=len(videos.vectors),
        missing_queries=len(targets) - len(present),
        missing_videos=sorted({query.video_id for query in queries.queries} - position.keys()),
        missing=missing,
        scoring=scoring,
        model=store.model,
        sampling=store.sampling,
        examples=_examples(queries, present, ranking, videos, scoring, examples, device),
        moments=measured,
        normalisation=normalisation,
        too_short=AGGREGATES[aggregate].too_short(np.diff(videos.offsets)),
        sweep=[
            SweepEntry(
                each.scoring,
                recall_of(found),
            )
            for each, found in zip(wanted[1:], swept, strict=True)
        ],
        intervals={k: bootstrap(hits(outcomes.ranks, k)) for k in cutoffs},
        sum_interval=bootstrap(sum_of_hits(outcomes.ranks, cutoffs)),
        evaluated=[queries.queries[row] for row in np.flatnonzero(kept)],
        outcomes=outcomes,
        view=View(videos.level, videos.grid_size),
        durations_s=_durations_s(targets[kept], videos),
        refinement=refinement,
        super_image_recall=super_image_recall,
    )


def _by_text(recall: dict[int, float]) -> dict[str, float]:
    """The same for JSON."""
    return {str(k): value for k, value in recall.items()}


def _durations_s(targets: np.ndarray, videos: SuperImageTable) -> np.ndarray:
    """float64 [Q]: where each target video ends, seconds; NaN where that is unknown, or the target is -1."""
    ends = videos.end_s[videos.offsets[1:] - 1]
    return np.where(targets >= 0, ends[targets], np.nan)


def _outcomes(queries: list[Query], rank_of: np.ndarray, measured: MomentEvaluation | None) -> Outcomes:
    """Of all queries; `rank_of` is int64 [Q], 0 where the own video has no embeddings."""
    own_iou = np.full(len(queries), np.nan)
    places: dict[str, dict[float, np.ndarray]] = {}
    if measured is not None:
        own_iou[measured.rows] = measured.own_iou
        for task, table in measured.places.items():
            places[task] = {iou: np.full(len(queries), -1, np.int64) for iou in table}
            for iou, column in table.items():
                places[task][iou][measured.rows] = column
    return Outcomes(
        [query.video_id for query in queries], [digest(query.text) for query in queries], rank_of, own_iou, places
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


def _refined(
    store: Store,
    queries: QueryTable,
    targets: np.ndarray,
    present: np.ndarray,
    videos: SuperImageTable,
    ranking: Ranking,
    scoring: Scoring,
    refine: Refining,
) -> tuple[Ranking, Cuts, int, Cost]:
    """The ranking of the present queries refined, the cuts by row among all queries, coarse passes, and the cost."""
    from ..refinement.ranking import refine_ranking
    from ..refinement.refiner import Refiner

    refiner = Refiner(store, View(videos.level, videos.grid_size), refine)
    refined, cuts = refine_ranking(
        refiner.look,
        queries.vectors[present],
        targets[present],
        videos,
        ranking,
        scoring,
        refiner.coarse,
        count=refine.videos,
        limit=DEPTH,
    )
    by_row = {(int(present[query]), video_id): cut for (query, video_id), cut in cuts.items()}
    sizes = np.diff(videos.offsets)
    cells = (videos.grid_size or 1) ** 2 if videos.level == "cell" else 1
    return refined, by_row, int((-(-sizes // cells)).sum()), refiner.cost


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
    cuts: Cuts | None,
) -> MomentEvaluation | None:
    best = np.full((len(targets), ranking.videos.shape[1]), -1)
    best_scores = np.full(best.shape, -np.inf, np.float32)
    best[present], best_scores[present] = ranking.videos, ranking.scores
    return evaluate_moments(
        queries, targets, videos, scoring, best=best, best_scores=best_scores, topk=cutoffs, cuts=cuts
    )


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
    return dataclasses.replace(
        table,
        video_ids=[table.video_ids[number] for number in kept],
        offsets=offsets,
        vectors=table.vectors[rows],
        start_s=table.start_s[rows],
        end_s=table.end_s[rows],
    )


def _examples(
    queries: QueryTable,
    present: np.ndarray,
    ranking: Ranking,
    videos: SuperImageTable,
    scoring: Scoring,
    count: int,
    device: str | None,
) -> list[Example]:
    """The queries whose own video ranks worst, worst first; of equal ones, the first in the store."""
    if count < 1:
        return []
    chosen = np.argsort(-ranking.ranks, kind="stable")[:count]
    position = {video_id: number for number, video_id in enumerate(videos.video_ids)}
    examples = []
    for number in chosen:
        query, vector = queries.queries[present[number]], queries.vectors[present[number]]
        own = position[query.video_id]
        best = zip(ranking.videos[number, :EXAMPLE_ANSWERS], ranking.scores[number, :EXAMPLE_ANSWERS], strict=True)
        spots = [_spot(vector, int(video), videos, score) for video, score in best]
        own_spot = _spot(vector, own, videos, _score(vector, own, videos, scoring, device))
        examples.append(Example(query, int(ranking.ranks[number]), own_spot, spots))
    return examples


def _score(vector: np.ndarray, video: int, videos: SuperImageTable, scoring: Scoring, device: str | None) -> float:
    """Of one query and one video."""
    rows = videos.vectors[videos.rows_of(video)]
    scores, _ = best_videos(vector[None], rows, np.array([0, len(rows)]), scoring, top=1, device=device)
    return float(scores[0, 0])


def _spot(vector: np.ndarray, video: int, videos: SuperImageTable, score: float) -> Spot:
    first, last = int(videos.offsets[video]), int(videos.offsets[video + 1])
    nearest = first + int((videos.vectors[first:last].astype(np.float32) @ vector.astype(np.float32)).argmax())
    start_s, end_s = float(videos.start_s[nearest]), float(videos.end_s[nearest])
    if not (np.isfinite(start_s) and np.isfinite(end_s)):
        return Spot(videos.video_ids[video], nearest - first, None, None, float(score))
    return Spot(videos.video_ids[video], nearest - first, start_s, end_s, float(score))
