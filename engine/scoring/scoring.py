"""The name of an aggregate and a temperature in, checked, one value out: how the super images of a video make a score.

Apart from the kernels (retrieval.py), so that a search for one sentence need not wait for torch to be imported.
"""

from __future__ import annotations

import dataclasses
import math

from .. import choices


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How the super images of a video become one score.

    Args:
        aggregate: a name of AGGREGATES: "softmax" (weights by similarity to the query), "mean" (equal weights), "max"
            (the best one), "windows" (the best mean of neighbours) or "tf-prvr" (the best interval between changes).
        temperature: of the softmax, > 0; small values look at the best super images only, tiny ones are its limit: the
            best one, or the mean of several that are equally good.

    Raises:
        ValueError: a value is out of range.
    """

    aggregate: str = choices.AGGREGATE
    temperature: float = choices.TEMPERATURE

    def __post_init__(self) -> None:
        if self.aggregate not in choices.AGGREGATES:
            from .aggregates import AGGREGATES  # imports torch

            if self.aggregate not in AGGREGATES:
                raise ValueError(f"aggregate ({self.aggregate!r}) must be one of {', '.join(AGGREGATES)}")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature ({self.temperature}) must be a finite number > 0")

    def __str__(self) -> str:
        """What a table of results says."""
        from .aggregates import AGGREGATES  # imports torch

        return AGGREGATES[self.aggregate].describe(self.temperature)
