"""Anyone's predicted moments and an annotation file in, the field's moment metrics out; no store is needed."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
from typing import Any

import numpy as np

from ... import GridClipError
from .. import choices
from ..annotations.annotations import Query, load_annotations
from ..moments.evaluation import table_json, table_lines
from ..moments.intervals import Interval, bootstrap
from ..moments.metrics import (
    IOU_THRESHOLDS,
    RankedMoments,
    TrueMoments,
    first_iou,
    first_places,
    mean_average_precision,
    moment_recall,
)
from ..moments.predictions import QVHIGHLIGHTS, TASKS, ranked_moments, read_lists
from .outcomes import PER_QUERY, Outcomes, digest

Table = dict[float, dict[int, float]]  # percent by IoU threshold and K


@dataclasses.dataclass(frozen=True)
class PredictionEvaluation:
    """Moment metrics of a file of predictions; what it holds no predictions for is None.

    Attributes:
        svmr, vcmr: R@K in percent by IoU threshold and K, in the own video and in all videos.
        miou: percent, of the first moment in the own video, with its 95% interval.
        mean_ap: percent by IoU threshold, in the own video (QVHighlights).
        queries: of the annotation file with times, all of which count.
        without_predictions: those of them for which the file has none, which count as wrong.
        without_times: captions of the annotation file that have no times, left out.
        outcomes: what became of each of the queries.
    """

    svmr: Table | None
    vcmr: Table | None
    miou: Interval | None
    mean_ap: dict[float, float] | None
    queries: int
    without_predictions: int
    without_times: int
    outcomes: Outcomes

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dump, under the keys of `Evaluation.to_json`."""
        content: dict[str, Any] = {}
        for name, table in (("svmr", self.svmr), ("vcmr", self.vcmr)):
            if table is not None:
                content[name] = table_json(table)
        if self.miou is not None and self.mean_ap is not None:
            content |= {"miou": self.miou.mean, "miou_interval": [self.miou.low, self.miou.high]}
            content["map"] = {f"{iou:g}": value for iou, value in self.mean_ap.items()}
        return content | {
            "moment_queries": self.queries,
            "without_predictions": self.without_predictions,
            "without_times": self.without_times,
            PER_QUERY: self.outcomes.to_json(),
        }

    def __str__(self) -> str:
        """A table in plain text."""
        tables = {"own video": self.svmr, "all videos": self.vcmr}
        lines = table_lines({title: table for title, table in tables.items() if table is not None})
        if self.miou is not None and self.mean_ap is not None:
            lines.append(
                f"mIoU {self.miou.mean:.2f} (95%: {self.miou.low:.2f} to {self.miou.high:.2f}); "
                f"mAP {np.mean(list(self.mean_ap.values())):.2f}"
            )
        wrong = f", {self.without_predictions:,} without predictions, which count as wrong"
        left_out = f"; {self.without_times:,} captions without times left out" if self.without_times else ""
        lines.append(f"{self.queries:,} queries with times{wrong if self.without_predictions else ''}{left_out}")
        return "\n".join(lines)


def evaluate_predictions(
    path: str | os.PathLike[str],
    anno_path: str | os.PathLike[str],
    *,
    topk: collections.abc.Sequence[int] = choices.TOPK,
) -> PredictionEvaluation:
    """Moment metrics of predictions in TVRetrieval's or QVHighlights' format.

    Args:
        path: the predictions.
        anno_path: the annotation file with the true moments; its queries go by its own numbers ("desc_id", "qid"), or,
            in formats without any, by their position among its usable captions, from 0.
        topk: the K of R@K, each >= 1.

    Raises:
        ValueError: a K is less than 1.
        GridClipError: a file cannot be used, no caption has times, or none has predictions.
    """
    cutoffs = sorted(set(topk))
    annotations = load_annotations(anno_path)
    queries = [query for query in annotations.queries if query.moments]
    if not queries:
        raise GridClipError(f"no caption of {anno_path} has times: moments cannot be evaluated")
    lists = read_lists(path)
    names = [query.known_as for query in queries]
    predicted = {
        task: ranked_moments(path, held, names, annotations.video_ids)
        for task in TASKS
        if (held := lists.get(task, lists.get(QVHIGHLIGHTS) if task == "SVMR" else None)) is not None
    }
    if not predicted:
        raise GridClipError(f"{path} has predictions for {', '.join(sorted(lists))}, expected {' or '.join(TASKS)}")
    found = np.array([any(name in held for held in lists.values()) for name in names])
    if not found.any():
        raise GridClipError(
            f"{path} has no predictions for the queries of {anno_path}: the first is {names[0]!r} there, and "
            f"{next((name for held in lists.values() for name in held), 'none')!r} here"
        )
    return _evaluate(predicted, queries, annotations.video_ids, cutoffs, found, len(annotations.queries) - len(queries))


def _evaluate(
    predicted: dict[str, RankedMoments],
    queries: list[Query],
    video_ids: list[str],
    cutoffs: list[int],
    found: np.ndarray,
    without_times: int,
) -> PredictionEvaluation:
    numbers = {video_id: number for number, video_id in enumerate(video_ids)}
    own_videos = np.array([numbers[query.video_id] for query in queries], np.int64)
    true = TrueMoments.of(own_videos, [query.moments for query in queries])
    tables = {task: moment_recall(moments, true, topk=cutoffs).recall for task, moments in predicted.items()}
    own = predicted.get("SVMR")
    own_iou = None if own is None else first_iou(own, true)
    outcomes = Outcomes(
        [query.video_id for query in queries],
        [digest(query.text) for query in queries],
        np.full(len(queries), -1),
        np.full(len(queries), np.nan) if own_iou is None else own_iou,
        {
            task.lower(): dict(zip(IOU_THRESHOLDS, first_places(moments, true), strict=True))
            for task, moments in predicted.items()
        },
    )
    return PredictionEvaluation(
        svmr=tables.get("SVMR"),
        vcmr=tables.get("VCMR"),
        miou=None if own_iou is None else bootstrap(100 * own_iou),
        mean_ap=None if own is None else mean_average_precision(own, true),
        queries=len(queries),
        without_predictions=int((~found).sum()),
        without_times=without_times,
        outcomes=outcomes,
    )
