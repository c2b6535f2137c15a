"""Videos and sampling rates in, how many times as fast GridCLIP is at each rate out, and where pruning stops paying.

    python -m gridclip.benchmarks.sweep                      generated: with and without B-frames, moving and fixed
    python -m gridclip.benchmarks.sweep --videos FOLDER      the user's own files
    python -m gridclip.benchmarks.sweep --long               the generated ones in 1080p, too

Every reader is pinned to one core and returns the same frames; that is checked at every rate before it is timed.
"""

from __future__ import annotations

import argparse
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import wanted_frames

from . import corpus, decode, measure, same_frames
from .decode_peers import READERS, Reader, packets_decoded

RATES_FPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
COMPARED = ("gridclip", "decord", "torchcodec approximate", "PyAV")
BEST = "best peer"
PACKAGES = ("av", "decord", "torchcodec", "numpy")


def run(
    paths: Sequence[pathlib.Path],
    *,
    rates_fps: Sequence[float] = RATES_FPS,
    repetitions: int = 3,
    readers: Mapping[str, Reader] | None = None,
    target: pathlib.Path | None = None,
) -> list[dict[str, Any]]:
    """Times every reader on every file at every rate on one core, and writes the result to `target`.

    Returns:
        One entry a file: an entry of `decode.speeds` for each rate, and at which rate each peer becomes as fast.
    """
    readers = {name: READERS[name] for name in COMPARED} if readers is None else readers
    with decode.one_core():
        results = [_one_file(path, sorted(rates_fps), repetitions, readers) for path in paths]
    if target is not None:
        settings = {"rates_fps": list(rates_fps), "repetitions": repetitions, "cores_used": 1, "frame_size": [446, 336]}
        measure.write(target, packages=PACKAGES, settings=settings, results=results)
    return results


def crossover_fps(rates_fps: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The rate at which the ratio falls to 1 and stays there, interpolated between two rates in the logarithms of both.

    Ratios near 1 at low rates (a GOP without B-frames that is decoded in full, a single wanted frame) do not count.

    Args:
        rates_fps: ascending.
        ratios: of a peer's time to GridCLIP's at each rate.

    Returns:
        None where the ratio is above 1 at the highest rate; 0 where it is never above 1.
    """
    if all(ratio <= 1 for ratio in ratios):
        return 0.0
    if ratios[-1] > 1:
        return None
    last = max(number for number, ratio in enumerate(ratios) if ratio > 1)
    share = math.log(ratios[last]) / (math.log(ratios[last]) - math.log(ratios[last + 1]))
    return rates_fps[last] * (rates_fps[last + 1] / rates_fps[last]) ** share


def crossovers(rates: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """`crossover_fps` of each peer that returned the wanted frames at every rate, and of the best peer at each rate."""
    rates_fps = [entry["fps"] for entry in rates]
    ratios: list[dict[str, float]] = [entry["ratio_to_peer"] for entry in rates]
    peers = [peer for peer in ratios[0] if all(peer in of_rate for of_rate in ratios)]
    found = {peer: crossover_fps(rates_fps, [of_rate[peer] for of_rate in ratios]) for peer in peers}
    if all(ratios):
        found[BEST] = crossover_fps(rates_fps, [min(of_rate.values()) for of_rate in ratios])
    return {peer: rate and round(rate, 3) for peer, rate in found.items()}


def _one_file(
    path: pathlib.Path, rates_fps: Sequence[float], repetitions: int, readers: Mapping[str, Reader]
) -> dict[str, Any]:
    summary = scan.summarise(path)
    wanted_at = {fps: wanted_frames(summary.frame_count, summary.avg_fps, fps=fps) for fps in rates_fps}
    references = same_frames.thumbnails_around(path, np.unique(np.concatenate(list(wanted_at.values()))))
    rates = []
    for fps, wanted in wanted_at.items():
        calls, left_out = same_frames.usable(path, fps, wanted, readers, references)
        seconds = measure.interleaved(calls, repetitions=repetitions)
        decoded, packets = packets_decoded(path, fps)
        entry = decode.speeds(
            seconds, wanted=len(wanted), duration_s=summary.duration_s, processes=1, not_compared=left_out
        )
        facts = {"fps": fps, "wanted_frames": len(wanted), "packets_decoded": decoded, "packets": packets}
        rates.append({**facts, "not_compared": left_out, **entry})
        shares = "  ".join(f"{peer} {ratio:.2f}" for peer, ratio in entry["ratio_to_peer"].items())
        print(f"{path.name}, {fps:g} fps: {decoded}/{packets} packets; times as fast as {shares}", flush=True)
        for name, reason in left_out.items():
            print(f"  {name}: {reason}", flush=True)
    crossings = crossovers(rates)
    print(f"{path.name}: pruning stops paying at (fps) {crossings}", flush=True)
    return {
        "video": path.name,
        "duration_s": round(summary.duration_s, 3),
        "crossover_fps": crossings,
        "rates": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of videos instead of the generated ones")
    parser.add_argument("--long", action="store_true", help="the generated files in 1080p, too")
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--fps", type=float, nargs="+", default=RATES_FPS, help="the sampling rates")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "sweep.json")
    args = parser.parse_args()
    if args.videos:
        paths = decode.readable(args.videos)
    else:
        clips = corpus.SWEEP_LONG if args.long else corpus.SWEEP
        paths = [corpus.make(clip, args.work_dir / "videos") for clip in clips]
    run(paths, rates_fps=args.fps, repetitions=args.repetitions, target=args.json)


if __name__ == "__main__":
    main()
