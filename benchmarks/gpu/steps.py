"""A step's name in; what it does, and how long it may take on each device, out: the one table of the battery."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from gridclip import GridClipError

from .checks import Check
from .plans import Device, Size, Work


@dataclasses.dataclass(frozen=True)
class Step:
    """One part of the battery, run in a process of its own.

    Attributes:
        key: what the user types.
        title: for people.
        module: of this package, imported by the step's own process only.
        function: of the module; yields checks as it finds them.
        limits_s: seconds that it may take; what it has found by then counts.
    """

    key: str
    title: str
    module: str
    function: str
    limits_s: Mapping[tuple[Device, Size], float]

    def run(self, work: Work) -> Iterator[Check]:
        """Does it, here."""
        module = importlib.import_module(f".{self.module}", __package__)
        run: Callable[[Work], Iterator[Check]] = getattr(module, self.function)
        return run(work)


def _step(key: str, title: str, place: str, full_s: float, quick_s: float) -> Step:
    """A step with its limits on a card; without one, whose machine may be anything, the limits are there for hangs."""
    module, function = place.split(":")
    limits_s: dict[tuple[Device, Size], float] = {
        ("cuda", "full"): full_s,
        ("cuda", "quick"): quick_s,
        ("cpu", "full"): 600.0,
        ("cpu", "quick"): 180.0,
    }
    return Step(key, title, module, function, limits_s)


# In the order of worth: a lease may end any minute. On a card the limits add up to 20 minutes, quick to 5.
STEPS = (
    _step("0", "what is there", "probe:run", 45, 25),
    _step("D", "the encoder, against fp32 on the CPU", "encoder:run", 180, 50),
    _step("A", "every decoded frame, against PyAV", "decoding:run", 200, 50),
    _step("E1", "rates: decoding", "decode_rates:run", 270, 50),
    _step("E2", "rates: encoding", "encode_rates:run", 130, 30),
    _step("E3", "rates: JPEG folders", "job_rates:run_images", 80, 15),
    _step("E4", "rates: end to end", "job_rates:run_videos", 80, 20),
    _step("B", "sizes in turns", "decoder_cache:run", 50, 20),
    _step("C", "colours, against the CPU path", "colours:run", 35, 10),
    _step("F", "a mixed folder with damaged files, a kill, --resume", "mixed_folder:run", 90, 20),
    _step("G", "ranks, against float64", "ranking:run", 40, 10),
)


def choose(words: Iterable[str]) -> list[Step]:
    """The steps that a user names, in the order of STEPS; E is all of E1 to E4.

    Raises:
        GridClipError: there is no such step.
    """
    words = [word.strip().upper() for word in words if word.strip()]
    for word in words:
        if not any(step.key.startswith(word) for step in STEPS):
            raise GridClipError(
                f"--steps {word}: expected some of {', '.join(step.key for step in STEPS)}, or E for E1 to E4"
            )
    return [step for step in STEPS if not words or any(step.key.startswith(word) for word in words)]
