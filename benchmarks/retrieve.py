"""Random embeddings of ActivityNet's size in; seconds, memory and error of an evaluation beside its matrix product out.

    python -m gridclip.benchmarks.retrieve                      4,901 videos of 1 to 29 super images
    python -m gridclip.benchmarks.retrieve --video-info FILE    the real lengths (see gridclip plan)
    python -m gridclip.benchmarks.retrieve --long               no size of the scaling run extrapolated

The bare matrix product of all queries with all super images, whose result is thrown away, is the floor for any exact
method. What is timed beside it is a whole evaluation: the store read from disk, every query's rank, recall. Other ways
to score get the first queries only, and their time for all is multiplied up, as do the other aggregates (see
retrieve_aggregates); then come queries x videos of many sizes (see retrieve_scaling).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..dali_pipes.sampling import super_image_count, wanted_frames
from ..engine.annotations.annotations import Query, load_video_info
from ..engine.evaluation.evaluation import evaluate
from ..engine.scoring import retrieval
from ..engine.store.store import Store, VideoEmbedding
from . import measure, retrieve_aggregates, retrieve_peers, retrieve_scaling
from .process_memory import PeakMemory

PACKAGES = ("torch", "numpy", "pylance", "pyarrow")
SAMPLE_QUERIES = 20
KERNEL = "kernel, with ranks"
LOOP_QUERIES = 2


def run(
    lengths: np.ndarray, *, queries: int, width: int, repetitions: int, peer_queries: int, loop_queries: int
) -> dict[str, Any]:
    """Measures on random embeddings.

    Args:
        lengths: int64 [V], super images of each video.
        queries: how many queries.
        width: of the vectors.
        repetitions: of every candidate.
        peer_queries: queries of the peers, which are too slow for all of them; 0 leaves the peers out.
        loop_queries: queries of the loop over queries and videos, slower still.
    """
    with tempfile.TemporaryDirectory() as folder:
        store, embeddings_bytes = _store(pathlib.Path(folder), lengths, queries, width)
        memory = PeakMemory()
        evaluate(store, device="cpu")
        peak_above = memory.peak_above_start() - embeddings_bytes

        table, texts = store.read_super_images(), store.read_queries().vectors
        unit_vectors, unit_texts = torch.from_numpy(table.vectors).float(), torch.from_numpy(texts).float()
        candidates: dict[str, Callable[[], object]] = {
            "bare matrix product": lambda: retrieve_peers.bare_product(unit_vectors, unit_texts),
            "evaluation": lambda: evaluate(store, device="cpu"),
        }
        peers: dict[str, _Peer] = {}
        if peer_queries:
            peers = _peers(unit_vectors, unit_texts, table.offsets, peer_queries, loop_queries)
        candidates |= {name: peer.work for name, peer in peers.items()}
        cpu_seconds: dict[str, list[float]] = {name: [] for name in candidates}
        seconds = measure.interleaved(
            {name: functools.partial(_with_cpu_time, work, cpu_seconds[name]) for name, work in candidates.items()},
            repetitions=repetitions,
        )
        error = _largest_error(texts[:SAMPLE_QUERIES], table.vectors, table.offsets)
        aggregates = retrieve_aggregates.run(unit_vectors, table.offsets, unit_texts[:peer_queries]) if peers else {}
    medians, cpu_medians = measure.medians(seconds), measure.medians(cpu_seconds)
    return {
        "seconds": {name: list(map(measure.significant, values)) for name, values in seconds.items()},
        "cpu_seconds": {name: list(map(measure.significant, values)) for name, values in cpu_seconds.items()},
        "medians": {name: measure.significant(value) for name, value in medians.items()},
        "evaluation_to_bare_product": medians["evaluation"] / medians["bare matrix product"],
        "evaluation_to_bare_product_cpu": cpu_medians["evaluation"] / cpu_medians["bare matrix product"],
        "peak_mib_above_embeddings": peak_above / 2**20,
        "largest_difference_to_float64_loop": error,
        "peers": _peer_entries(peers, medians, queries=queries),
        "aggregates": aggregates,
        "load_after": measure.machine()["load_before"],
    }


def _store(folder: pathlib.Path, lengths: np.ndarray, queries: int, width: int) -> tuple[Store, int]:
    """A store of random embeddings, and their bytes in it."""
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vectors = generator.standard_normal((offsets[-1], width), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    captions = generator.standard_normal((queries, width), np.float32)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    store = Store.open(folder / "store", create=True)
    names = [f"{video:07d}" for video in range(len(lengths))]
    store.append_videos(
        [
            VideoEmbedding(name, None, None, vectors[offsets[video] : offsets[video + 1]])
            for video, name in enumerate(names)
        ]
    )
    own = generator.integers(0, len(lengths), queries)
    store.put_queries([Query(number, names[video], "") for number, video in enumerate(own)], captions)
    return store, vectors.nbytes // 2 + captions.nbytes // 2


@dataclasses.dataclass(frozen=True)
class _Peer:
    """Something that scores the first so many queries against all videos."""

    work: Callable[[], object]
    queries: int


def _peers(vectors: torch.Tensor, texts: torch.Tensor, offsets: np.ndarray, few: int, fewer: int) -> dict[str, _Peer]:
    """The kernel and its peers; the kernel also ranks, from half the bytes, the others only score."""
    videos = retrieve_peers.padded(vectors, offsets)
    half_vectors, half_texts = vectors.half().numpy(), texts[:few].half().numpy()
    own = np.random.default_rng(1).integers(0, len(offsets) - 1, few)
    scoring = retrieval.Scoring()
    return {
        KERNEL: _Peer(lambda: retrieval.ranks(half_texts, own, half_vectors, offsets, scoring, device="cpu"), few),
        "bare matrix product, few queries": _Peer(lambda: retrieve_peers.bare_product(vectors, texts[:few]), few),
        "per-video matrix products": _Peer(lambda: retrieve_peers.per_video(vectors, offsets, texts[:few]), few),
        "einsum over padded videos": _Peer(lambda: retrieve_peers.padded_einsum(videos, texts[:few]), few),
        "loop over queries and videos": _Peer(
            lambda: retrieve_peers.plain_loop(vectors, offsets, texts[:fewer]), fewer
        ),
    }


def _peer_entries(peers: dict[str, _Peer], medians: dict[str, float], *, queries: int) -> dict[str, dict[str, Any]]:
    """Per peer the seconds that all queries would take, its time per query over the kernel's, and what was measured."""
    entries: dict[str, dict[str, Any]] = {}
    for name, peer in peers.items():
        per_query = medians[name] / peer.queries
        entries[name] = {
            "seconds": measure.significant(per_query * queries),
            "times_kernel": measure.significant(per_query / (medians[KERNEL] / peers[KERNEL].queries)),
        }
        if peer.queries < queries:
            measured = {"queries": peer.queries, "seconds": measure.significant(medians[name])}
            entries[name]["extrapolated_from"] = measured
    return entries


def _with_cpu_time(work: Callable[[], object], spent: list[float]) -> None:
    """Runs a candidate and notes its processor seconds, which a busy machine distorts less than wall seconds."""
    start = time.process_time()
    work()
    spent.append(time.process_time() - start)


def _largest_error(queries: np.ndarray, vectors: np.ndarray, offsets: np.ndarray) -> float:
    """Largest difference of the kernel's scores from a plain float64 loop."""
    scores = np.zeros((len(queries), len(offsets) - 1))
    for block in retrieval.score_blocks(queries, vectors, offsets, retrieval.Scoring(), device="cpu"):
        scores[np.ix_(block.queries.cpu().numpy(), block.videos.cpu().numpy())] = block.scores.T.cpu().numpy()
    worst = 0.0
    for row, query in enumerate(queries.astype(np.float64)):
        query = query / np.linalg.norm(query)
        for video in range(len(offsets) - 1):
            own = vectors[offsets[video] : offsets[video + 1]].astype(np.float64)
            own /= np.linalg.norm(own, axis=1, keepdims=True)
            weights = np.exp(own @ query)
            mixed = weights / weights.sum() @ own
            worst = max(worst, abs(query @ mixed / np.linalg.norm(mixed) - scores[row, video]))
    return worst


def _lengths(video_info: pathlib.Path | None) -> np.ndarray:
    if video_info is None:
        return np.random.default_rng(0).integers(1, 30, 4901)
    counts = [
        super_image_count(len(wanted_frames(info.frame_count, info.avg_fps, fps=0.5)), 2)
        for info in load_video_info(video_info)
    ]
    return np.array([count for count in counts if count])


def _sizes(text: str) -> list[retrieve_scaling.Size]:
    """Sizes such as "1000x1000,1000x10000" (queries x videos)."""
    return [retrieve_scaling.Size(*map(int, size.split("x"))) for size in text.split(",") if size]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video-info", type=pathlib.Path, help="video-info JSON that gives the videos' lengths")
    parser.add_argument("--queries", type=int, default=17443)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--peer-queries", type=int, default=1024, help="queries of the slower peers; 0: no peers")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=retrieve_scaling.SIZES,
        help="queries x videos of the scaling run, 1000x1000,1000x10000; '' for none",
    )
    parser.add_argument("--budget-s", type=float, default=60, help="seconds for a size; longer ones are extrapolated")
    parser.add_argument("--long", action="store_true", help="measure every size in full (the largest takes hours)")
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "retrieve_cpu.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    lengths = _lengths(arguments.video_info)
    settings = {
        "videos": len(lengths),
        "super_images": int(lengths.sum()),
        "queries": arguments.queries,
        "width": arguments.width,
        "threads": arguments.threads,
        "repetitions": arguments.repetitions,
        "longest_video": int(lengths.max()),
        "budget_s": None if arguments.long else arguments.budget_s,
        "load_before": measure.machine()["load_before"],
    }
    results = run(
        lengths,
        queries=arguments.queries,
        width=arguments.width,
        repetitions=arguments.repetitions,
        peer_queries=min(arguments.peer_queries, arguments.queries),
        loop_queries=LOOP_QUERIES,
    )
    budget_s = math.inf if arguments.long else arguments.budget_s
    results["scaling"] = retrieve_scaling.run(
        arguments.sizes, width=arguments.width, lengths=lengths, budget_s=budget_s
    )
    measure.write(arguments.json, packages=PACKAGES, settings=settings, results=results)
    _print(results)


def _print(results: dict[str, Any]) -> None:
    for name, value in results["medians"].items():
        print(f"{name:34} {value:8.2f} s")
    print(f"evaluation / bare product          {results['evaluation_to_bare_product']:8.2f}")
    print(f"  the same in processor seconds    {results['evaluation_to_bare_product_cpu']:8.2f}")
    print(f"peak memory above embeddings       {results['peak_mib_above_embeddings']:8.0f} MiB")
    print(f"largest difference to float64      {results['largest_difference_to_float64_loop']:8.1e}")
    for name, entry in results["peers"].items():
        print(f"{name:34} {entry['seconds']:8.0f} s for all queries, {entry['times_kernel']:.2f} times the kernel's")
    for name, entry in results["aggregates"].items():
        print(
            f"{name:34} {entry['to_bare_product']:.2f} times the bare product's processor time for "
            f"{entry['queries']:,} queries, {entry['one_query_cpu_s']:.2f} s for one"
        )
    for entry in results["scaling"]:
        size = f"{entry['queries']:,} queries x {entry['videos']:,} videos"
        extrapolated = " (extrapolated)" if "extrapolated_from" in entry else ""
        print(
            f"{size:34} {entry['seconds']:8.4g} s, {entry['times_floor']:.2f} times the bare product's,"
            f" {entry['peak_mib']} MiB{extrapolated}"
        )


if __name__ == "__main__":
    main()
