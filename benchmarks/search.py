"""Numbers of super images in; recall, latency, memory, build time and disk of ways to find a query's ten best videos out.

Beside GridCLIP's exact search and its index: a plain matrix product, Lance's indexes asked directly, and faiss' IVF-PQ
and HNSW, which clip-retrieval uses. The vectors are generated clusters and the demo's own, see search_corpus.py; each
system is built and asked in processes of its own, one query at a time on --threads threads. Recall@10 is the share of
the exact ten best that were found: of videos by their best super image (max), or by GridCLIP's default (softmax), and of
super images where a system tells them.

    gridclip bench search                                  1e4 and 1e5 super images and the demo's: some ten minutes
    gridclip bench search --sizes 1e4,1e5,1e6              an hour or less, 20 GB of disk
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import measure
from .search_corpus import Corpus, make_demo, make_generated
from .search_systems import NEAREST, System, systems

PACKAGES = ("pylance", "faiss-cpu", "numpy", "torch")
ENOUGH_RECALL = 0.99


def run(corpus: Corpus, *, budget_s: float, limit_s: float, threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Every system on one corpus; those that cannot be measured are left out with the reason."""
    measured: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for system in systems():
        reason = system.refusal(corpus)
        if reason is None:
            try:
                measured[system.name] = measure_system(
                    system, corpus, budget_s=budget_s, limit_s=limit_s, threads=threads
                )
            except LeftOut as error:
                reason = str(error)
        if reason is not None:
            left_out[system.name] = reason
        say(line(system.name, measured[system.name]) if reason is None else f"{system.name:26} left out: {reason}")
    return {**corpus.facts, "systems": measured, "left_out": left_out}


class LeftOut(Exception):
    """A system cannot be measured; the message says why."""


def measure_system(system: System, corpus: Corpus, *, budget_s: float, limit_s: float, threads: int) -> dict[str, Any]:
    """What building and asking took; what was built is removed. Raises LeftOut."""
    with tempfile.TemporaryDirectory(dir=corpus.folder) as temporary:
        folder = pathlib.Path(temporary) / "built"
        arguments = [str(corpus.folder), str(folder), system.name, "--budget-s", str(budget_s)]
        built = _in_a_process("build", arguments, limit_s=limit_s, threads=threads)
        asked = _in_a_process("ask", arguments, limit_s=limit_s, threads=threads)
    return {**built, **asked, "chosen": chosen(asked["efforts"])}


def chosen(efforts: Sequence[Mapping[str, Any]]) -> int:
    """Which effort stands for a system: the fastest with a recall of ENOUGH_RECALL, else that of the highest recall."""
    enough = [number for number, each in enumerate(efforts) if each["recall_videos"] >= ENOUGH_RECALL]
    if enough:
        return min(enough, key=lambda number: efforts[number]["p50_ms"])
    return max(range(len(efforts)), key=lambda number: efforts[number]["recall_videos"])


def line(name: str, entry: Mapping[str, Any]) -> str:
    """What is printed of a system."""
    best = entry["efforts"][entry["chosen"]]
    return (
        f"{name:26} recall@10 {best['recall_videos']:.3f}, p50 {best['p50_ms']:.4g} ms, p99 {best['p99_ms']:.4g} ms, "
        f"first answer {entry['first_answer_s']:.2f} s, {entry['peak_mib']} MiB; built in {entry['build_s']:.3g} s "
        f"({entry['build_peak_mib']} MiB), {entry['disk_mib']:.4g} MiB on disk"
    )


def _in_a_process(step: str, arguments: list[str], *, limit_s: float, threads: int) -> dict[str, Any]:
    """The step's figures; raises LeftOut where it fails or takes longer than the limit."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "gridclip.benchmarks.search_process", step, *arguments]
    doing = {"build": "building", "ask": "asking"}[step]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise LeftOut(f"{doing} it took longer than {limit_s:g} s") from None
    if done.returncode < 0:
        raise LeftOut(f"{doing} it was ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise LeftOut(f"{doing} it failed: {last[0][:300]}")
    return json.loads(done.stdout.splitlines()[-1])


def _sizes(text: str) -> list[int]:
    """Sizes such as "1e4,1e5"."""
    return [int(float(size)) for size in text.split(",") if size]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measures, prints and writes the result after every corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_sizes, default="1e4,1e5", help="super images, generated; '' for none")
    parser.add_argument("--demo-videos", type=int, default=500, help="long videos for the demo's model; 0: none")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--width", type=int, default=768, help="of the generated vectors")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--budget-s", type=float, default=20, help="seconds of queries for each effort of a system")
    parser.add_argument(
        "--limit-s", type=float, default=600, help="seconds after which a build or a search is given up"
    )
    parser.add_argument("--work", type=pathlib.Path, help="keep the vectors in this folder, for another run")
    parser.add_argument("--note", help="what else a reader should know, such as other work on the machine")
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "search.json")
    given = parser.parse_args(argv)
    settings = {
        "queries": given.queries,
        "threads": given.threads,
        "super_images_asked_of_peers": NEAREST,
        "budget_s": given.budget_s,
        "limit_s": given.limit_s,
        "note": given.note,
        "load_before": measure.machine()["load_before"],
    }
    results = []
    with tempfile.TemporaryDirectory(dir=given.work and _made(given.work)) as temporary:
        for name, make in _corpora(given):
            corpus = make((given.work or pathlib.Path(temporary)) / name)
            print(f"\n{name}: {corpus.facts['super_images']:,} super images", flush=True)
            limits = {"budget_s": given.budget_s, "limit_s": given.limit_s, "threads": given.threads}
            found = run(corpus, **limits, say=lambda text: print(text, flush=True))
            results.append({"corpus": name.split("-")[0], **found})
            measure.write(given.json, packages=PACKAGES, settings=settings, results=results)
            if given.work is None:
                shutil.rmtree(corpus.folder)


def _corpora(given: argparse.Namespace) -> list[tuple[str, Callable[[pathlib.Path], Corpus]]]:
    """Names, and what makes each in its folder."""
    corpora: list[tuple[str, Callable[[pathlib.Path], Corpus]]] = []
    if given.demo_videos:
        corpora.append(
            (
                f"demo-{given.demo_videos}-{given.queries}",
                lambda folder: make_demo(folder, videos=given.demo_videos, queries=given.queries, say=print),
            )
        )
    for size in given.sizes:
        corpora.append((f"generated-{size}-{given.width}-{given.queries}", _generating(given, size)))
    return corpora


def _generating(given: argparse.Namespace, size: int) -> Callable[[pathlib.Path], Corpus]:
    return lambda folder: make_generated(folder, super_images=size, queries=given.queries, width=given.width)


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
