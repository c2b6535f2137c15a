"""Videos' unit vectors and queries in, one score for every video and query out: a table of the ways to aggregate.

To add one, write a subclass of `Aggregate`, put it into AGGREGATES and its name into choices.AGGREGATES; see
docs/recipes/aggregate.md.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import torch

# |s| <= 1, so that exp(s / t) squared lies within exp(+-2 / t): in float32's range as it is while t is at least this.
SAFE_TEMPERATURE = 0.05
# A float32 knows no positive number below this (but for subnormal ones): the softmax is at its limit long before.
SMALLEST_TEMPERATURE = float(torch.finfo(torch.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Group:
    """Videos of one length in a part.

    Attributes:
        first: the row of the part where they begin; they end at first + count * length.
        count: how many videos.
        length: rows of each video.
        factor: what softmax turns weights into norms with: G [count, L, L], or E^T [count, D, L] where that is smaller.
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
    """How the super images of a video become one score.

    Attributes:
        name: as users choose it.
    """

    name: ClassVar[str]

    def prepare(self, part: Part) -> Part:
        """What needs no query, done once for a part: rows may be replaced by others, groups get what scores need."""
        return part

    @abc.abstractmethod
    def scores(self, part: Part, queries: torch.Tensor, temperature: float) -> torch.Tensor:
        """The scores of a prepared part's videos, a dense operation on blocks of rows and queries.

        Args:
            part: from `prepare`.
            queries: float32 [D, q] of unit length.
            temperature: > 0; of the softmax.

        Returns:
            float32 [n, q], in the order of part.videos.
        """

    def describe(self, temperature: float) -> str:
        """What a table of results says."""
        return self.name


class Softmax(Aggregate):
    """Weights by similarity to the query, then the cosine of the query and the weighted sum.

    With s = E t and G = E E^T that is (w.s) / sqrt(w^T G w), w = exp(s / temperature): neither the weights' sum nor the
    D wide aggregate is needed.
    """

    name = "softmax"

    def prepare(self, part: Part) -> Part:
        """Adds what turns weights into norms."""
        return dataclasses.replace(part, groups=[_with_factor(group, part.vectors) for group in part.groups])

    def scores(self, part: Part, queries: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        similar = part.vectors @ queries  # [R, q]
        if temperature < SAFE_TEMPERATURE:
            weights = torch.cat([_shifted_weights(group.of(similar), temperature) for group in part.groups])
        else:
            weights = (similar / temperature).exp_() if temperature != 1 else similar.exp()
        products = similar.mul_(weights)
        return torch.cat([_cosines(group, products, weights) for group in part.groups])

    def describe(self, temperature: float) -> str:
        """Names the temperature, which is the softmax's alone."""
        return f"{self.name}, temperature {temperature:g}"


class Mean(Aggregate):
    """Equal weights: the cosine of the query and the mean of the unit vectors."""

    name = "mean"

    def prepare(self, part: Part) -> Part:
        """One row for each video: its mean, of unit length."""
        means = [torch.nn.functional.normalize(group.of(part.vectors).mean(1)) for group in part.groups]
        return dataclasses.replace(part, vectors=torch.cat(means))

    def scores(self, part: Part, queries: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        return part.vectors @ queries


class Max(Aggregate):
    """The best super image's cosine."""

    name = "max"

    def scores(self, part: Part, queries: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        similar = part.vectors @ queries
        return torch.cat([group.of(similar).amax(1) for group in part.groups])


AGGREGATES: dict[str, Aggregate] = {aggregate.name: aggregate for aggregate in (Softmax(), Mean(), Max())}


def _with_factor(group: Group, vectors: torch.Tensor) -> Group:
    if group.length == 1:
        return group
    own = group.of(vectors)
    factor = own.transpose(1, 2) if group.length > vectors.shape[1] else own @ own.transpose(1, 2)
    return dataclasses.replace(group, factor=factor)


def _shifted_weights(similar: torch.Tensor, temperature: float) -> torch.Tensor:
    """[count * L, q]: exp((s - max s) / temperature) of each video, which cannot overflow."""
    divisor = max(temperature, SMALLEST_TEMPERATURE)  # in float32 it must not become 0: 0 / 0 is no number
    return ((similar - similar.amax(1, keepdim=True)) / divisor).exp_().flatten(0, 1)


def _cosines(group: Group, products: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """float32 [count, q]: (w.s) / sqrt(w^T G w) from w * s and w, both [R, q]."""
    weight = group.of(weights)
    if group.factor is None:  # one super image: w s / w
        return group.of(products).squeeze(1) / weight.squeeze(1)
    spread = torch.bmm(group.factor, weight)
    other = weight if group.factor.shape[1] == group.length else spread
    norms = (spread * other).sum(1).clamp_(min=torch.finfo(torch.float32).tiny).sqrt_()
    # Rounding must not lift a video whose super images cancel each other out (norm about 0) above a perfect match.
    return group.of(products).sum(1).div_(norms).clamp_(-1, 1)
