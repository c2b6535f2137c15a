"""Videos in, the bytes and seconds of reading only what wanted frames need out, beside a scan of the whole file.

    gridclip bench reading                       generated files with a keyframe every second and every five
    gridclip bench reading --videos FOLDER       the user's own files, too

The frames of both are compared first. Bytes are those that the process asks the system for (`rchar`); before each
reading the system is asked to forget the file, so that it comes from the disk.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ..dali_pipes.contract import VideoError
from ..dali_pipes.cpu.reading import Reading, open_needed, open_reading
from ..dali_pipes.packets.needed import IndexFeed
from ..dali_pipes.sampling import Sampling
from . import corpus, measure

PACKAGES = ("av", "numpy")
FPS = (1.0, 0.5, 0.1, 0.02)
GENERATED = [
    corpus.Clip("libx264", 1080, gop_s=1, b_frames=3, duration_s=60),
    corpus.Clip("libx264", 1080, gop_s=5, b_frames=3, duration_s=60),
]
OPEN: dict[str, Callable[..., AbstractContextManager[Reading]]] = {"scan": open_reading, "needed": open_needed}


def measured(path: pathlib.Path, fps: float, repetitions: int) -> dict[str, Any]:
    """One entry of the result; raises VideoError, and AssertionError where the frames of the two differ."""
    for one, other in zip(_frames(path, fps, "scan"), _frames(path, fps, "needed"), strict=True):
        assert np.array_equal(one, other), f"{path.name}, {fps:g} fps: frames differ"
    with open_needed(path, Sampling(fps=fps), skim=True) as reading:
        by_index = isinstance(reading.kept, IndexFeed)
    work = {way: functools.partial(_read_cold, path, fps, way) for way in OPEN}
    seconds = measure.interleaved(work, repetitions=repetitions)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "fps": fps,
        "by_index": by_index,
        "bytes_read": {way: _bytes_of(functools.partial(_read_cold, path, fps, way)) for way in OPEN},
        "median_s": measure.medians(seconds),
        "seconds": seconds,
    }


def _frames(path: pathlib.Path, fps: float, way: str) -> Iterator[np.ndarray]:
    with OPEN[way](path, Sampling(fps=fps), skim=True) as reading:
        yield from reading.frames("pyav")


def _read_cold(path: pathlib.Path, fps: float, way: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    for _ in _frames(path, fps, way):
        pass


def _bytes_of(work: Callable[[], None]) -> int:
    before = _bytes_read()
    work()
    return _bytes_read() - before


def _bytes_read() -> int:
    """What this process has read so far, bytes; needs Linux."""
    lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def entries(paths: Sequence[pathlib.Path], *, repetitions: int, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """An entry per file and rate; a file that cannot be read goes to `left_out`, with the reason."""
    found = []
    for path in paths:
        try:
            found += [measured(path, fps, repetitions) for fps in FPS]
        except VideoError as error:
            left_out[path.name] = str(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of videos beside the generated ones")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated ones"
    )
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "reading.json")
    args = parser.parse_args()
    paths = [corpus.make(clip, args.work_dir / "videos") for clip in GENERATED]
    if args.videos:
        paths += sorted(path for path in args.videos.iterdir() if path.is_file())
    left_out: dict[str, str] = {}
    found = entries(paths, repetitions=args.repetitions, left_out=left_out)
    for entry in found:
        shares = " -> ".join(f"{read / entry['bytes']:.2f}" for read in entry["bytes_read"].values())
        took = " -> ".join(f"{seconds:.3f}" for seconds in entry["median_s"].values())
        print(f"{entry['file']}, {entry['fps']:g} fps: {shares} of its bytes, {took} s", flush=True)
    settings = {"fps": FPS, "repetitions": args.repetitions}
    measure.write(args.json, packages=PACKAGES, settings=settings, results={"files": found, "left_out": left_out})


if __name__ == "__main__":
    main()
