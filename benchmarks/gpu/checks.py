"""What a step finds in, one line of the battery's table and of its JSON out: a verdict, a sentence, the figures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

logger = logging.getLogger(__name__)

Verdict = Literal["pass", "fail", "measured", "not possible"]


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        verdict: "measured": a figure without a floor, or one whose sizes are too small to hold it against its floor.
        told: one line for people.
        values: figures for the JSON, everything that `told` rests on.
        prediction: what was expected before, see `predictions.predict`; None where nothing was.
    """

    name: str
    verdict: Verdict
    told: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prediction: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As the JSON holds it; a check without a prediction has no such key."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


def judged(name: str, right: bool, told: str, /, **values: Any) -> Check:
    """A check that can fail."""
    return Check(name, "pass" if right else "fail", told, values)


def measured(name: str, told: str, /, **values: Any) -> Check:
    """A figure that nothing is held against."""
    return Check(name, "measured", told, values)


def guarded(name: str, found: Iterable[Check]) -> Iterator[Check]:
    """Checks as they are found; an error becomes a check that failed, and whoever asked goes on with the next ones."""
    try:
        yield from found
    except Exception as error:  # whatever a driver, a decoder or a runtime raises is the result
        logger.exception("%s", name)
        yield judged(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def not_possible(name: str, reason: str) -> Check:
    """What this machine, or this version, does not allow."""
    return Check(name, "not possible", reason)
