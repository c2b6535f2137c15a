"""A store of generated vectors in; what a page's server answers to many clients at once, how fast, and its memory, out.

The server runs as a user starts it, in a process of its own; the clients are connections of this one, each of which
asks its next question when it has the answer to the one before. Both share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator

import numpy as np

from ..engine.index.building import index_store
from ..engine.store.store import Store, VideoEmbedding
from ..export.folder import export_model
from . import measure
from .demo import scenes

CHECKPOINT = pathlib.Path(__file__).parent / "demo" / "tiny_clip.pt"
SUPER_IMAGES = 15  # of a video: ActivityNet's mean at 0.5 fps and grid size 2
MEMORY_EVERY_S = 1.0
APPEND = 2000  # videos


def write_store(path: pathlib.Path, *, videos: int, width: int) -> None:
    """Videos of a few scenes each: vectors around random centres, of unit length; kept if they are there."""
    store = Store.open(path, create=True)
    if len(store.finished_videos()) >= videos:
        return
    rng = np.random.default_rng(0)
    starts = np.arange(SUPER_IMAGES) * 8.0
    for first in range(0, videos, APPEND):
        some = []
        for number in range(first, min(first + APPEND, videos)):
            centres = np.repeat(rng.normal(size=(3, width)), SUPER_IMAGES // 3, axis=0)
            vectors = centres + 0.5 * rng.normal(size=centres.shape)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            some.append(VideoEmbedding(f"video_{number:07d}", starts, starts + 8, vectors.astype(np.float16)))
        store.append_videos(some)


def sentences() -> Iterator[str]:
    """Captions of generated scenes, none of them prepared for the server; they come again after some thousand."""
    rng = np.random.default_rng(1)
    return itertools.cycle([scenes.caption(scenes.make_scene(rng, unseen=True), rng) for _ in range(5000)])


@contextlib.contextmanager
def serving(store: pathlib.Path, model: pathlib.Path) -> Iterator[tuple[str, int, int]]:
    """Host, port and process id of a server."""
    command = [sys.executable, "-m", "gridclip.cli", "serve", "--store", str(store), "--model", str(model)]
    server = subprocess.Popen([*command, "--port", "0", "--num-gpus", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)/", server.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start")
        yield found[1], int(found[2]), server.pid
    finally:
        server.terminate()
        server.wait(30)


async def load(host: str, port: int, *, clients: int, seconds: float) -> dict[str, object]:
    """What that many clients see: milliseconds of every answer, and how many were none."""
    questions = sentences()
    took_ms: list[float] = []
    errors: list[object] = []
    end = time.monotonic() + seconds

    async def ask_on() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            while time.monotonic() < end:
                begun = time.perf_counter()
                query = urllib.parse.urlencode({"q": next(questions), "top": 10})
                writer.write(f"GET /api/search?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                status, body = await _answer(reader)
                took_ms.append(1000 * (time.perf_counter() - begun))
                if status != 200 or len(json.loads(body)["results"]) != 10:
                    errors.append(status)
        finally:
            writer.close()

    begun = time.perf_counter()
    lost = await asyncio.gather(*(ask_on() for _ in range(clients)), return_exceptions=True)
    errors += [repr(each) for each in lost if each is not None]
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {
        "answers": len(took_ms),
        "errors": len(errors),
        "answers_per_s": measure.significant(len(took_ms) / (time.perf_counter() - begun)),
        "p50_ms": measure.significant(float(p50)),
        "p99_ms": measure.significant(float(p99)),
        "max_ms": measure.significant(max(took_ms)),
    }


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
    return int(head.split(" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)


async def watched(pid: int, work: asyncio.Future) -> list[float]:
    """MiB that the process holds, every second until the work is done."""
    held = []
    while not work.done():
        held.append(memory_mib(pid))
        await asyncio.sleep(MEMORY_EVERY_S)
    return held


def memory_mib(pid: int) -> float:
    """What a process holds now; Linux only."""
    found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def measure_load(store: pathlib.Path, model: pathlib.Path, clients: list[int], seconds: float) -> list[dict]:
    results = []
    with serving(store, model) as (host, port, pid):
        await load(host, port, clients=2, seconds=3)  # the model is loaded at the first question
        for count in clients:
            work = asyncio.ensure_future(load(host, port, clients=count, seconds=seconds))
            held = await watched(pid, work)
            quarter = max(1, len(held) // 4)
            memory = {
                "memory_mib_first_quarter": round(statistics.median(held[:quarter])),
                "memory_mib_last_quarter": round(statistics.median(held[-quarter:])),
                "memory_mib_max": round(max(held)),
            }
            results.append({"clients": count, **work.result(), **memory})
            print(results[-1], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=1000, help="in the store, of 15 super images each")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 50], help="at once, one figure after the other")
    parser.add_argument("--seconds", type=float, default=30, help="for each number of clients")
    parser.add_argument("--index", action="store_true", help="make the store's index first, as `gridclip index` does")
    parser.add_argument("--work", type=pathlib.Path, help="keep the store and the model in this folder")
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "serve.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or pathlib.Path(temporary)
        model, store = work / "model", work / f"store-{options.videos}"
        if not (model / "model.json").exists():
            export_model(str(CHECKPOINT), model)
        width = json.loads((model / "model.json").read_text())["embed_dim"]
        write_store(store, videos=options.videos, width=width)
        if options.index:
            index_store(Store.open(store))
        results = asyncio.run(measure_load(store, model, options.clients, options.seconds))
    settings = {
        "videos": options.videos,
        "super_images": SUPER_IMAGES * options.videos,
        "width": width,
        "model": "the demo's",
        "seconds": options.seconds,
        "index": options.index,
        "load_after": round(os.getloadavg()[0], 2),
    }
    packages = ["starlette", "uvicorn", "onnxruntime", "pylance", "numpy"]
    measure.write(options.json, packages=packages, settings=settings, results=results)


if __name__ == "__main__":
    main()
