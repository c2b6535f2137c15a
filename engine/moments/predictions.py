"""Ranked moments out and in, in the official formats of TVRetrieval (one JSON) and QVHighlights (JSON lines).

Other programs' predictions can be evaluated with these, and ours with the benchmarks' own scripts.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from ... import GridClipError
from ..annotations.annotations import Query
from .metrics import RankedMoments

TASKS = ("VCMR", "SVMR")
QVHIGHLIGHTS, QVHIGHLIGHTS_SUFFIX = "QVHighlights", ".jsonl"

_Prediction = tuple[str, float, float, float]  # video, start, end, score
Lists = dict[int | str, list[_Prediction]]  # by query


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Ranked moments of Q queries with what a file of them needs besides.

    Attributes:
        moments: best first.
        scores: float32 [Q, K], falling along K, -inf where there is no moment.
        video_ids: names of the numbers in `moments.videos`.
    """

    moments: RankedMoments
    scores: np.ndarray
    video_ids: list[str]


def write_predictions(
    path: str | os.PathLike[str],
    queries: collections.abc.Sequence[Query],
    own: Predictions,
    ranked: Predictions,
) -> None:
    """Writes what the benchmarks' own programs read: QVHighlights' JSON lines where the name ends so, else TVR's JSON.

    Args:
        path: the file.
        queries: Q queries; they go by their official ids, or, without any, by their own.
        own: moments of each one's own video ("SVMR").
        ranked: moments of all videos ("VCMR").

    Raises:
        GridClipError: the file cannot be written.
    """
    file, names, texts = pathlib.Path(path), [query.known_as for query in queries], [query.text for query in queries]
    if file.suffix == QVHIGHLIGHTS_SUFFIX:
        text = to_qvhighlights(own.moments, own.scores, names, texts, own.video_ids)
    else:
        tasks = zip(TASKS, (ranked, own), strict=True)
        parts = [to_tvr(each.moments, each.scores, names, texts, each.video_ids, task) for task, each in tasks]
        text = json.dumps(parts[0] | parts[1]) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise GridClipError(f"cannot write the predictions {file}: {error.strerror}") from error


def to_tvr(
    predicted: RankedMoments,
    scores: np.ndarray,
    query_ids: collections.abc.Sequence[int | str],
    texts: collections.abc.Sequence[str],
    video_ids: collections.abc.Sequence[str],
    task: str = "VCMR",
) -> dict[str, Any]:
    """TVRetrieval's submission: {"video2idx": {video: number}, task: [{"desc_id", "desc", "predictions"}]}.

    A prediction is [video number, start, end, score], best first.

    Args:
        scores: float [Q, K], falling along K.
        query_ids, texts: of the Q queries.
        video_ids: names of the numbers in `predicted.videos`.
        task: "VCMR" or "SVMR".
    """
    if task not in TASKS:
        raise ValueError(f"task ({task!r}) must be one of {', '.join(TASKS)}")
    entries = []
    for row, (query_id, text) in enumerate(zip(query_ids, texts, strict=True)):
        there = np.flatnonzero(predicted.videos[row] >= 0)
        predictions = [
            [int(predicted.videos[row, k]), *predicted.spans[row, k].tolist(), float(scores[row, k])] for k in there
        ]
        entries.append({"desc_id": query_id, "desc": text, "predictions": predictions})
    return {"video2idx": {video_id: number for number, video_id in enumerate(video_ids)}, task: entries}


def to_qvhighlights(
    predicted: RankedMoments,
    scores: np.ndarray,
    query_ids: collections.abc.Sequence[int | str],
    texts: collections.abc.Sequence[str],
    video_ids: collections.abc.Sequence[str],
) -> str:
    """QVHighlights' submission, a line for each query with predictions.

    {"qid", "query", "vid", "pred_relevant_windows": [[start, end, score], ...]}, best first.

    Args:
        predicted: moments of each query's own video.
        scores, query_ids, texts, video_ids: as in `to_tvr`.
    """
    lines = []
    for row, (query_id, text) in enumerate(zip(query_ids, texts, strict=True)):
        there = np.flatnonzero(predicted.videos[row] >= 0)
        if not len(there):
            continue
        windows = [[*predicted.spans[row, k].tolist(), float(scores[row, k])] for k in there]
        video_id = video_ids[predicted.videos[row, there[0]]]
        record = {"qid": query_id, "query": text, "vid": video_id, "pred_relevant_windows": windows}
        lines.append(json.dumps(record) + "\n")
    return "".join(lines)


def read_predictions(
    path: str | os.PathLike[str],
    query_ids: collections.abc.Sequence[int | str],
    video_ids: collections.abc.Sequence[str],
    task: str = "VCMR",
) -> RankedMoments:
    """Reads either format, recognised by content, for the queries that are to be evaluated.

    Args:
        path: the file.
        query_ids: Q queries ("desc_id" or "qid"); one without predictions gets none, which counts as wrong.
        video_ids: videos by number; predictions of other videos keep their place in the list and are wrong.
        task: which list of a TVRetrieval file; a QVHighlights file has one, read whatever the task.

    Returns:
        Predictions in the order of their scores, ties in the order of the file; a video that is not in video_ids has
        the number len(video_ids).

    Raises:
        GridClipError: the file cannot be read, is of neither format, or an entry is not what the format says.
    """
    lists = read_lists(path)
    held = lists.get(task, lists.get(QVHIGHLIGHTS))
    if held is None:
        known = ", ".join(sorted(lists)) or "none"
        raise GridClipError(f"{path} has no predictions for {task}, only for: {known}")
    return ranked_moments(path, held, query_ids, video_ids)


def ranked_moments(
    path: str | os.PathLike[str],
    held: Lists,
    query_ids: collections.abc.Sequence[int | str],
    video_ids: collections.abc.Sequence[str],
) -> RankedMoments:
    """One of the lists of `read_lists` as ranked moments; arguments and errors as in `read_predictions`."""
    numbers = {video_id: number for number, video_id in enumerate(video_ids)}
    try:
        return _ranked([held.get(query_id, []) for query_id in query_ids], numbers)
    except ValueError as error:
        raise GridClipError(f"{path}: {error}") from error


def read_lists(path: str | os.PathLike[str]) -> dict[str, Lists]:
    """The predictions of a file by task and query: the tasks of a TVRetrieval file, or one under QVHIGHLIGHTS.

    Raises:
        GridClipError: the file cannot be read, is of neither format, or an entry is not what the format says.
    """
    file = pathlib.Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GridClipError(f"cannot read the predictions {file}: {error}") from error
    try:
        return _by_task(text)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise GridClipError(
            f"{file} holds no predictions in TVRetrieval's or QVHighlights' format: {type(error).__name__} {error}"
        ) from error


def _by_task(text: str) -> dict[str, Lists]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None  # several lines
    if isinstance(content, dict) and "video2idx" in content:
        names = {number: video_id for video_id, number in content["video2idx"].items()}
        return {task: _tvr_lists(names, content[task]) for task in content if task != "video2idx"}
    records = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not records:
        raise ValueError("it is empty")
    return {
        QVHIGHLIGHTS: {
            record["qid"]: [
                (record["vid"], float(start), float(end), float(score))
                for start, end, score in record["pred_relevant_windows"]
            ]
            for record in records
        }
    }


def _tvr_lists(names: dict[int, str], entries: list[dict[str, Any]]) -> Lists:
    return {
        entry["desc_id"]: [
            (names[number], float(start), float(end), float(score))
            for number, start, end, score in entry["predictions"]
        ]
        for entry in entries
    }


def _ranked(lists: list[list[_Prediction]], numbers: dict[str, int]) -> RankedMoments:
    longest = max(map(len, lists), default=0)
    videos = np.full((len(lists), longest), -1, np.int64)
    spans = np.zeros((len(lists), longest, 2))
    for row, predictions in enumerate(lists):
        best_first = sorted(predictions, key=lambda prediction: -prediction[3])
        for k, (video_id, start_s, end_s, _) in enumerate(best_first):
            videos[row, k] = numbers.get(video_id, len(numbers))
            spans[row, k] = start_s, end_s
    return RankedMoments(videos, spans)
