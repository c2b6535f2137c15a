"""Videos' unit vectors and queries in, one score for every video and query out: a table of the ways to aggregate.

To add one, write a subclass of `Aggregate`, put it into AGGREGATES and its name into choices.AGGREGATES; see
docs/recipes/aggregate.md.
"""

from __future__ import annotations

import dataclasses

import torch

from .aggregate import Aggregate, Group, Part
from .tf_prvr import TfPrvr
from .windows import Windows

# |s| <= 1, so that exp(s / t) squared lies within exp(+-2 / t): in float32's range as it is while t is at least this.
SAFE_TEMPERATURE = 0.05
# A float32 knows no positive number below this (but for subnormal ones): the softmax is at its limit long before.
SMALLEST_TEMPERATURE = float(torch.finfo(torch.float32).tiny)


class Softmax(Aggregate):
    """Weights by similarity to the query, then the cosine of the query and the weighted sum.

    With s = E t and G = E E^T that is (w.s) / sqrt(w^T G w), w = exp(s / temperature): neither the weights' sum nor the
    D wide aggregate is needed.
    """

    name = "softmax"

    def prepare(self, part: Part) -> Part:
        """Groups get what turns weights into norms: G [count, L, L], or E^T [count, D, L] where that is smaller."""
        return dataclasses.replace(part, groups=[_with_factor(group, part.vectors) for group in part.groups])

    def scores(self, part: Part, similar: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        if temperature < SAFE_TEMPERATURE:
            weights = torch.cat([_shifted_weights(group.of(similar), temperature) for group in part.groups])
        else:
            weights = (similar / temperature).exp_() if temperature != 1 else similar.exp()
        products = similar * weights
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

    def scores(self, part: Part, similar: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        return similar


class Max(Aggregate):
    """The best super image's cosine."""

    name = "max"

    def scores(self, part: Part, similar: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        return torch.cat([group.of(similar).amax(1) for group in part.groups])


AGGREGATES: dict[str, Aggregate] = {
    aggregate.name: aggregate for aggregate in (Softmax(), Mean(), Max(), Windows(), TfPrvr())
}


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
