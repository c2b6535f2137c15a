"""Videos in, a table of decode speed out: GridCLIP's pruned decoders beside what a user would pick instead.

    python -m gridclip.benchmarks.decode                      the short generated set
    python -m gridclip.benchmarks.decode --videos FOLDER      the user's own files
    python -m gridclip.benchmarks.decode --long               the whole matrix

Every reader is pinned to one core and returns the same frames; that is checked before it is timed.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import statistics
from collections.abc import Sequence

import numpy as np
from gridclip.dali_pipes import streams
from gridclip.dali_pipes.sampling import wanted_frames

from . import corpus, measure
from .decode_peers import READERS, Reader, packets_decoded, pruning_seconds, thumbnails, thumbnails_around

PACKAGES = ("av", "decord", "torchcodec", "opencv-python-headless", "numpy")
# A returned frame must be as near to the wanted frame as to any of this many before and after it, but for this slack.
NEIGHBOURS = 8
SAME_FRAME_LEVELS = 0.3


def run(
    paths: Sequence[pathlib.Path],
    *,
    fps: float = 0.5,
    repetitions: int = 5,
    readers: dict[str, Reader] = READERS,
    target: pathlib.Path | None = None,
) -> list[dict[str, object]]:
    """Times every reader on every file on one core, and writes the result to `target`.

    Returns:
        One entry a file: frames, packets decoded of all, seconds of each reader, why others were left out, and the
        ratio of the best peer's median to GridCLIP's.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        results = [_one_file(path, fps, repetitions, readers) for path in paths]
    finally:
        os.sched_setaffinity(0, cores)
    if target is not None:
        settings = {"fps": fps, "repetitions": repetitions, "cores_used": 1, "frame_size": [446, 336]}
        measure.write(target, packages=PACKAGES, settings=settings, results=results)
    return results


def _one_file(path: pathlib.Path, fps: float, repetitions: int, readers: dict[str, Reader]) -> dict[str, object]:
    summary = streams.inspect(path)
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
    references = thumbnails_around(path, wanted, NEIGHBOURS)
    usable, left_out = {}, {}
    for name, reader in readers.items():
        try:
            reason = _other_frames(reader(path, fps), references, wanted)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            left_out[name] = f"cannot read it: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
            continue
        usable[name] = functools.partial(reader, path, fps)
        if reason:
            left_out[name] = reason
    seconds = measure.interleaved(usable, repetitions=repetitions)
    medians = measure.medians(seconds)
    ours = medians["gridclip"]
    peers = {name: value for name, value in medians.items() if "gridclip" not in name and name not in left_out}
    decoded, packets = packets_decoded(path, fps)
    pruning_s = statistics.median(pruning_seconds(path, fps) for _ in range(max(5, repetitions)))
    entry: dict[str, object] = {
        "video": path.name,
        "wanted_frames": len(wanted),
        "packets_decoded": decoded,
        "packets": packets,
        "pruning_s": pruning_s,
        "pruning_to_decoding": round(pruning_s / (ours - pruning_s), 4),
        "frames_per_second": {name: round(len(wanted) / value, 2) for name, value in medians.items()},
        "median_s": medians,
        "seconds": seconds,
        "not_compared": left_out,
        "ratio_to_peer": {name: round(value / ours, 3) for name, value in peers.items()},
        "ratio_to_best_peer": round(min(peers.values()) / ours, 3) if peers else None,
    }
    ratios = "  ".join(f"{name} {value / ours:.2f}" for name, value in medians.items() if name != "gridclip")
    spent = f"{ours:.3f} s (pruning {pruning_s:.4f})"
    print(f"{path.name}: {decoded}/{packets} packets, {spent}; times slower: {ratios}", flush=True)
    for name, reason in left_out.items():
        print(f"  {name}: {reason}", flush=True)
    return entry


def _other_frames(frames: np.ndarray, references: dict[int, np.ndarray], wanted: np.ndarray) -> str:
    """Why these are not the wanted frames; empty where each is nearest to the wanted one among its neighbours."""
    if len(frames) != len(wanted):
        return f"returns {len(frames)} frames instead of {len(wanted)}"
    wrong = []
    for index, thumbnail in zip(wanted.tolist(), thumbnails(frames), strict=True):
        near = [other for other in range(index - NEIGHBOURS, index + NEIGHBOURS + 1) if other in references]
        distances = {other: float(np.abs(references[other] - thumbnail).mean()) for other in near}
        nearest = min(near, key=distances.__getitem__)
        if distances[index] > distances[nearest] + SAME_FRAME_LEVELS:
            wrong.append(f"{nearest} instead of {index}")
    return f"{len(wrong)} of {len(wanted)} frames are others, e.g. {wrong[0]}" if wrong else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of videos instead of the generated ones")
    parser.add_argument("--long", action="store_true", help="the whole generated matrix")
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--fps", type=float, default=0.5)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "decode.json")
    args = parser.parse_args()
    if args.videos:
        paths = sorted(path for path in args.videos.iterdir() if path.is_file())
    else:
        paths = [corpus.make(clip, args.work_dir / "videos") for clip in (corpus.LONG if args.long else corpus.SHORT)]
    results = run(paths, fps=args.fps, repetitions=args.repetitions, target=args.json)
    ratios = [float(str(entry["ratio_to_best_peer"])) for entry in results if entry["ratio_to_best_peer"]]
    if ratios:
        print(f"ratio to the best peer: geometric mean {measure.geometric_mean(ratios):.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
