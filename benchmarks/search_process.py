"""A corpus, a folder and a system's name in; what building it, or asking it, took and held out, as a line of JSON.

    python -m gridclip.benchmarks.search_process build CORPUS FOLDER "faiss HNSW"
    python -m gridclip.benchmarks.search_process first CORPUS FOLDER "faiss HNSW" --scoring max --begun-s 1234.5
    python -m gridclip.benchmarks.search_process ask CORPUS FOLDER "faiss HNSW" --scoring max --budget-s 20

A process of its own for each, so that its memory is the system's, and that a crash or a limit ends nothing else.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np

from . import measure
from .process_memory import peak_bytes
from .search_corpus import TOP, Corpus
from .search_systems import Answer, Ask, System, systems

WARM_UP = 3  # queries before those that count
FEWEST = 5  # queries, however long they take


def build(system: System, corpus: Corpus, folder: pathlib.Path) -> dict[str, Any]:
    """Seconds, memory and bytes on disk of all that it needs to answer."""
    folder.mkdir(parents=True)
    begun = time.perf_counter()
    system.build(corpus, folder)
    seconds = time.perf_counter() - begun
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "build_s": measure.significant(seconds),
        "build_peak_mib": round(peak_bytes() / 2**20),
        "disk_mib": measure.significant(size / 2**20),
        "settings": system.settings(corpus),
    }


def first(system: System, corpus: Corpus, folder: pathlib.Path, scoring: str, *, begun_s: float) -> dict[str, Any]:
    """What a process takes that answers one query; `begun_s` is when it was started, on the monotonic clock."""
    system.open(folder, scoring)(system.efforts[0])(corpus.queries[0])
    seconds = time.monotonic() - begun_s
    return {"seconds": measure.significant(seconds), "peak_mib": round(peak_bytes() / 2**20)}


def ask(system: System, corpus: Corpus, folder: pathlib.Path, scoring: str, *, budget_s: float) -> dict[str, Any]:
    """Latency and recall of each effort, and the memory of a process that answers many queries."""
    opened = system.open(folder, scoring)
    efforts = []
    for effort in system.efforts:
        timed = answers_and_seconds(opened(effort), corpus.queries, budget_s=budget_s)
        efforts.append({"effort": dict(effort), **summary(*timed, corpus, scoring)})
    return {"peak_mib": round(peak_bytes() / 2**20), "efforts": efforts}


def answers_and_seconds(
    ask_one: Ask, queries: np.ndarray, *, budget_s: float
) -> tuple[list[Answer], list[float], list[float]]:
    """Answers to the queries, one after the other, and their wall seconds and processor seconds.

    As many as the budget allows, and at least FEWEST.
    """
    for query in queries[-WARM_UP:]:
        ask_one(query)
    answers: list[Answer] = []
    wall_s: list[float] = []
    cpu_s: list[float] = []
    for query in queries:
        wall, cpu = time.perf_counter(), time.process_time()
        answers.append(ask_one(query))
        wall_s.append(time.perf_counter() - wall)
        cpu_s.append(time.process_time() - cpu)
        if sum(wall_s) > budget_s and len(wall_s) >= FEWEST:
            break
    return answers, wall_s, cpu_s


def summary(
    answers: list[Answer], wall_s: list[float], cpu_s: list[float], corpus: Corpus, scoring: str
) -> dict[str, Any]:
    """One effort's part of the report."""
    p50_s, p95_s = np.percentile(wall_s, [50, 95])
    found: dict[str, Any] = {
        "queries": len(answers),
        "p50_ms": measure.significant(1000 * p50_s),
        "p95_ms": measure.significant(1000 * p95_s),
        "cpu_ms": measure.significant(1000 * float(np.median(cpu_s))),
        "recall_videos": recall([answer.videos for answer in answers], corpus.exact(scoring)),
    }
    super_images = [answer.super_images for answer in answers if answer.super_images is not None]
    if super_images:
        found["recall_super_images"] = recall(super_images, corpus.exact("super_images"))
    return found


def recall(found: list[np.ndarray], exact: np.ndarray) -> float:
    """The share of the exact best TOP that are among the first TOP found, over the queries that were asked."""
    shares = [np.isin(best, own[:TOP]).mean() for own, best in zip(found, exact, strict=False)]
    return round(float(np.mean(shares)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("build", "first", "ask"))
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("system")
    parser.add_argument("--scoring", default="max")
    parser.add_argument("--begun-s", type=float, default=time.monotonic())
    parser.add_argument("--budget-s", type=float, default=20.0)
    given = parser.parse_args()
    (system,) = (system for system in systems() if system.name == given.system)
    corpus = Corpus(given.corpus)
    if given.step == "build":
        found = build(system, corpus, given.folder)
    elif given.step == "first":
        found = first(system, corpus, given.folder, given.scoring, begun_s=given.begun_s)
    else:
        found = ask(system, corpus, given.folder, given.scoring, budget_s=given.budget_s)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
