"""Settings to try in, scorings out; and the recall of each in, a table of them out."""

from __future__ import annotations

import collections.abc
import dataclasses
from typing import Any

from ..scoring.scoring import Scoring

SETTINGS = ("temperature", "aggregate")


@dataclasses.dataclass(frozen=True)
class SweepEntry:
    """R@K in percent by K of one scoring."""

    scoring: Scoring
    recall: dict[int, float]

    @property
    def sum_recall(self) -> float:
        """SumR."""
        return sum(self.recall.values())

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dump."""
        return {
            "aggregate": self.scoring.aggregate,
            "temperature": self.scoring.temperature,
            **{f"R@{k}": value for k, value in self.recall.items()},
            "SumR": self.sum_recall,
        }


def scorings(base: Scoring, sweep: collections.abc.Mapping[str, collections.abc.Sequence[Any]]) -> list[Scoring]:
    """The base with one setting after the other replaced by each of its values, each scoring once, in their order.

    Args:
        sweep: values by the name of the setting, one of SETTINGS.

    Raises:
        ValueError: a setting or a value is not usable.
    """
    found: dict[Scoring, None] = {}
    for name, values in sweep.items():
        if name not in SETTINGS:
            raise ValueError(f"sweep ({name!r}) must be one of {', '.join(SETTINGS)}")
        found |= {dataclasses.replace(base, **{name: value}): None for value in values}
    return list(found)


def table(entries: collections.abc.Sequence[SweepEntry]) -> str:
    """One line an entry, in plain text."""
    names = [*(f"R@{k}" for k in entries[0].recall), "SumR"]
    labels = [str(entry.scoring) for entry in entries]
    width = max(map(len, ["sweep", *labels]))
    lines = ["sweep".ljust(width) + "".join(name.rjust(9) for name in names)]
    for label, entry in zip(labels, entries, strict=True):
        cells = [*entry.recall.values(), entry.sum_recall]
        lines.append(label.ljust(width) + "".join(f"{value:9.2f}" for value in cells))
    return "\n".join(lines)
