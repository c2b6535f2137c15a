"""Named candidates in, medians and ratios out as JSON: how every benchmark here measures and reports."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping

RESULTS = pathlib.Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """What the figures depend on: processor, cores this process may use, memory, load, Python."""
    model = platform.processor()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package, or "not installed"."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def interleaved(candidates: Mapping[str, Callable[[], object]], *, repetitions: int) -> dict[str, list[float]]:
    """Wall seconds of every repetition of every candidate.

    They take turns, so that a busy minute hits all of them alike, in an order shuffled anew each round (and the same in
    every run), so that none always finds the caches that the same neighbour left behind.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    order = random.Random(0)
    for _ in range(repetitions):
        order.shuffle(names)
        for name in names:
            start = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median of each candidate's repetitions, seconds."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean of ratios."""
    return statistics.geometric_mean(ratios)


def significant(value: float) -> float:
    """Four significant digits: the others are noise."""
    return float(f"{value:.4g}")


def write(path: pathlib.Path, *, packages: Iterable[str], settings: Mapping[str, object], results: object) -> None:
    """Writes one result file: command, machine, versions, settings, results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    program = sys.argv[0]
    if not program.startswith("gridclip "):  # run as a module: its path says nothing elsewhere
        program = f"python -m gridclip.benchmarks.{pathlib.Path(program).stem}"
    report = {
        "command": " ".join([program, *map(shlex.quote, sys.argv[1:])]),
        "machine": machine(),
        "versions": versions(packages),
        "settings": dict(settings),
        "results": results,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
