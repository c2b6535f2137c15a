"""Embeddings of a set in, one row of figures for every way to score them out: recall, moments, intervals, cost.

Every aggregate of this version takes part, every grid size and every level that was embedded: what the product learns
appears here by its name.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from ..dali_pipes.sampling import Sampling
from ..engine import choices
from ..engine.moments.intervals import Comparison, Interval, bootstrap, compare
from ..engine.moments.metrics import TrueMoments, first_iou
from ..engine.moments.ranking import moments_of_best, rank_own_moments
from ..engine.moments.recut import recut_best, recut_own
from ..engine.refinement.choice import Coarse
from ..engine.refinement.looking import Request
from ..engine.refinement.ranking import refine_ranking
from ..engine.refinement.score import Frames
from ..engine.scoring.normalisation import Normalisation, rank_normalised
from ..engine.scoring.retrieval import Ranking, Wanted, rank_videos
from ..engine.scoring.scoring import Scoring
from ..engine.store.copies import View
from .moments_embeddings import FPS, LEVELS, Embedded

FRAMES = ("super", 1)  # of `Embedded.tables`: everything at grid size 1
TEMPERATURES = (1.0, 0.3, 0.1, 0.03)
TOPK = choices.TOPK
# Of the two coarsest grids: scorings, and how many of each query's best videos are looked at again.
REFINED_GRIDS = (3, 4)
REFINED = ((Scoring("max"), 10), (Scoring("max"), 20), (Scoring("windows"), 20))
NORMALISED = (Scoring("softmax", 0.1), Scoring("max"))  # those that every normalisation is tried with
ENOUGH_IOU = 0.5
REFERENCE = "2x2, super, softmax, temperature 1"  # what the procedure does


@dataclasses.dataclass(frozen=True)
class Setting:
    """A way to rank videos and to find the moment.

    Attributes:
        grid_size: cells per row of the super images that went through the encoder.
        level: "super": a row is a super image; "cell": a frame.
        scoring: of the rows of a video.
        normalise: of choices.NORMALISATIONS, what is done against hubs.
        refine: how many of the best videos are looked at again, frame by frame; 0: none.
    """

    grid_size: int
    level: str
    scoring: Scoring
    normalise: str = choices.NORMALISATION
    refine: int = 0

    @property
    def name(self) -> str:
        name = f"{self.grid_size}x{self.grid_size}, {self.level}, {self.scoring}"
        if self.refine:
            return f"{name}, refine {self.refine}"
        return name if self.normalise == choices.NORMALISATION else f"{name}, {self.normalise}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a setting reaches, query by query.

    Attributes:
        setting: what was measured.
        ranks: int64 [Q], of each query's own video.
        own_iou: float64 [Q], of the best moment of the own video.
        corpus_iou: float64 [Q], of the best moment of the best video; 0 where that is another video.
        passes: super images that went through the encoder, and frames that were looked at again, each once.
        seconds: to rank and to find the moments.
        looked_at: frames that were looked at again, a query; what is looked at for several counts for each.
    """

    setting: Setting
    ranks: np.ndarray
    own_iou: np.ndarray
    corpus_iou: np.ndarray
    passes: int
    seconds: float
    looked_at: float = 0.0

    @property
    def recall(self) -> dict[int, float]:
        """R@K of videos in percent."""
        return {k: 100 * float((self.ranks <= k).mean()) for k in TOPK}

    @property
    def sum_recall(self) -> float:
        """SumR."""
        return sum(self.recall.values())

    @property
    def first(self) -> np.ndarray:
        """float64 [Q]: 100 where the own video is the best one."""
        return np.where(self.ranks == 1, 100.0, 0.0)

    @property
    def found(self) -> np.ndarray:
        """float64 [Q]: 100 where the best moment of all videos is the right one (VCMR R@1 at IoU 0.5)."""
        return np.where(self.corpus_iou >= ENOUGH_IOU, 100.0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dump; intervals are 95%."""
        return {
            "name": self.setting.name,
            "grid_size": self.setting.grid_size,
            "level": self.setting.level,
            "aggregate": self.setting.scoring.aggregate,
            "temperature": self.setting.scoring.temperature,
            "normalise": self.setting.normalise,
            "refine": self.setting.refine,
            **{f"R@{k}": round(value, 2) for k, value in self.recall.items()},
            "R@1_interval": _rounded(bootstrap(self.first)),
            "SumR": round(self.sum_recall, 2),
            "vcmr_R@1_iou_0.5": round(float(self.found.mean()), 2),
            "vcmr_R@1_iou_0.5_interval": _rounded(bootstrap(self.found)),
            "miou": round(100 * float(self.own_iou.mean()), 2),
            "miou_interval": _rounded(bootstrap(100 * self.own_iou)),
            "encoder_passes": self.passes,
            "frames_per_query": round(self.looked_at, 1),
            "seconds": round(self.seconds, 2),
        }


def settings(embedded: Embedded) -> Iterator[Setting]:
    """All of them, the cheapest grid size first."""
    by_cost = sorted(embedded.tables, key=lambda table: (-table[1], LEVELS.index(table[0])))
    for level, grid in by_cost:
        for aggregate in choices.AGGREGATES:
            temperatures = TEMPERATURES if aggregate == "softmax" else (choices.TEMPERATURE,)
            for temperature in temperatures:
                yield Setting(grid, level, Scoring(aggregate, temperature))
        for normalise in choices.NORMALISATIONS:
            if normalise != choices.NORMALISATION:
                yield from (Setting(grid, level, scoring, normalise) for scoring in NORMALISED)
        if grid in REFINED_GRIDS and FRAMES in embedded.tables:
            yield from (Setting(grid, level, scoring, refine=count) for scoring, count in REFINED)


def measure_setting(setting: Setting, embedded: Embedded) -> Measured:
    """Ranks all videos for every query, and finds the best moment in its own video and in all of them."""
    if setting.refine:
        return _measure_refined(setting, embedded)
    videos = embedded.tables[setting.level, setting.grid_size]
    vectors, targets, scoring = embedded.queries.vectors, embedded.targets, setting.scoring
    true = _true_moments(embedded)
    begun = time.monotonic()
    ranking = _rank(setting, embedded)
    own, _ = rank_own_moments(vectors, targets, videos, scoring, depth=1)
    best = moments_of_best(vectors, ranking.videos, videos, scoring)
    return Measured(
        setting,
        ranking.ranks,
        first_iou(own, true),
        first_iou(best, true),
        embedded.passes[setting.grid_size],
        time.monotonic() - begun,
    )


def _measure_refined(setting: Setting, embedded: Embedded) -> Measured:
    """The same with the best videos looked at again, through what `evaluate` does; frames are those of grid size 1."""
    videos, fine = embedded.tables[setting.level, setting.grid_size], embedded.tables[FRAMES]
    vectors, targets, scoring = embedded.queries.vectors, embedded.targets, setting.scoring
    position = {video_id: number for number, video_id in enumerate(fine.video_ids)}
    passed = np.zeros(len(fine.vectors), bool)

    def look(wanted: Mapping[str, Request]) -> dict[str, Frames]:
        found = {}
        for video_id, each in wanted.items():
            first, end = fine.offsets[position[video_id] :][:2].tolist()
            positions = each.positions[each.positions < end - first]
            rows = first + positions
            passed[rows] = True
            spans = np.stack([fine.start_s[rows], fine.end_s[rows]], axis=1)
            found[video_id] = Frames(positions, fine.vectors[rows], spans, end - first)
        return found

    begun = time.monotonic()
    (coarse,) = rank_videos(
        vectors, targets, videos.vectors, videos.offsets, [Wanted(scoring, top=max(setting.refine, TOPK[-1]))]
    )
    layout = Coarse(
        View(cast(choices.Level, setting.level), setting.grid_size), Sampling(fps=FPS, grid_size=setting.grid_size)
    )
    ranking, cuts = refine_ranking(
        look, vectors, targets, videos, coarse, scoring, layout, count=setting.refine, limit=1
    )
    rows = np.arange(len(targets))
    own, own_scores = rank_own_moments(vectors, targets, videos, scoring, depth=1)
    own, _ = recut_own(rows, videos.video_ids, own, own_scores, cuts, depth=1)
    best = moments_of_best(vectors, ranking.videos[:, :1], videos, scoring)
    best = recut_best(rows, videos.video_ids, best, cuts)
    seconds, true = time.monotonic() - begun, _true_moments(embedded)
    passes = embedded.passes[setting.grid_size] + int(passed.sum())
    looked_at = sum(len(cut.looked_at_s) for cut in cuts.values()) / len(targets)
    return Measured(setting, ranking.ranks, first_iou(own, true), first_iou(best, true), passes, seconds, looked_at)


def _rank(setting: Setting, embedded: Embedded) -> Ranking:
    """Ranks, and the best video of every query."""
    videos, wanted = embedded.tables[setting.level, setting.grid_size], Wanted(setting.scoring, top=1)
    inputs = embedded.queries.vectors, embedded.targets, videos.vectors, videos.offsets
    if setting.normalise == choices.NORMALISATION:
        return rank_videos(*inputs, [wanted])[0]
    bank = embedded.bank if setting.normalise == "qb-norm" else None
    return rank_normalised(*inputs, wanted, Normalisation(setting.normalise, bank))


def measure_all(embedded: Embedded, *, say: Callable[[str], None]) -> list[Measured]:
    """Every setting, with a line of the table each."""
    say(HEADER)
    rows = []
    for setting in settings(embedded):
        rows.append(measure_setting(setting, embedded))
        say(line(rows[-1]))
    return rows


HEADER = (
    f"{'':50}"
    + "".join(f"{f'R@{k}':>8}" for k in TOPK)
    + f"{'SumR':>8}{'R@1 95%':>14}{'VCMR':>8}{'mIoU':>8}{'passes':>9}"
)


def line(measured: Measured) -> str:
    """One row of the table in plain text."""
    interval = bootstrap(measured.first)
    cells = "".join(f"{value:8.1f}" for value in (*measured.recall.values(), measured.sum_recall))
    cells += f"{f'{interval.low:.1f} to {interval.high:.1f}':>14}"
    cells += f"{measured.found.mean():8.1f}{100 * measured.own_iou.mean():8.1f}{measured.passes:9,}"
    return f"{measured.setting.name:50}{cells}"


def best_settings(rows: list[Measured]) -> dict[str, Setting]:
    """What wins on a set: by SumR of videos, by VCMR of moments, and by SumR for each grid size and level."""
    chosen = {
        "videos": max(rows, key=lambda row: row.sum_recall).setting,
        "moments": max(rows, key=lambda row: float(row.found.mean())).setting,
    }
    for level, grid in dict.fromkeys((row.setting.level, row.setting.grid_size) for row in rows):
        own = [row for row in rows if (row.setting.level, row.setting.grid_size) == (level, grid)]
        alone, refined = ([row for row in own if bool(row.setting.refine) == looks] for looks in (False, True))
        chosen[f"videos, {grid}x{grid}, {level}"] = max(alone, key=lambda row: row.sum_recall).setting
        if refined:
            chosen[f"refined, {grid}x{grid} {level}"] = max(refined, key=lambda row: row.sum_recall).setting
    return chosen


def against_reference(row: Measured, rows: list[Measured]) -> dict[str, Comparison] | None:
    """R@1 and VCMR R@1 of the reference and of `row`, paired by query; None where the reference was not measured."""
    reference = next((each for each in rows if each.setting.name == REFERENCE), None)
    if reference is None:
        return None
    return {
        "R@1": compare(reference.first, row.first),
        "VCMR R@1": compare(reference.found, row.found),
    }


def _true_moments(embedded: Embedded) -> TrueMoments:
    spans = np.array([(query.start_s, query.end_s) for query in embedded.queries.queries], np.float64)
    return TrueMoments(embedded.targets, np.arange(len(spans)), spans)


def _rounded(interval: Interval) -> list[float]:
    return [round(interval.low, 2), round(interval.high, 2)]
