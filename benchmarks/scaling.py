"""Short generated videos in, seconds and memory of `embed-videos` over workers and over the number of videos out.

    python -m gridclip.benchmarks.scaling            10, 100 and 1,000 videos
    python -m gridclip.benchmarks.scaling --long     10,000 as well

Cost should grow in a straight line with the videos, and memory should not grow at all.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import time
from collections.abc import Sequence

import numpy as np
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs.embed_videos import embed_videos
from gridclip.export.folder import ensure_model_folder

from . import corpus, measure
from .end_to_end import TINY_CHECKPOINT
from .resources import Watch

PACKAGES = ("av", "onnxruntime", "pylance", "numpy")
CLIP = corpus.Clip("libx264", 144, gop_s=2, b_frames=3, duration_s=4)


def many(folder: pathlib.Path, count: int) -> pathlib.Path:
    """A folder of `count` short videos, links to one: what is measured is the work, not the disk."""
    made = corpus.make(CLIP, folder / "videos").resolve()
    target = folder / f"short-{count}"
    if not target.is_dir():
        target.mkdir(parents=True)
        for number in range(count):
            (target / f"v{number:06d}.mp4").symlink_to(made)
    return target


def timed(encoder: Encoder, videos: pathlib.Path, store: pathlib.Path, num_workers: int) -> dict[str, float]:
    """One job into an empty store: seconds, and peak memory."""
    shutil.rmtree(store, ignore_errors=True)
    sampling = Sampling(super_img_size=encoder.info.image_size)
    began = time.perf_counter()
    with Watch(every_s=0.5) as watch:
        summary = embed_videos(encoder, videos, store, sampling=sampling, num_workers=num_workers, cells=False)
    seconds = time.perf_counter() - began
    if summary.failures:
        raise RuntimeError(f"{summary.failures} videos failed: see {summary.failures_file}")
    return {"seconds": seconds, "parent_peak_mib": watch.parent_peak_mib, "peak_mib": watch.peak_mib}


def line(counts: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """The straight line through seconds over counts by least squares, each point weighted by 1 / seconds.

    Returns:
        seconds_per_video, start_s (at no videos), and largest_deviation: of a point from the line, as a share of it.
    """
    weights = 1 / np.asarray(seconds)
    design = np.stack([np.asarray(counts, float), np.ones(len(counts))], axis=1)
    (slope, start), *_ = np.linalg.lstsq(design * weights[:, None], np.asarray(seconds) * weights, rcond=None)
    fitted = design @ [slope, start]
    deviation = np.abs(np.asarray(seconds) / fitted - 1).max()
    return {"seconds_per_video": float(slope), "start_s": float(start), "largest_deviation": float(deviation)}


def run(work_dir: pathlib.Path, counts: Sequence[int], *, repetitions: int, num_workers: int) -> dict[str, object]:
    """Jobs of growing size with all workers, and of one size with 1 to num_workers workers."""
    encoder = Encoder(ensure_model_folder(str(TINY_CHECKPOINT)), provider="cpu")
    store = work_dir / "scaling-store"
    timed(encoder, many(work_dir, min(counts)), store, num_workers)  # loads the model, fills the caches
    by_videos = []
    for count in counts:
        videos = many(work_dir, count)
        rounds = repetitions if count <= 1000 else 1
        found = [timed(encoder, videos, store, num_workers) for _ in range(rounds)]
        by_videos.append({"videos": count, **_median(found), "rounds": found})
        print(f"{count} videos: {by_videos[-1]['seconds']:.2f} s, {by_videos[-1]['parent_peak_mib']} MiB", flush=True)
    middle = sorted(counts)[len(counts) // 2]
    by_workers = []
    for workers in range(1, num_workers + 1):
        found = [timed(encoder, many(work_dir, middle), store, workers) for _ in range(repetitions)]
        by_workers.append({"workers": workers, "videos": middle, **_median(found), "rounds": found})
        print(f"{workers} workers, {middle} videos: {by_workers[-1]['seconds']:.2f} s", flush=True)
    return {
        "by_videos": by_videos,
        "line": line(counts, [float(str(entry["seconds"])) for entry in by_videos]),
        "by_workers": by_workers,
    }


def _median(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(found[name] for found in rounds), 3) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="10,000 videos as well")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "scaling.json")
    args = parser.parse_args()
    counts = [10, 100, 1000, *([10_000] if args.long else [])]
    results = run(args.work_dir, counts, repetitions=args.repetitions, num_workers=args.num_workers)
    settings = {"video": CLIP.name, "model": "tiny CLIP", "repetitions": args.repetitions, "fps": 0.5}
    measure.write(args.json, packages=PACKAGES, settings=settings, results=results)


if __name__ == "__main__":
    main()
