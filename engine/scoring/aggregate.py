"""The contract of an aggregate: videos of many lengths side by side in, one score for every video and query out.

A new way to aggregate is a subclass of `Aggregate` in a table, aggregates.AGGREGATES; see docs/recipes/aggregate.md.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import numpy as np
import torch

from .candidates import Candidates
from .peaks import Peaks


@dataclasses.dataclass(frozen=True)
class Group:
    """Videos of one length in a part.

    Attributes:
        first: the row of the part where they begin; they end at first + count * length.
        count: how many videos.
        length: rows of each video.
        factor: what the aggregate's scores need of these videos beside the rows, [count, ...]; its `prepare` says what.
    """

    first: int
    count: int
    length: int
    factor: torch.Tensor | None = None

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """This group's share of rows [R, q], as [count, L, q]."""
        return rows[self.first : self.first + self.count * self.length].view(self.count, self.length, -1)


@dataclasses.dataclass(frozen=True)
class Part:
    """Some videos, ordered by length.

    Attributes:
        videos: int64 [n], their positions among the candidates.
        vectors: float32 [R, D], rows that every query is multiplied with; at first the super images, of unit length.
        groups: videos of equal length, in the order of `videos` and of the rows.
    """

    videos: torch.Tensor
    vectors: torch.Tensor
    groups: list[Group]


class Aggregate(abc.ABC):
    """How the super images of a video become one score, and which of its moments can be the answer.

    Attributes:
        name: as users choose it.
    """

    name: ClassVar[str]

    def prepare(self, part: Part) -> Part:
        """What needs no query, done once for a part: rows may be replaced by others, groups get what scores need.

        The videos and their order stay. Aggregates that leave the rows as they are share one matrix product where
        several are evaluated at once.
        """
        return part

    @abc.abstractmethod
    def scores(self, part: Part, similar: torch.Tensor, temperature: float) -> torch.Tensor:
        """The scores of a prepared part's videos, a dense operation on blocks of rows and queries.

        Args:
            part: from `prepare`.
            similar: float32 [R, q], part.vectors times the queries, which are of unit length; others read it, too.
            temperature: > 0; of the softmax.

        Returns:
            float32 [n, q], in the order of part.videos.
        """

    def candidates(self, units: np.ndarray) -> Candidates:
        """The moments that can answer a query in one video, here the peaks of its similarity over time.

        Args:
            units: float32 [L, D], the video's embeddings in time order, of unit length.
        """
        return Peaks()

    def too_short(self, lengths: np.ndarray) -> int:
        """How many of the videos, of int64 [V] embeddings, are too short for the definition and scored otherwise."""
        return 0

    def describe(self, temperature: float) -> str:
        """What a table of results says."""
        return self.name
