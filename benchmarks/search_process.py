"""A corpus, a folder and a system's name in; what building it, or asking it, took and held out, as a line of JSON.

    python -m gridclip.benchmarks.search_process build CORPUS FOLDER "faiss HNSW"
    python -m gridclip.benchmarks.search_process ask CORPUS FOLDER "faiss HNSW" --budget-s 20

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
from .search_systems import Answer, Ask, Effort, System, systems

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


def ask(system: System, corpus: Corpus, folder: pathlib.Path, *, budget_s: float) -> dict[str, Any]:
    """The first answer, then each effort's latency and recall, and the memory of all of it."""
    queries = corpus.queries
    begun = time.perf_counter()
    opened = system.open(folder)
    opened(system.efforts[0])(queries[0])
    first = {"first_answer_s": time.perf_counter() - begun, "first_answer_peak_mib": round(peak_bytes() / 2**20)}
    efforts = []
    for effort in system.efforts:
        took_s, answers = timed(opened(effort), queries, budget_s=budget_s)
        efforts.append(summary(effort, took_s, answers, corpus, system.aggregate))
    first["first_answer_s"] = measure.significant(first["first_answer_s"])
    return {**first, "peak_mib": round(peak_bytes() / 2**20), "efforts": efforts}


def timed(ask_one: Ask, queries: np.ndarray, *, budget_s: float) -> tuple[list[float], list[Answer]]:
    """Seconds and answers of the queries, one after the other, as many as the budget allows and at least FEWEST."""
    for query in queries[-WARM_UP:]:
        ask_one(query)
    took_s: list[float] = []
    answers: list[Answer] = []
    for query in queries:
        begun = time.perf_counter()
        answers.append(ask_one(query))
        took_s.append(time.perf_counter() - begun)
        if sum(took_s) > budget_s and len(took_s) >= FEWEST:
            break
    return took_s, answers


def summary(
    effort: Effort, took_s: list[float], answers: list[Answer], corpus: Corpus, aggregate: str
) -> dict[str, Any]:
    """One effort's line of the report."""
    p50_s, p99_s = np.percentile(took_s, [50, 99])
    line = {
        "effort": dict(effort),
        "queries": len(took_s),
        "p50_ms": measure.significant(1000 * p50_s),
        "p99_ms": measure.significant(1000 * p99_s),
        "recall_videos": recall([answer.videos for answer in answers], corpus.exact(aggregate)),
    }
    super_images = [answer.super_images for answer in answers if answer.super_images is not None]
    if super_images:
        line["recall_super_images"] = recall(super_images, corpus.exact("super_images"))
    return line


def recall(found: list[np.ndarray], exact: np.ndarray) -> float:
    """The share of the exact best TOP that are among the first TOP found, over the queries that were asked."""
    shares = [np.isin(best, own[:TOP]).mean() for own, best in zip(found, exact, strict=False)]
    return round(float(np.mean(shares)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("build", "ask"))
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("system")
    parser.add_argument("--budget-s", type=float, default=20.0)
    given = parser.parse_args()
    (system,) = (system for system in systems() if system.name == given.system)
    corpus = Corpus(given.corpus)
    if given.step == "build":
        found = build(system, corpus, given.folder)
    else:
        found = ask(system, corpus, given.folder, budget_s=given.budget_s)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
