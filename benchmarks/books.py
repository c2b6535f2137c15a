"""Videos that cost nothing to decode or embed in, what the books cost out: listing, queue, failures, store, resume.

    gridclip bench books                     100,000 videos
    gridclip bench books --videos 1000000    as the issue asks

A source and a model that return at once stand in for decoding and encoding; everything else is a job's own: a folder of
files, `list_videos`, `open_store`, `run_job`, `Batches`, the Lance store. Each phase is a process of its own, so that
its memory is its own. The rate bounds how many cards one job's books can feed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import lance
import numpy as np
from gridclip.dali_pipes.contract import Event, Failure, Finished, Part, SuperImages, VideoFile
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import ledger, status
from gridclip.engine.listing.listing import list_videos
from gridclip.engine.store.record import as_read_back

from . import measure

PACKAGES = ("pylance", "pyarrow", "numpy")
WIDTH = 768
IMAGE_PX = 2
FILES_PER_FOLDER = 1000
FAILING = 1000  # one video of so many fails
SAMPLING = Sampling(super_img_size=IMAGE_PX)
GOAL_VIDEOS_PER_S, GOAL_RESUME_S, GOAL_MEMORY_MIB = 2000.0, 30.0, 1024.0  # for a million, on 2 cores


@dataclasses.dataclass(frozen=True)
class _Info:
    """What a job asks of a model."""

    image_size: int = IMAGE_PX
    fingerprint: str = "books"

    def to_json(self) -> dict[str, Any]:
        return {"name": "books", "fingerprint": self.fingerprint, "embed_dim": WIDTH, "image_size": IMAGE_PX}


class _Passes:
    """Passes that take no time: the same unit vectors for every batch."""

    depth = 2
    busy_s = 0.0
    ready = False

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        vectors = np.random.default_rng(0).standard_normal((batch_size, WIDTH)).astype(np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self._flying: list[int] = []

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def put(self, images: np.ndarray, row: int) -> None:
        """Drops them."""

    def launch(self, rows: int) -> None:
        self._flying.append(rows)

    def collect(self) -> np.ndarray:
        return self._vectors[: self._flying.pop(0)]

    def close(self) -> None:
        """Holds nothing."""


class _Encoder:
    provider = "cuda"  # for its batch size
    info = _Info()

    def image_passes(self, batch_size: int, cells: int | None = None) -> _Passes:
        return _Passes(batch_size)


def decode_nothing(videos: Iterable[VideoFile], super_images: int) -> Iterator[tuple[VideoFile, Event]]:
    """A chunk of black super images and an end for each video; one of `FAILING` fails."""
    images = np.zeros((super_images, IMAGE_PX, IMAGE_PX, 3), np.uint8)
    start_s = np.arange(super_images) * 8.0
    parts = (Part(SAMPLING.grid_sizes[0], 0, super_images),)
    for number, video in enumerate(videos):
        if number % FAILING == FAILING - 1:
            yield video, Failure(video.video_id, "decode", "it was to fail")
            continue
        yield video, SuperImages(video.video_id, 0, super_images, images, start_s, start_s + 8.0, parts)
        yield video, Finished()


def make_folder(folder: pathlib.Path, count: int) -> None:
    """Empty files with the suffix of videos."""
    for first in range(0, count, FILES_PER_FOLDER):
        inner = folder / f"{first // FILES_PER_FOLDER:05d}"
        if inner.is_dir():
            continue
        part = inner.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        for number in range(first, min(count, first + FILES_PER_FOLDER)):
            (part / f"video_{number:08d}.mp4").touch()
        part.rename(inner)


def job(folder: pathlib.Path, store: pathlib.Path, super_images: int) -> dict[str, float]:
    """One job with --resume; on a store that is full it only finds that out."""
    began = time.perf_counter()
    listing = list_videos(folder)
    listed = time.perf_counter()
    encoder = cast(Encoder, _Encoder())
    held, stored = ledger.open_store(store, encoder, listing.videos, resume=True, overwrite=False)
    held.claim_sampling(as_read_back({"source": "videos", **dataclasses.asdict(SAMPLING)}))
    opened = time.perf_counter()
    compact, compact_s = held.compact, 0.0

    def timed_compact() -> None:
        nonlocal compact_s
        at = time.perf_counter()
        found["peak_mib_before_compact"] = peak_mib()
        found["commits"] = lance.dataset(str(store / "super_images.lance")).version
        compact()
        compact_s = time.perf_counter() - at

    found: dict[str, float] = {}
    held.compact = timed_compact  # type: ignore[method-assign]
    summary = ledger.embed(
        listing, lambda videos: _closed(decode_nothing(videos, super_images)), encoder, held, stored, batch_size=None
    )
    ended = time.perf_counter()
    return found | {
        "videos": summary.done,
        "failures": summary.failures,
        "list_s": listed - began,
        "open_s": opened - listed,
        "embed_s": ended - opened - compact_s,
        "compact_s": compact_s,
        "seconds": ended - began,
        "videos_per_s": summary.done / (ended - opened - compact_s),
    }


def _closed(events: Iterator[tuple[VideoFile, Event]]) -> Any:
    return (event for event in events)  # a generator can be closed


def peak_mib() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ask_status(folder: pathlib.Path, store: pathlib.Path, super_images: int) -> dict[str, float]:
    """`gridclip status`."""
    began = time.perf_counter()
    found = status.read_status(store)
    return {"seconds": time.perf_counter() - began, "stored": found.stored or 0, "failed": found.failed}


PHASES: dict[str, Callable[[pathlib.Path, pathlib.Path, int], dict[str, float]]] = {
    "first run": job,
    "resume": job,
    "status": ask_status,
}


def run_phase(phase: str, folder: pathlib.Path, store: pathlib.Path, super_images: int) -> dict[str, float]:
    """In a process of its own: its figures, and the most memory that it held."""
    program = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--phase", phase]
    done = subprocess.run(
        [*program, "--folder", str(folder), "--store", str(store), "--super-images", str(super_images)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(work_dir: pathlib.Path, count: int, super_images: int) -> dict[str, dict[str, float]]:
    """All phases, one after the other, on a new store."""
    folder, store = work_dir / f"videos-{count}", work_dir / "store"
    make_folder(folder, count)
    shutil.rmtree(store, ignore_errors=True)
    found = {}
    for phase in PHASES:
        found[phase] = run_phase(phase, folder, store, super_images)
        print(phase, {name: measure.significant(value) for name, value in found[phase].items()}, flush=True)
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    vectors = found["first run"]["videos"] * super_images * WIDTH * 2
    found["store"] = {
        "bytes": size,
        "bytes_of_vectors": vectors,
        "bytes_per_video": size / found["first run"]["videos"],
    }
    shutil.rmtree(store)
    return found


def main() -> None:
    """Entry point of `gridclip bench books`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, help="Write the figures to this file.")
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--super-images", type=int, default=15, help="Of each video; ActivityNet's have 15.")
    parser.add_argument("--work-dir", type=pathlib.Path, default=pathlib.Path("bench-books"))
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        found = PHASES[options.phase](options.folder, options.store, options.super_images)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps(found | {"peak_mib": peak_mib(), "cpu_s": used.ru_utime + used.ru_stime}))
        return
    results = run(options.work_dir.absolute(), options.videos, options.super_images)
    goals = {"videos_per_s": GOAL_VIDEOS_PER_S, "resume_s": GOAL_RESUME_S, "peak_mib": GOAL_MEMORY_MIB}
    settings = {"videos": options.videos, "super_images": options.super_images, "width": WIDTH}
    if options.json:
        told = {**settings, "goals_for_a_million": goals}
        measure.write(options.json, packages=PACKAGES, settings=told, results=results)


if __name__ == "__main__":
    main()
