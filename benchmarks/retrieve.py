"""Random embeddings of ActivityNet's size in; seconds, memory and error of an evaluation beside its matrix product out.

    python -m gridclip.benchmarks.retrieve                      4,901 videos of 1 to 29 super images
    python -m gridclip.benchmarks.retrieve --video-info FILE    the real lengths (see gridclip plan)

The bare matrix product of all queries with all super images, whose result is thrown away, is the floor for any exact
method. What is timed beside it is a whole evaluation: the store read from disk, every query's rank, recall.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..dali_pipes.sampling import super_image_count, wanted_frames
from ..engine import retrieval
from ..engine.annotations import Query, load_video_info
from ..engine.evaluation import evaluate
from ..engine.store import Store, VideoEmbedding
from . import measure

PACKAGES = ("torch", "numpy", "pylance", "pyarrow")
SAMPLE_QUERIES = 20


def run(lengths: np.ndarray, *, queries: int, width: int, repetitions: int, loop_queries: int) -> dict[str, Any]:
    """Measures on random embeddings.

    Args:
        lengths: int64 [V], super images of each video.
        queries: how many queries.
        width: of the vectors.
        repetitions: of every candidate.
        loop_queries: queries of the per-video loop, which is too slow for all of them; 0 leaves it out.
    """
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vectors = generator.standard_normal((offsets[-1], width), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    captions = generator.standard_normal((queries, width), np.float32)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(pathlib.Path(folder) / "store", create=True)
        names = [f"{video:07d}" for video in range(len(lengths))]
        store.append_videos([
            VideoEmbedding(name, None, None, vectors[offsets[video] : offsets[video + 1]])
            for video, name in enumerate(names)])
        own = generator.integers(0, len(lengths), queries)
        store.put_queries([Query(number, names[video], "") for number, video in enumerate(own)], captions)
        embeddings_bytes = vectors.nbytes // 2 + captions.nbytes // 2
        del vectors, captions

        before = _memory("VmRSS")
        _reset_peak()
        evaluate(store)
        peak_above = _memory("VmHWM") - before - embeddings_bytes

        table, texts = store.read_super_images(), store.read_queries().vectors
        unit_vectors, unit_texts = torch.from_numpy(table.vectors).float(), torch.from_numpy(texts).float()
        candidates: dict[str, Callable[[], object]] = {
            "bare matrix product": lambda: _bare_product(unit_vectors, unit_texts),
            "evaluation": lambda: evaluate(store),
        }
        if loop_queries:
            scoring = retrieval.Scoring()
            few, few_own, few_units = texts[:loop_queries], own[:loop_queries], unit_texts[:loop_queries]
            candidates["per-video loop, few queries"] = lambda: _loop(unit_vectors, table.offsets, few_units)
            candidates["ranks, few queries"] = lambda: retrieval.ranks(
                few, few_own, table.vectors, table.offsets, scoring)
        cpu_seconds: dict[str, list[float]] = {name: [] for name in candidates}
        seconds = measure.interleaved(
            {name: functools.partial(_with_cpu_time, work, cpu_seconds[name]) for name, work in candidates.items()},
            repetitions=repetitions)
        error = _largest_error(texts[:SAMPLE_QUERIES], table.vectors, table.offsets)
    medians, cpu_medians = measure.medians(seconds), measure.medians(cpu_seconds)
    results: dict[str, Any] = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "medians": medians,
        "evaluation_to_bare_product": medians["evaluation"] / medians["bare matrix product"],
        "evaluation_to_bare_product_cpu": cpu_medians["evaluation"] / cpu_medians["bare matrix product"],
        "peak_mib_above_embeddings": peak_above / 2**20,
        "largest_difference_to_float64_loop": error,
        "load_after": measure.machine()["load_before"],
    }
    if loop_queries:
        results["loop_to_ranks"] = medians["per-video loop, few queries"] / medians["ranks, few queries"]
    return results


def _with_cpu_time(work: Callable[[], object], spent: list[float]) -> None:
    """Runs a candidate and notes its processor seconds, which a busy machine distorts less than wall seconds."""
    start = time.process_time()
    work()
    spent.append(time.process_time() - start)


def _bare_product(vectors: torch.Tensor, queries: torch.Tensor) -> None:
    size = retrieval.CPU_BLOCK
    for rows in vectors.split(size.rows):
        for block in queries.split(size.queries):
            torch.mm(rows, block.T)


def _loop(vectors: torch.Tensor, offsets: np.ndarray, queries: torch.Tensor) -> None:
    """The straightforward vectorised way: one video at a time, all queries at once, aggregates built in full."""
    for first, last in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        own = vectors[first:last]
        mixed = (queries @ own.T).softmax(dim=1) @ own
        torch.nn.functional.cosine_similarity(queries, mixed)


def _largest_error(queries: np.ndarray, vectors: np.ndarray, offsets: np.ndarray) -> float:
    """Largest difference of the kernel's scores from a plain float64 loop."""
    scores = np.zeros((len(queries), len(offsets) - 1))
    for block in retrieval.score_blocks(queries, vectors, offsets, retrieval.Scoring()):
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


def _memory(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes; Linux only."""
    match = re.search(rf"{name}:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    if match is None:
        raise RuntimeError(f"/proc/self/status has no {name}")
    return int(match.group(1)) * 1024


def _reset_peak() -> None:
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def _lengths(video_info: pathlib.Path | None) -> np.ndarray:
    if video_info is None:
        return np.random.default_rng(0).integers(1, 30, 4901)
    counts = [super_image_count(len(wanted_frames(info.frame_count, info.avg_fps, fps=0.5)), 2)
              for info in load_video_info(video_info)]
    return np.array([count for count in counts if count])


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video-info", type=pathlib.Path, help="video-info JSON that gives the videos' lengths")
    parser.add_argument("--queries", type=int, default=17443)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--loop-queries", type=int, default=2048)
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "retrieve_cpu.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    lengths = _lengths(arguments.video_info)
    settings = {
        "videos": len(lengths), "super_images": int(lengths.sum()), "queries": arguments.queries,
        "width": arguments.width, "threads": arguments.threads, "repetitions": arguments.repetitions,
        "loop_queries": arguments.loop_queries, "load_before": measure.machine()["load_before"],
    }
    results = run(lengths, queries=arguments.queries, width=arguments.width, repetitions=arguments.repetitions,
                  loop_queries=arguments.loop_queries)
    measure.write(arguments.json, packages=PACKAGES, settings=settings, results=results)
    for name, value in results["medians"].items():
        print(f"{name:30} {value:8.2f} s")
    print(f"evaluation / bare product      {results['evaluation_to_bare_product']:8.2f}")
    print(f"  the same in processor seconds {results['evaluation_to_bare_product_cpu']:7.2f}")
    print(f"peak memory above embeddings   {results['peak_mib_above_embeddings']:8.0f} MiB")
    print(f"largest difference to float64  {results['largest_difference_to_float64_loop']:8.1e}")


if __name__ == "__main__":
    main()
