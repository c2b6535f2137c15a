"""A number of runs in, what a job on a Ray cluster lost or doubled out, while workers, nodes and drivers are killed.

python -m kills.cluster --runs 20 --seed 1 (with tests/ on the path). In every run one video kills each worker that
takes it; a worker, a node (another one joins) and then the driver are killed when a random number of videos is stored;
the job is taken up again, and one more worker killed. At the end all other videos are there once, bit for bit.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import click
import coloured_videos
import fake_model
import lance
import local_cluster

COPIES = 5
POISON = "green3"
LIMIT_S = 180.0


@click.command()
@click.option("--runs", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--seconds", type=float, default=float("inf"), help="Begin no further run after so many seconds.")
@click.option("--json", "json_file", type=click.Path(path_type=pathlib.Path), help="Write the runs to this file.")
def main(runs: int, seed: int, seconds: float, json_file: pathlib.Path | None) -> None:
    """Kill what can be killed of a job on a cluster, and count what is lost."""
    began = time.monotonic()
    work = pathlib.Path(tempfile.mkdtemp(prefix="cluster-kills-"))
    found = []
    try:
        model, videos = fake_model.write(work / "model"), work / "videos"
        write_videos(videos)
        with local_cluster.three_nodes() as cluster:
            job = Job(cluster, model, videos)
            expected = job.undisturbed(work / "undisturbed")
            for number in range(runs):
                if time.monotonic() - began < seconds:
                    found.append(job.disturbed(work / f"run-{number}", expected, random.Random(f"{seed}/{number}")))
                    click.echo(json.dumps({"run": number, **found[-1]}))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    total = collections.Counter()
    for run in found:
        total.update({name: value for name, value in run.items() if isinstance(value, int)})
    click.echo(json.dumps({"runs": len(found), **total}))
    if json_file is not None:
        json_file.write_text(json.dumps({"seed": seed, "total": total, "runs": found}, indent=1) + "\n")
    if any(total[name] for name in ("lost", "doubled", "different", "failures differ", "not ended")):
        raise SystemExit(1)


def write_videos(folder: pathlib.Path) -> None:
    """40 videos, and a file that is none."""
    folder.mkdir()
    for number, colour in enumerate(coloured_videos.COLOURS):
        file = coloured_videos.write(folder / f"{colour}0.mp4", colour, duration_s=2 * number + 4)
        for copy in range(1, COPIES):
            os.link(file, folder / f"{colour}{copy}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")


class Job:
    """The same job again and again, in new stores."""

    def __init__(self, cluster: Any, model: pathlib.Path, videos: pathlib.Path) -> None:
        self._cluster = cluster
        self._options = ["--model", model, "--video-dir", videos, "--num-gpus", "0"]

    def _start(self, store: pathlib.Path, *more: str, poison: str = POISON) -> subprocess.Popen:
        store.parent.mkdir(exist_ok=True)
        with (store.parent / f"{store.name}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "kills.cluster_command",
                    "embed-videos",
                    "--store",
                    store,
                    *self._options,
                    *more,
                ],
                env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1]), "POISON": poison},
                stdout=log,
                stderr=log,
            )

    def undisturbed(self, store: pathlib.Path) -> dict[str, list[bytes]]:
        """What is stored on one machine."""
        if self._start(store, poison="").wait(LIMIT_S):
            raise SystemExit((store.parent / f"{store.name}.log").read_text())
        return stored(store)

    def disturbed(self, store: pathlib.Path, expected: dict[str, list[bytes]], rng: random.Random) -> dict[str, Any]:
        """One run: its kills and what is not as it should be."""
        cluster = ["--cluster", self._cluster.address]
        said = []
        kills = [("worker", self._kill_worker), ("node", self._kill_node), ("driver", None)]
        moments = sorted(rng.randrange(30) for _ in kills)
        order = rng.sample(kills[:2], 2) + kills[2:]
        process = self._start(store, *cluster)
        for moment, (name, kill) in zip(moments, order, strict=True):
            wait_for(store, moment, process)
            said.append(f"{name} at {moment} videos")
            process.kill() if kill is None else kill(rng)
        process.wait(LIMIT_S)
        left = len(stored(store))
        process = self._start(store, *cluster, "--resume")
        moment = rng.randrange(left, 39)
        wait_for(store, moment, process)
        said.append(f"worker at {moment} videos")
        self._kill_worker(rng)
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(LIMIT_S)
        process.kill()
        found = stored(store)
        wanted = expected.keys() - {POISON}
        path = store / "failures.jsonl"
        failed = sorted(json.loads(line)["video_id"] for line in path.read_text().splitlines()) if path.exists() else []
        return {
            "kills": said,
            "stored before resume": left,
            "lost": len(wanted - found.keys()),
            "doubled": sum(len(copies) > 1 for copies in found.values()),
            "different": sum(found[name] != expected[name] for name in wanted & found.keys()),
            "failures differ": int(failed != ["broken", POISON]),
            "failed": failed,
            "not ended": int(status != 0),
        }

    def _kill_worker(self, rng: random.Random) -> None:
        workers = actors()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)

    def _kill_node(self, rng: random.Random) -> None:
        local_cluster.kill_node(self._cluster)
        local_cluster.add_node(self._cluster)


def wait_for(store: pathlib.Path, count: int, job: subprocess.Popen) -> None:
    """Until so many videos are stored and workers are there, or the job has ended."""
    while job.poll() is None and not (len(stored(store)) >= count and actors()):
        time.sleep(0.1)


def stored(store: pathlib.Path) -> dict[str, list[bytes]]:
    """Every copy of every video: its rows' vectors."""
    if not (store / "super_images.lance" / "_versions").is_dir():
        return {}
    copies: dict[str, list[bytes]] = {}
    try:
        table = lance.dataset(str(store / "super_images.lance")).scanner(scan_in_order=True).to_table()
    except (OSError, ValueError):  # between two files of its first commit
        return {}
    last = ""
    for row in table.select(["video_id", "index", "vector"]).to_pylist():
        if row["index"] == 0 or row["video_id"] != last:
            copies.setdefault(row["video_id"], []).append(b"")
        last = row["video_id"]
        copies[last][-1] += repr(row["vector"]).encode()
    return copies


def actors() -> list[int]:
    """The processes of workers on the nodes that this process has started."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"ray::Worker" in (process / "cmdline").read_bytes() and os.getpid() in parents(int(process.name)):
                found.append(int(process.name))
    return sorted(found)


def parents(process: int) -> list[int]:
    """The process's parent, the parent of that, and so on."""
    found = []
    while process > 1:
        process = int(pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(process)
    return found


if __name__ == "__main__":
    main()
