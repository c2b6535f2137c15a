"""Numbers of super images in; recall, latency, memory, build time and disk of ways to find a query's best videos out.

    gridclip bench search                                       1e4 and 1e5 super images and the demo's: ten minutes
    gridclip bench search --super-images 1e4,1e5,1e6            half an hour or less, 10 GB of disk
    gridclip bench search --super-images 1e4,1e5,1e6 --resume   goes on with what the JSON file lacks

GridCLIP's exact search and its index are asked beside a plain matrix product and faiss' IVF-PQ and HNSW, which
clip-retrieval uses. The vectors are generated clusters, and those of the demo's model for generated videos, see
search_corpus.py. Every system is built, and asked, in processes of its own, one query at a time. Recall@10 is the share
of the exact ten best videos that were found: by their best super image (max), as peers are used, or by the softmax.
Each has several efforts (how much of an index is looked at), and the fastest one that finds 99% stands for it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import GridClipError
from . import measure
from .search_corpus import Corpus, make_demo, make_generated
from .search_systems import NEAREST, System, systems

PACKAGES = ("pylance", "faiss-cpu", "numpy", "torch")
ENOUGH_RECALL = 0.99
FIRST_RUNS = 5  # processes that answer one query
THREAD_NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS")

# Milliseconds of a query (p50) at 1e4, 1e5 and 1e6 super images that are 768 wide, on 2 cores, and recall@10 at 1e6;
# written down before the first run. A product reads 4 bytes a number at 15 GB/s; exact search took 1.4 us of processor
# time a super image at 750,000; the index of 50,000 means took 3 ms, and scoring 100 videos some 5.
PREDICTED: Mapping[str, Mapping[str, Any]] = {
    "numpy product, max": {"p50_ms": {"1e4": 2, "1e5": 20, "1e6": 205}, "recall_videos": 1},
    "gridclip exact, max": {"p50_ms": {"1e4": 10, "1e5": 100, "1e6": 1000}, "recall_videos": 1},
    "gridclip exact, softmax": {"p50_ms": {"1e4": 12, "1e5": 120, "1e6": 1200}, "recall_videos": 1},
    "gridclip index, max": {"p50_ms": {"1e4": 7, "1e5": 12, "1e6": 70}, "recall_videos": 0.99},
    "gridclip index, softmax": {"p50_ms": {"1e4": 7, "1e5": 8, "1e6": 10}, "recall_videos": 0.99},
    "gridclip index, softmax, temperature 0.1": {"p50_ms": {"1e4": 10, "1e5": 18, "1e6": 80}, "recall_videos": 0.99},
    "faiss IVF-PQ, max": {"p50_ms": {"1e4": 1, "1e5": 2, "1e6": 5}, "recall_videos": 0.85},
    "faiss HNSW, max": {"p50_ms": {"1e4": 1, "1e5": 2, "1e6": 4}, "recall_videos": 0.99},
}


class LeftOut(Exception):
    """A system cannot be measured; the message says why."""


def measure_system(system: System, corpus: Corpus, *, queries_s: float, limit_s: float, threads: int) -> dict[str, Any]:
    """What building and asking took; what was built is removed.

    Args:
        queries_s: seconds of queries for each effort.
        limit_s: seconds after which a process is ended.
        threads: of each process.

    Raises:
        LeftOut: it cannot be measured here, fails, or takes too long.
    """
    reason = system.refusal(corpus)
    if reason is not None:
        raise LeftOut(reason)
    folder = corpus.folder / "built"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was ended

    def step(name: str, *options: str) -> dict[str, Any]:
        arguments = [name, str(corpus.folder), str(folder), system.name, *options]
        return _in_a_process(arguments, limit_s=limit_s, threads=threads)

    try:
        found = step("build")
        found["asked"] = {}
        for scoring in system.scorings:
            chosen_scoring = ("--scoring", scoring)
            firsts = [step("first", *chosen_scoring, "--begun-s", f"{time.monotonic():f}") for _ in range(FIRST_RUNS)]
            asked = step("ask", *chosen_scoring, "--budget-s", str(queries_s))
            found["asked"][scoring] = {
                "first_s": statistics.median(each["seconds"] for each in firsts),
                "firsts_s": [each["seconds"] for each in firsts],
                "first_peak_mib": max(each["peak_mib"] for each in firsts),
                **asked,
                "chosen": chosen(asked["efforts"]),
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def chosen(efforts: Sequence[Mapping[str, Any]]) -> int:
    """Which effort stands for a system: the fastest with a recall of ENOUGH_RECALL, else that of the highest recall."""
    enough = [number for number, each in enumerate(efforts) if each["recall_videos"] >= ENOUGH_RECALL]
    if enough:
        return min(enough, key=lambda number: efforts[number]["p50_ms"])
    return max(range(len(efforts)), key=lambda number: efforts[number]["recall_videos"])


def lines(name: str, entry: Mapping[str, Any]) -> list[str]:
    """What is printed of a system: a line for what was built, and one for each way to score."""
    built = f"built in {entry['build_s']:.3g} s ({entry['build_peak_mib']} MiB), {entry['disk_mib']:.4g} MiB on disk"
    found = [f"{name}: {built}"]
    for scoring, asked in entry["asked"].items():
        best = asked["efforts"][asked["chosen"]]
        setting = "".join(f" ({key} {value})" for key, value in best["effort"].items())
        found.append(
            f"  {scoring}{setting}: recall@10 {best['recall_videos']:.3f}, p50 {best['p50_ms']:.4g} ms, p95 "
            f"{best['p95_ms']:.4g} ms, {asked['peak_mib']} MiB; first answer of a process {asked['first_s']:.2f} s, "
            f"{asked['first_peak_mib']} MiB"
        )
    return found


def _in_a_process(arguments: list[str], *, limit_s: float, threads: int) -> dict[str, Any]:
    """The step's figures; raises LeftOut where it fails or takes longer than the limit."""
    environment = {**os.environ, **dict.fromkeys(THREAD_NAMES, str(threads)), "LANCE_LOG": "error"}
    command = [sys.executable, "-m", "gridclip.benchmarks.search_process", *arguments]
    doing = {"build": "building it", "first": "asking it once", "ask": "asking it"}[arguments[0]]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise LeftOut(f"{doing} took longer than {limit_s:g} s") from None
    if done.returncode < 0:
        raise LeftOut(f"{doing} was ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise LeftOut(f"{doing} failed: {last[0][:300]}")
    return json.loads(done.stdout.splitlines()[-1])


def _results_before(target: pathlib.Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run with --resume goes on with; raises GridClipError where that was measured otherwise."""
    if not target.exists():
        return []
    report = json.loads(target.read_text())
    now = {"settings": settings, "versions": measure.versions(PACKAGES)}
    for part, values in now.items():
        for name, value in values.items():
            before = report[part].get(name)
            if before != value:
                raise GridClipError(
                    f"--resume: {target} was measured with {name} {before!r}, now it is {value!r}: leave --resume out, "
                    "and all is measured again"
                )
    results: list[dict[str, Any]] = report["results"]
    return results


def _entry(results: list[dict[str, Any]], corpus: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the results for a corpus, which is added where it is missing."""
    for entry in results:
        if entry["corpus"] == corpus and all(entry.get(key) == value for key, value in facts.items()):
            return entry
    load = measure.machine()["load_before"]
    results.append({"corpus": corpus, **facts, "load_before": load, "systems": {}, "left_out": {}})
    return results[-1]


def _sizes(text: str) -> list[int]:
    """Sizes such as "1e4,1e5"."""
    try:
        sizes = [int(float(size)) for size in text.split(",") if size]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers such as 1e4,1e5") from None
    if min(sizes, default=1) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of at least 1")
    return sizes


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measures, prints, and writes the result after every system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--super-images", type=_sizes, default="1e4,1e5", help="numbers of generated ones; '' for none")
    parser.add_argument("--demo-videos", type=int, default=500, help="long videos for the demo's model; 0: none")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--width", type=int, default=768, help="of the generated vectors")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of each process")
    parser.add_argument("--queries-s", type=float, default=20, help="seconds of queries for each effort of a system")
    parser.add_argument("--limit-s", type=float, default=3600, help="seconds after which a process is ended")
    parser.add_argument("--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for the vectors")
    parser.add_argument("--resume", action="store_true", help="leave out what the JSON file has already")
    parser.add_argument("--note", help="what else a reader should know, such as other work on the machine")
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "search.json")
    given = parser.parse_args(argv)
    settings = {
        "queries": given.queries,
        "threads": given.threads,
        "super_images_asked_of_peers": NEAREST,
        "first_runs": FIRST_RUNS,
        "queries_s": given.queries_s,
        "limit_s": given.limit_s,
    }
    limits = {"queries_s": given.queries_s, "limit_s": given.limit_s, "threads": given.threads}
    results = _results_before(given.json, settings) if given.resume else []
    written = {**settings, "note": given.note, "predicted": PREDICTED}
    for name, make in _corpora(given):
        corpus = make(given.work_dir / "search" / name)
        print(f"\n{name}: {corpus.facts['super_images']:,} super images", flush=True)
        entry = _entry(results, name.partition("-")[0], corpus.facts)
        for system in systems():
            if system.name in entry["systems"]:
                continue
            entry["left_out"].pop(system.name, None)
            try:
                entry["systems"][system.name] = measure_system(system, corpus, **limits)
                print("\n".join(lines(system.name, entry["systems"][system.name])), flush=True)
            except LeftOut as error:
                entry["left_out"][system.name] = str(error)
                print(f"{system.name}: left out, {error}", flush=True)
            measure.write(given.json, packages=PACKAGES, settings=written, results=results)


def _corpora(given: argparse.Namespace) -> list[tuple[str, Callable[[pathlib.Path], Corpus]]]:
    """Names, and what makes each in its folder."""
    corpora: list[tuple[str, Callable[[pathlib.Path], Corpus]]] = []
    if given.demo_videos:
        corpora.append((f"demo-{given.demo_videos}-{given.queries}", _demo(given)))
    named = ((f"generated-{size}-{given.width}-{given.queries}", size) for size in given.super_images)
    return [*corpora, *((name, _generated(given, size)) for name, size in named)]


def _demo(given: argparse.Namespace) -> Callable[[pathlib.Path], Corpus]:
    return lambda folder: make_demo(folder, videos=given.demo_videos, queries=given.queries, say=print)


def _generated(given: argparse.Namespace, size: int) -> Callable[[pathlib.Path], Corpus]:
    return lambda folder: make_generated(folder, super_images=size, queries=given.queries, width=given.width)


if __name__ == "__main__":
    main()
