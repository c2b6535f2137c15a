"""A number of short clips in, processor milliseconds of a clip out: what opening costs where there is little to decode.

    python -m gridclip.benchmarks.clips                       300 clips of 1 to 3 seconds
    python -m gridclip.benchmarks.clips --clips 10000

A dozen clips are encoded; the others are further names of the same files, for what is in them does not matter to what
opening costs. Time is the processor's, in all threads of this process: other jobs of the machine change it little, and
a reader gains nothing by threads. The readers take turns at every clip, on one core.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pathlib
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import wanted_frames

from . import corpus, measure, same_frames
from .corpus import Clip
from .decode import PACKAGES, one_core
from .decode_peers import READERS, Reader
from .floor import FLOOR, floor

NAMES = ("gridclip", "gridclip --decoder decord", "decord", "torchcodec approximate", "OpenCV", "PyAV")
CLIPS = [
    Clip(codec, 480, gop_s=2, b_frames=b_frames, duration_s=duration_s)
    for codec, b_frames in (("libx264", 3), ("libx264", 0), ("libx265", 4), ("libvpx-vp9", 0))
    for duration_s in (1, 2, 3)
]


def make(count: int, folder: pathlib.Path, clips: Sequence[Clip] = CLIPS) -> list[pathlib.Path]:
    """`count` files in `folder`, hard links to the clips, each of which is as often among them as any other."""
    encoded = [corpus.make(clip, folder) for clip in clips]
    paths = []
    for number, path in zip(range(count), itertools.cycle(encoded)):
        paths.append(folder / "clips" / f"{number:06d}{path.suffix}")
        paths[-1].parent.mkdir(exist_ok=True)
        paths[-1].unlink(missing_ok=True)
        os.link(path, paths[-1])
    return paths


def run(
    paths: Sequence[pathlib.Path],
    *,
    distinct: int,
    fps: float = 1.0,
    readers: Mapping[str, Reader] | None = None,
    target: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Times every reader on every clip once and writes the result to `target`.

    Args:
        paths: the clips; clip i holds the same as clip i + distinct.
        distinct: clips that differ; on these it is checked that a reader returns the wanted frames.
        fps: wanted frames per second.
        readers: by name; NAMES unless given.
        target: a JSON file.

    Returns:
        `clips`, `clip_ms` (median and mean of each reader and the floor), `ratio_to_peer` (each peer's mean as a
        multiple of GridCLIP's), `times_floor` of the means, `not_compared` (readers and why: they cannot decode one of
        the clips, or return other frames of it).
    """
    readers = {name: READERS[name] for name in NAMES} if readers is None else readers
    with one_core():
        left_out: dict[str, str] = {}
        for path in paths[:distinct]:
            readers, reasons = _checked(path, fps, readers)
            left_out = reasons | left_out
        seconds = _timed(paths, fps, readers)
    means = {name: 1e3 * statistics.fmean(values) for name, values in seconds.items()}
    ours = means["gridclip"]
    results = {
        "clips": len(paths),
        "clip_ms": {
            name: {
                "median": measure.significant(1e3 * statistics.median(values)),
                "mean": measure.significant(means[name]),
            }
            for name, values in seconds.items()
        },
        "ratio_to_peer": {
            name: round(mean / ours, 3)
            for name, mean in means.items()
            if "gridclip" not in name and name != FLOOR and name not in left_out
        },
        "times_floor": {name: round(mean / means[FLOOR], 3) for name, mean in means.items() if name != FLOOR},
        "not_compared": left_out,
    }
    if target is not None:
        settings = {"fps": fps, "distinct": distinct, "clock": "processor time of the process, one core"}
        measure.write(target, packages=PACKAGES, settings=settings, results=results)
    return results


def _checked(path: pathlib.Path, fps: float, readers: Mapping[str, Reader]) -> tuple[dict[str, Reader], dict[str, str]]:
    """The readers that decode a clip, and why some are not compared: see `same_frames.usable`."""
    summary = scan.summarise(path)
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
    calls, left_out = same_frames.usable(path, fps, wanted, readers)
    return {name: readers[name] for name in calls}, left_out


def _timed(paths: Sequence[pathlib.Path], fps: float, readers: Mapping[str, Reader]) -> dict[str, list[float]]:
    """Processor seconds of every reader and of the floor on every clip."""
    seconds: dict[str, list[float]] = {name: [] for name in [*readers, FLOOR]}
    order = random.Random(0)
    for path in paths:
        with floor(path, fps) as decode_only:
            calls: dict[str, Callable[[], object]] = {FLOOR: decode_only}
            calls |= {name: functools.partial(reader, path, fps) for name, reader in readers.items()}
            turns = list(calls.items())
            order.shuffle(turns)
            for name, call in turns:
                start = time.process_time()
                call()
                seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=300, help="how many")
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for the clips")
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "clips.json")
    args = parser.parse_args()
    paths = make(args.clips, args.work_dir / "videos")
    results = run(paths, distinct=len(CLIPS), fps=args.fps, target=args.json)
    for name, spent in results["clip_ms"].items():
        ratio = results["ratio_to_peer"].get(name)
        beside = f", {ratio:.2f} times gridclip's" if ratio else ""
        print(f"{name}: {spent['mean']:.4g} ms of processor time a clip (median {spent['median']:.4g}){beside}")
    for name, reason in results["not_compared"].items():
        print(f"{name}: {reason}")


if __name__ == "__main__":
    main()
