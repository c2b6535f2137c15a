"""Videos in, what `--sampling keyframes` gains and costs out: speed, how far frames move, recall on the demo's videos.

    python -m gridclip.benchmarks.keyframes                      the short generated set and the demo's videos
    python -m gridclip.benchmarks.keyframes --videos FOLDER      the user's own files, too
    python -m gridclip.benchmarks.keyframes --long               the whole generated matrix, more keyframe distances

Decoding is pinned to one core. Before anything is timed, every candidate's frames are compared with those of a plain
decode of the whole file, bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from ..dali_pipes.bitstream.facts import CLOSED, OPEN
from ..dali_pipes.contract import VideoError
from ..dali_pipes.cpu import super_images
from ..dali_pipes.cpu.decoding import to_rgb
from ..dali_pipes.cpu.reading import open_reading
from ..dali_pipes.packets import scan
from ..dali_pipes.packets.pruning import plan_segments
from ..dali_pipes.sampling import Sampling
from ..engine import choices
from . import corpus, keyframes_recall, measure

PACKAGES = ("av", "numpy", "onnxruntime", "torch")
MAX_SHIFTS_S = (1.0, choices.MAX_SHIFT_S, 4.0)
TIMED_DEMO_VIDEOS = 20
EXACT = "exact"


def candidates(max_shifts_s: Sequence[float]) -> dict[str, float | None]:
    """`max_shift_s` of each way to sample, by name."""
    return {EXACT: None, **{f"max shift {shift_s:g} s": shift_s for shift_s in max_shifts_s}}


def measured(
    name: str, paths: Sequence[pathlib.Path], *, fps: float, max_shifts_s: Sequence[float], repetitions: int, timed: int
) -> dict[str, Any]:
    """One entry of the result: all of `paths` together.

    Args:
        name: of the entry.
        paths: videos.
        fps: wanted frames per second.
        max_shifts_s: of the candidates beside exact sampling.
        repetitions: of every candidate, interleaved.
        timed: so many of the videos, the first ones, are decoded; shifts are those of all.
    """
    ways = candidates(max_shifts_s)
    for path in paths[:timed]:
        check_frames(path, fps, ways)
    work = {way: functools.partial(_decode, paths[:timed], fps, shift_s) for way, shift_s in ways.items()}
    with _one_core():
        seconds = measure.interleaved(work, repetitions=repetitions)
    medians = measure.medians(seconds)
    entry: dict[str, Any] = {
        "name": name,
        "videos": len(paths),
        "timed_videos": len(paths[:timed]),
        **_structure(paths),
        "median_s": medians,
        "seconds": seconds,
        "times_as_fast": {way: round(medians[EXACT] / medians[way], 3) for way in ways if way != EXACT},
        "shifts": {way: shifts(paths, fps, shift_s) for way, shift_s in ways.items()},
    }
    gains = ", ".join(
        f"{way} {gain:.2f} ({entry['shifts'][way]['moved_share']:.0%} moved)"
        for way, gain in entry["times_as_fast"].items()
    )
    print(f"{name}: a keyframe in {entry['seconds_per_keyframe']:.1f} s; times as fast as exact: {gains}", flush=True)
    return entry


def check_frames(path: pathlib.Path, fps: float, ways: dict[str, float | None]) -> None:
    """Raises AssertionError where a frame is not that of a plain decode at the index that it is said to have."""
    indices = {}
    for way, shift_s in ways.items():
        with open_reading(path, Sampling(fps=fps, max_shift_s=shift_s)) as reading:
            indices[way] = reading.wanted.tolist()
    due = {index for chosen in indices.values() for index in chosen}
    expected = _plain_decode(path, due)
    for way, shift_s in ways.items():
        frames = super_images.frames(path, fps, max_shift_s=shift_s)
        for index, frame in zip(indices[way], frames, strict=True):
            if not np.array_equal(frame, expected[index]):
                raise AssertionError(f"{path.name}, {way}: frame {index} differs")


def _plain_decode(path: pathlib.Path, due: set[int]) -> dict[int, np.ndarray]:
    reformatter = VideoReformatter()
    found = {}
    with scan.open_video(path) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            if index in due:
                found[index] = to_rgb(frame, reformatter)
                if len(found) == len(due):
                    break
    return found


def _decode(paths: Sequence[pathlib.Path], fps: float, max_shift_s: float | None) -> None:
    for path in paths:
        for _ in super_images.frames(path, fps, max_shift_s=max_shift_s):
            pass


def shifts(paths: Sequence[pathlib.Path], fps: float, max_shift_s: float | None) -> dict[str, float | int]:
    """How many wanted frames move and how far: seconds are those of the frames that move, in either direction."""
    moved_s: list[np.ndarray] = []
    wanted = repeated = packets = 0
    for path in paths:
        with open_reading(path, Sampling(fps=fps, max_shift_s=max_shift_s)) as reading:
            times_s, taken, planned = reading.table.times_s, reading.wanted, reading.planned
            moved_s.append(np.abs(times_s[taken] - times_s[planned])[taken != planned])
            wanted += len(taken)
            repeated += int((np.diff(taken) == 0).sum())
            packets += sum(len(segment.packets) for segment in plan_segments(reading.table, taken, cells=4))
    distances_s = np.concatenate(moved_s)
    summary: dict[str, float | int] = {
        "wanted_frames": wanted,
        "packets_decoded": packets,
        "moved_share": round(len(distances_s) / wanted, 4),
        "repeated_share": round(repeated / wanted, 4),
    }
    if len(distances_s):
        median_s, p95_s = np.percentile(distances_s, [50, 95]).tolist()
        summary |= {"mean_s": float(distances_s.mean()), "median_s": median_s, "p95_s": p95_s}
        summary["max_s"] = float(distances_s.max())
    return {name: round(value, 4) for name, value in summary.items()}


def _structure(paths: Sequence[pathlib.Path]) -> dict[str, float | int]:
    duration_s, keyframes, packets, prunable = 0.0, 0, 0, 0
    for path in paths:
        with scan.open_video(path) as (container, stream):
            summary, table, _ = scan.scan(container, stream)
        duration_s += summary.duration_s
        packets += len(table.facts)
        keyframes += int(np.count_nonzero(table.facts[table.shown] & (CLOSED | OPEN)))
        prunable += table.prunable and table.ordered
    return {
        "packets": packets,
        "seconds_of_video": round(duration_s, 2),
        "seconds_per_keyframe": round(duration_s / max(1, keyframes), 3),
        "videos_with_known_keyframes": prunable,
    }


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def run_files(
    kind: str, paths: Sequence[pathlib.Path], *, left_out: dict[str, str], **options: Any
) -> list[dict[str, Any]]:
    """An entry per file; one that cannot be read goes to `left_out`, with the reason."""
    entries = []
    for path in paths:
        try:
            entries.append({"set": kind, **measured(path.name, [path], timed=1, **options)})
        except VideoError as error:
            left_out[path.name] = str(error)
            print(f"{path.name}: left out: {error}", flush=True)
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of videos beside the generated ones")
    parser.add_argument("--long", action="store_true", help="the whole matrix, and more keyframe distances for recall")
    parser.add_argument("--demo-videos", type=int, default=100, help="videos of which recall is measured; 0: none")
    parser.add_argument("--fps", type=float, default=0.5)
    parser.add_argument("--max-shifts", type=float, nargs="+", default=MAX_SHIFTS_S, help="seconds; 2 is always added")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "keyframes.json")
    args = parser.parse_args()
    max_shifts_s = sorted({choices.MAX_SHIFT_S, *args.max_shifts})  # the README tells of the default
    options = {"fps": args.fps, "max_shifts_s": max_shifts_s, "repetitions": args.repetitions}
    left_out: dict[str, str] = {}
    clips = corpus.LONG if args.long else corpus.SHORT
    generated = [corpus.make(clip, args.work_dir / "videos") for clip in clips]
    entries = run_files("generated", generated, left_out=left_out, **options)
    if args.videos:
        own = sorted(path for path in args.videos.iterdir() if path.is_file())
        entries += run_files("real files", own, left_out=left_out, **options)
    recall: dict[str, Any] = {}
    reason = keyframes_recall.why_not() if args.demo_videos else "not asked for"
    if reason:
        left_out["recall"] = reason
        print(f"recall: left out: {reason}", flush=True)
    else:
        for demo in keyframes_recall.corpora(args.work_dir, args.demo_videos, long=args.long):
            timed = {"timed": TIMED_DEMO_VIDEOS, **options}
            entries.append({"set": "demo", **measured(demo.name, demo.videos, **timed)})
            recall[demo.name] = keyframes_recall.measured(demo, candidates(max_shifts_s), args.fps, args.work_dir)
    settings = {"fps": args.fps, "default_max_shift_s": choices.MAX_SHIFT_S, "repetitions": args.repetitions}
    results = {"decode": entries, "recall": recall, "left_out": left_out}
    measure.write(args.json, packages=PACKAGES, settings={**settings, "cores_used_to_decode": 1}, results=results)


if __name__ == "__main__":
    main()
