"""Videos in, a table of decode speed out: GridCLIP's pruned decoders beside what a user would pick instead.

    python -m gridclip.benchmarks.decode                      the short generated set
    python -m gridclip.benchmarks.decode --videos FOLDER      the user's own files
    python -m gridclip.benchmarks.decode --long               the whole matrix

Every reader returns the same frames, on one thread; that is checked before it is timed. There are two settings: one
process on one core, and one process for every core, all of which decode the file at the same time, pinned to nothing,
as a job with many files would. On one core the floor takes its turns beside them: libavcodec alone, see `floor.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gridclip.dali_pipes.contract import VideoError
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import wanted_frames

from . import corpus, measure, same_frames
from .crew import Crew
from .decode_peers import Reader, packets_decoded, pruning_seconds, readers_here
from .floor import FLOOR, floor

VERDICT_PEERS = ("decord", "torchcodec approximate", "PyAV")
LEAST_S = 0.02  # files that take less say more of opening than of decoding
PACKAGES = ("av", "decord", "torchcodec", "opencv-python-headless", "spdl-io", "nvidia-dali-cuda130", "numpy")


# Peers that could not be brought to a newer version beside the others, and why.
NOT_NEWER = {
    "torchcodec": "the wheels of 0.14.0 to 0.17.0 need libnvrtc.so.13, which torch 2.13 for the CPU does not bring",
    "decord": "0.6.0 is its last release",
}


def run(
    paths: Sequence[pathlib.Path],
    *,
    fps: float = 0.5,
    repetitions: int = 3,
    processes: int | None = None,
    readers: Mapping[str, Reader] | None = None,
    target: pathlib.Path | None = None,
) -> list[dict[str, Any]]:
    """Times every reader on every file, on one core and on all, and writes the result to `target`.

    Args:
        paths: the videos.
        fps: wanted frames per second.
        repetitions: of each reader on each file in each setting.
        processes: of the setting with all cores; None is one for each core that this process may use.
        readers: by name; all that this machine may run unless given.
        target: a JSON file.

    Returns:
        One entry a file: frames, packets decoded of all, why readers were left out, `speeds` of one core and how many
        times the floor's time each reader takes there, and the speeds of all cores under `all_cores`.
    """
    readers = readers_here() if readers is None else readers
    with Crew(processes or len(os.sched_getaffinity(0))) as crew:
        _start_readers(crew, readers, paths, fps)
        results = [_one_file(path, fps, repetitions, readers, crew) for path in paths]
        settings = {"fps": fps, "repetitions": repetitions, "all_cores": len(crew), "frame_size": [446, 336]}
    if target is not None:
        settings["not_newer"] = NOT_NEWER
        measure.write(target, packages=PACKAGES, settings=settings, results=results)
    return results


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Pins this process, and threads started meanwhile, to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def speeds(
    seconds: Mapping[str, list[float]],
    *,
    wanted: int,
    duration_s: float,
    processes: int,
    not_compared: Mapping[str, str],
) -> dict[str, Any]:
    """What follows from the repetitions of every reader on one file.

    Args:
        seconds: of each repetition, in which each process decoded the file once.
        wanted: wanted frames of the file.
        duration_s: the file's length.
        processes: at the same time.
        not_compared: readers that return other frames.

    Returns:
        Wanted frames and seconds of video a second, medians, and each peer's median as a multiple of GridCLIP's.
    """
    medians = measure.medians(seconds)
    ours = medians["gridclip"]
    peers = {name: value for name, value in medians.items() if "gridclip" not in name and name not in not_compared}
    return {
        "processes": processes,
        "frames_per_second": {name: round(processes * wanted / value, 2) for name, value in medians.items()},
        "video_seconds_per_second": {name: round(processes * duration_s / value, 2) for name, value in medians.items()},
        "median_s": medians,
        "seconds": dict(seconds),
        "ratio_to_peer": {name: round(value / ours, 3) for name, value in peers.items()},
        "ratio_to_best_peer": round(min(peers.values()) / ours, 3) if peers else None,
    }


def _start_readers(crew: Crew, readers: Mapping[str, Reader], paths: Sequence[pathlib.Path], fps: float) -> None:
    """Lets every process import and set up what each reader needs, by decoding the smallest file that it can read."""
    by_size = sorted(paths, key=lambda path: path.stat().st_size)
    for reader in readers.values():
        for path in by_size:
            with contextlib.suppress(RuntimeError):  # same_frames will say what is wrong
                crew.do(functools.partial(reader, path, fps))
                break


def _one_file(
    path: pathlib.Path, fps: float, repetitions: int, readers: Mapping[str, Reader], crew: Crew
) -> dict[str, Any]:
    summary = scan.summarise(path)
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
    with one_core():
        calls, left_out = same_frames.usable(path, fps, wanted, readers)
        with floor(path, fps) as decode_only:
            timed = measure.interleaved({**calls, FLOOR: decode_only}, repetitions=repetitions)
        floor_s = statistics.median(timed[FLOOR])
        seconds = {name: timed[name] for name in calls}
        pruning_s = statistics.median(pruning_seconds(path, fps) for _ in range(max(5, repetitions)))
    on_all = {name: functools.partial(crew.do, call) for name, call in calls.items()}
    seconds_on_all = measure.interleaved(on_all, repetitions=repetitions)
    decoded, packets = packets_decoded(path, fps)
    measured = functools.partial(speeds, wanted=len(wanted), duration_s=summary.duration_s, not_compared=left_out)
    ours = statistics.median(seconds["gridclip"])
    entry: dict[str, Any] = {
        "video": path.name,
        "duration_s": round(summary.duration_s, 3),
        "wanted_frames": len(wanted),
        "packets_decoded": decoded,
        "packets": packets,
        "pruning_s": pruning_s,
        "pruning_to_decoding": round(pruning_s / (ours - pruning_s), 4),
        "not_compared": left_out,
        "floor_s": floor_s,
        "times_floor": {name: round(value / floor_s, 3) for name, value in measure.medians(seconds).items()},
        **measured(seconds, processes=1),
        "all_cores": measured(seconds_on_all, processes=len(crew)),
    }
    print(
        f"{path.name}: {decoded}/{packets} packets, {ours:.3f} s (pruning {pruning_s:.4f}), "
        f"{ours / floor_s:.2f} times {FLOOR}",
        flush=True,
    )
    for cores, times in ((1, seconds), (len(crew), seconds_on_all)):
        print(f"  {cores} at a time, times slower: {_times_slower(times)}", flush=True)
    for name, reason in left_out.items():
        print(f"  {name}: {reason}", flush=True)
    return entry


def _times_slower(seconds: Mapping[str, list[float]]) -> str:
    medians = measure.medians(seconds)
    ours = medians.pop("gridclip")
    return "  ".join(f"{name} {value / ours:.2f}" for name, value in medians.items())


def verdict(results: Sequence[Mapping[str, Any]]) -> str:
    """What the owner of these files can act on, in one sentence: beside a peer, what pruning leaves out, the floor.

    Args:
        results: from `run`; those that take less than LEAST_S say more of starting than of decoding and are left out
            where others are there.
    """
    if not results:
        return "no file could be measured: give a folder with videos as --videos"
    decoding = [entry for entry in results if entry["median_s"]["gridclip"] >= LEAST_S] or list(results)
    decoded, packets = (sum(entry[key] for entry in decoding) for key in ("packets_decoded", "packets"))
    above = measure.geometric_mean(entry["times_floor"]["gridclip"] for entry in decoding)
    parts = [
        _beside_a_peer(decoding),
        f"{1 - decoded / packets:.0%} of packets are skipped",
        f"at the floor ({FLOOR} on the others) by {above:.2f}",
    ]
    return f"{_on_which(len(decoding), len(results))}, on one core: {'; '.join(parts)}"


def _on_which(counted: int, files: int) -> str:
    """Of which files a sentence is."""
    if files == 1:
        return "on your file"
    return "on your files" if counted == files else f"on {counted} of your {files} files (the others take no time)"


def _beside_a_peer(entries: Sequence[Mapping[str, Any]]) -> str:
    """The speed beside the first peer of VERDICT_PEERS that decoded any of the files, and of how many it is."""
    for peer in VERDICT_PEERS:
        ratios = [entry["ratio_to_peer"][peer] for entry in entries if peer in entry["ratio_to_peer"]]
        if ratios:
            of = "" if len(ratios) == len(entries) else f" on the {len(ratios)} that it decodes alike"
            return f"{measure.geometric_mean(ratios):.2f} times as fast as {peer}{of}"
    return "no other program to compare with"


def readable(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folder's files that are videos; says which are not."""
    paths = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            scan.summarise(path)
            paths.append(path)
        except VideoError as error:
            print(f"{path.name} is left out: {error}", flush=True)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of videos instead of the generated ones")
    parser.add_argument("--long", action="store_true", help="the whole generated matrix")
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--fps", type=float, default=0.5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--processes", type=int, help="of the setting with all cores (default: one a core)")
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "decode.json")
    args = parser.parse_args()
    if args.videos:
        paths = readable(args.videos)
    else:
        paths = [corpus.make(clip, args.work_dir / "videos") for clip in (corpus.LONG if args.long else corpus.SHORT)]
    results = run(paths, fps=args.fps, repetitions=args.repetitions, processes=args.processes, target=args.json)
    ratios = [entry["ratio_to_best_peer"] for entry in results if entry["ratio_to_best_peer"]]
    if ratios:
        mean = measure.geometric_mean(ratios)
        print(f"one core, ratio to the best peer: geometric mean {mean:.2f}, least {min(ratios):.2f}")
    print(verdict(results))


if __name__ == "__main__":
    main()
