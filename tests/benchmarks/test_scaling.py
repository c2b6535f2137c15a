"""benchmarks/resources.py, scaling.py and end_to_end.py: what they claim to see is there."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest
from gridclip.benchmarks import end_to_end, resources, scaling
from gridclip.engine.encoding.encoder import Encoder

HOLDS_100_MIB = "import time; held = bytearray(100 << 20); held[::4096] = b'x' * len(held[::4096]); time.sleep(30)"
SPINS = "while True: pass"


def child(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program])


def test_memory_and_processor_of_children_are_seen() -> None:
    with resources.Watch(every_s=0.1) as watch:
        holder, spinner = child(HOLDS_100_MIB), child(SPINS)
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not any(
                sample.worker_cores > 0.2 and sample.memory_mib - sample.parent_mib > 100 for sample in watch.samples
            ):
                time.sleep(0.1)
            assert {holder.pid, spinner.pid} <= set(resources.descendants(os.getpid()))
        finally:
            for process in (holder, spinner):
                process.kill()
                process.wait()
    fullest = max(watch.samples, key=lambda sample: sample.memory_mib - sample.parent_mib)
    assert fullest.workers >= 2 and fullest.memory_mib - fullest.parent_mib > 100
    assert any(sample.cores >= sample.worker_cores > 0.2 for sample in watch.samples)
    assert watch.peak_mib >= fullest.memory_mib and watch.parent_peak_mib >= fullest.parent_mib
    assert [sample.at_s for sample in watch.samples] == sorted(sample.at_s for sample in watch.samples)


def test_grandchildren_count_and_the_dead_do_not() -> None:
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPINS!r}])"
    parent = child(program)
    try:
        deadline = time.monotonic() + 20
        while len(resources.descendants(parent.pid)) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        (grandchild,) = resources.descendants(parent.pid)
        assert grandchild in resources.descendants(os.getpid())
    finally:
        parent.kill()
        parent.wait()
    os.kill(grandchild, 9)
    assert resources.memory_mib(10**9) == 0.0


def test_the_line_is_found() -> None:
    counts = [10, 100, 1000]
    fit = scaling.line(counts, [0.5 + 0.02 * count for count in counts])
    assert fit["seconds_per_video"] == pytest.approx(0.02) and fit["start_s"] == pytest.approx(0.5)
    assert fit["largest_deviation"] == pytest.approx(0, abs=1e-9)
    assert scaling.line(counts, [count**2 / 1e4 for count in counts])["largest_deviation"] > 0.2


def test_both_ways_store_the_same_videos(small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path) -> None:
    ways = end_to_end.Ways(Encoder(tiny_model_dir, provider="cpu"), small_videos, tmp_path, num_workers=1)
    ways.two_stages()
    ways.fused()
    assert {way: (done.done, done.super_images) for way, done in ways.summaries.items()} == {
        "two stages": (4, 5),
        "fused": (4, 5),
    }
    assert [list(stages) for rounds in ways.stages.values() for stages in rounds] == [
        ["superimages", "embed-images"],
        ["embed-videos"],
    ]
    assert all(0 < done.encoder_s <= done.seconds for done in ways.summaries.values())
