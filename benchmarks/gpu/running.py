"""A command that writes checks and a time limit in; the checks, and how it ended, out: a hang costs one step only."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .checks import Check, guarded
from .plans import PLACES, PLANS, Device, Size, Work
from .steps import STEPS, Step

TAIL_LINES = 12
END_LIMIT_S = 5.0
DONE = "done"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a step ended.

    Attributes:
        ended: DONE, or what stopped it.
        seconds: how long it took.
        checks: what it found, as JSON.
        log: the last lines that it printed, where it was stopped.
    """

    ended: str
    seconds: float
    checks: list[dict[str, Any]]
    log: list[str] = dataclasses.field(default_factory=list)


def run_step(step: Step, device: Device, size: Size, folder: pathlib.Path) -> Outcome:
    """Runs a step in a process of its own; what it prints goes to `<folder>/logs`."""
    command = [sys.executable, "-m", __name__, step.key, device, size, str(folder)]
    return run_command(command, step.limits_s[device, size], folder / "logs" / step.key)


def run_command(command: Sequence[str], limit_s: float, stem: pathlib.Path) -> Outcome:
    """Runs a command that is given the name of a file, as its last argument, to which it writes checks line by line.

    Args:
        command: without that argument.
        limit_s: after which it is killed, with all that it started.
        stem: of the names of its files: `.jsonl` for the checks, `.log` for what it prints.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    lines, log = stem.with_suffix(".jsonl"), stem.with_suffix(".log")
    lines.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("wb") as printed:
        process = subprocess.Popen(
            [*command, str(lines)],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            status = process.wait(limit_s)
            ended = (
                DONE
                if status == 0
                else f"crashed with signal {-status}"
                if status < 0
                else f"ended with status {status}"
            )
        except subprocess.TimeoutExpired:
            ended = f"was not done after {limit_s:g} s"
        finally:
            _kill(process)
    checks = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.exists() else []
    tail = [] if ended == DONE else log.read_text("utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return Outcome(ended, round(time.monotonic() - began, 1), checks, tail)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the process's session: what it started and left behind would keep the card from the next step."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_LIMIT_S)  # a process in the driver may not die at once


def write_checks(found: Iterator[Check], path: pathlib.Path) -> None:
    """Each check as a line, on the disk as soon as it is known; an error becomes the last one."""
    with path.open("a", encoding="utf-8") as file:
        for check in guarded("the rest of the step", found):
            file.write(json.dumps(check.to_json()) + "\n")
            file.flush()


def main(arguments: Sequence[str]) -> None:
    """One step, for `run_step`."""
    key, device, size, folder, lines = arguments
    step = next(step for step in STEPS if step.key == key)
    work = Work(PLACES[device], PLANS[device, size], pathlib.Path(folder))  # type: ignore[index]
    write_checks(step.run(work), pathlib.Path(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
