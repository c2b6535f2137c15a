"""What a kind of file must offer to be fuzzed, and what a case may end in."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import random
import re
from typing import Protocol


class Outcome(enum.StrEnum):
    """How a case ended. From DIFFERENT on, each one is a defect."""

    REFUSED = "refused"  # a GridClipError, which is a sentence
    IDENTICAL = "identical"  # accepted, and equal to an independent reading
    ACCEPTED = "accepted"  # accepted where no independent reading exists (a flipped bit in a weight is no error)
    KNOWN = "known"  # a library ends the process, which nothing in Python can catch; see KNOWN_DEATHS
    DIFFERENT = "different"  # accepted, and not what the file holds; or an undamaged file refused
    DEATH = "death"
    HANG = "hang"
    TRACEBACK = "traceback"
    GROWTH = "growth"  # took more memory than any such file needs


# Lance reads through Arrow's C stream, and a panic there aborts: some damaged data files of a store end the process.
KNOWN_DEATHS = re.compile(r"panicked at \S*/arrow-array-[\d.]+/src/ffi_stream\.rs")

DEFECTS = (Outcome.DIFFERENT, Outcome.DEATH, Outcome.HANG, Outcome.TRACEBACK, Outcome.GROWTH)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The end of one case: how, and what there is to say."""

    outcome: Outcome
    detail: str = ""


class Kind(Protocol):
    """A kind of file. Made anew in every process, so it may keep what it has read."""

    def write_seeds(self, folder: pathlib.Path) -> None:
        """Writes the undamaged files, once a run; the same ones every time."""

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        """Writes the input of case `number` into the empty folder `case`; the first numbers are undamaged seeds.

        Returns:
            What was done to which seed.
        """

    def judge(self, case: pathlib.Path) -> Verdict:
        """Gives the input to the product; a GridClipError that it raises is a refusal, any other a traceback."""


def different(detail: str) -> Verdict:
    """The product accepted what it should not have, or read it wrong."""
    return Verdict(Outcome.DIFFERENT, detail)
