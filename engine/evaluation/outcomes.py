"""What became of every query of an evaluation in, a compact part of its JSON out; and back, to compare evaluations.

One column a fact, one entry a query: percentages and their intervals can be computed again from these, at any K.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from ... import GridClipError

DIGEST_LENGTH = 12  # hex digits of a text's SHA-256: two of 17,505 captions agree by chance once in 10^6 files
PER_QUERY = "per_query"  # the part's name in the JSON of an evaluation
TASKS = ("svmr", "vcmr")

# Which query it is, in any store and file: video, digest of the text, and how often both came before in the same list.
Identity = tuple[str, str, int]


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What became of Q queries.

    Attributes:
        video_ids: of each query's own video.
        digests: of each query's text, see `digest`.
        ranks: int64 [Q], the rank of its own video from 1; 0 where that has no embeddings; -1 where videos were
            not ranked.
        own_iou: float64 [Q], IoU of the first moment in the own video, 0 to 1; NaN where moments were not measured.
        places: by task ("svmr", "vcmr") and IoU threshold, int64 [Q]: the place from 1 of the first predicted moment
            that reaches the threshold; 0 where none does; -1 where moments were not measured.
    """

    video_ids: list[str]
    digests: list[str]
    ranks: np.ndarray
    own_iou: np.ndarray
    places: dict[str, dict[float, np.ndarray]]

    @property
    def ranked(self) -> bool:
        """Whether videos were ranked."""
        return bool((self.ranks >= 0).all())

    @property
    def identities(self) -> list[Identity]:
        """Which queries these are; the same text of the same video counts up from 0."""
        seen: collections.Counter[tuple[str, str]] = collections.Counter()
        found = []
        for pair in zip(self.video_ids, self.digests, strict=True):
            found.append((*pair, seen[pair]))
            seen[pair] += 1
        return found

    def take(self, rows: np.ndarray) -> Outcomes:
        """Some of the queries, by position or mask."""
        chosen = np.arange(len(self.video_ids))[rows]
        return Outcomes(
            [self.video_ids[row] for row in chosen],
            [self.digests[row] for row in chosen],
            self.ranks[chosen],
            self.own_iou[chosen],
            {task: {iou: column[chosen] for iou, column in table.items()} for task, table in self.places.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """Columns ready for json.dump; null for what there is none of, IoU to four digits."""
        content: dict[str, Any] = {"video_id": self.video_ids, "text": self.digests}
        if self.ranked:
            content["rank"] = [rank or None for rank in self.ranks.tolist()]
        if self.places:
            content["own_iou"] = [None if np.isnan(iou) else round(iou, 4) for iou in self.own_iou.tolist()]
            for task, table in self.places.items():
                content[task] = {
                    f"{iou:g}": [None if place < 0 else place for place in column.tolist()]
                    for iou, column in table.items()
                }
        return content


def hits(places: np.ndarray, k: int) -> np.ndarray:
    """float64 [Q], percent: 100 where the place (a rank, or that of a moment) lies in 1 to k, else 0. R@K is the mean.

    Args:
        places: int64 [Q], from 1; 0 where there is none.
        k: of R@K.
    """
    return 100.0 * ((places >= 1) & (places <= k))


def sum_of_hits(places: np.ndarray, cutoffs: collections.abc.Iterable[int]) -> np.ndarray:
    """float64 [Q]: the values of which SumR, the sum of R@K over several K, is the mean."""
    total = np.zeros(len(places))
    for k in cutoffs:
        total += hits(places, k)
    return total


def digest(text: str) -> str:
    """The first hex digits of the SHA-256 of a query's text: says whether two are the same, at a tenth of the size."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]


def read_outcomes(content: Any, source: str) -> Outcomes:
    """The outcomes in the JSON of an evaluation.

    Args:
        content: the parsed file.
        source: its name, for messages.

    Raises:
        GridClipError: it is no evaluation, or one without outcomes of its queries, or they are damaged.
    """
    if not isinstance(content, dict) or not isinstance(content.get(PER_QUERY), dict):
        raise GridClipError(
            f"{source} does not say what became of each query: expected what `gridclip evaluate` of this version "
            "writes as JSON; run it again"
        )
    columns = content[PER_QUERY]
    try:
        video_ids, digests = list(map(str, columns["video_id"])), list(map(str, columns["text"]))
        count = len(video_ids)
        own_iou = np.array([np.nan if iou is None else iou for iou in columns.get("own_iou", [None] * count)], float)
        outcomes = Outcomes(
            video_ids,
            digests,
            _whole_numbers(columns["rank"], 0) if "rank" in columns else np.full(count, -1),
            own_iou,
            {
                task: {float(iou): _whole_numbers(column, -1) for iou, column in columns[task].items()}
                for task in TASKS
                if task in columns
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise GridClipError(f"{source}: {PER_QUERY} is damaged: {type(error).__name__} {error}") from error
    lengths = {count, len(digests), len(outcomes.ranks), len(own_iou)}
    lengths |= {len(column) for table in outcomes.places.values() for column in table.values()}
    if lengths != {count} or not count:
        raise GridClipError(f"{source}: the columns of {PER_QUERY} have lengths {sorted(lengths)}, expected one, >= 1")
    return outcomes


def _whole_numbers(values: collections.abc.Iterable[int | None], missing: int) -> np.ndarray:
    return np.array([missing if value is None else value for value in values], np.int64)


def as_text(content: dict[str, Any]) -> str:
    """The JSON of an evaluation as text: indented, but every column of the outcomes on a line of its own."""
    rest = json.dumps({name: value for name, value in content.items() if name != PER_QUERY}, indent=2)
    if PER_QUERY not in content:
        return f"{rest}\n"
    lines = [f'    "{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in content[PER_QUERY].items()]
    columns = ",\n".join(lines)
    return f'{rest[:-2]},\n  "{PER_QUERY}": {{\n{columns}\n  }}\n}}\n'
