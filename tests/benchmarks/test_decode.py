"""The decode benchmarks: readers that return other frames are found out, and the reports hold what charts need."""

from __future__ import annotations

import functools
import json
import operator
import os
import pathlib
import tempfile

import numpy as np
import pytest
from gridclip.benchmarks import decode, decode_peers, floor, same_frames, sweep
from gridclip.benchmarks.crew import Crew
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import wanted_frames

OWN = {name: decode_peers.READERS[name] for name in ("gridclip", "PyAV")}


def one_frame_late(path: pathlib.Path, fps: float) -> np.ndarray:
    summary = scan.summarise(path)
    late = set((wanted_frames(summary.frame_count, summary.avg_fps, fps=fps) + 1).tolist())
    with scan.open_video(path) as (container, stream):
        frames = enumerate(container.decode(stream))
        return np.stack([frame.to_ndarray(width=446, height=336, format="rgb24") for at, frame in frames if at in late])


def not_installed(path: pathlib.Path, fps: float) -> np.ndarray:
    raise ModuleNotFoundError("No module named 'peer'")


def broken(path: pathlib.Path, fps: float) -> np.ndarray:
    raise RuntimeError("several\nlines")


@pytest.mark.parametrize("name", ["car-detection.mp4", "rabbit320.webm"])
def test_frames_are_checked_on_real_files(shared_data: pathlib.Path, name: str) -> None:
    path = shared_data / "videos" / name
    summary = scan.summarise(path)
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=0.5)
    installed = {name: decode_peers.READERS[name] for name in ("gridclip --decoder decord", "decord")}
    odd = {
        "late": one_frame_late,
        "fewer": lambda path, fps: decode_peers.gridclip_auto(path, fps)[1:],
        "absent": not_installed,
        "broken": broken,
    }
    calls, left_out = same_frames.usable(path, 0.5, wanted, OWN | installed | odd)
    assert set(calls) == {*OWN, *installed, "late", "fewer"}
    assert calls["gridclip"]().shape == (len(wanted), 336, 446, 3)
    assert set(left_out) == set(odd)
    assert f"{wanted[-1] + 1} instead of {wanted[-1]}" in left_out["late"] or "frames are others" in left_out["late"]
    assert left_out["fewer"] == f"returns {len(wanted) - 1} frames instead of {len(wanted)}"
    assert left_out["absent"] == "not installed, or cannot be imported: No module named 'peer'"
    assert left_out["broken"] == "cannot read it: RuntimeError: several lines"


def test_dali_returns_the_wanted_frames_or_says_why_not(shared_data: pathlib.Path) -> None:
    dali = {name: decode_peers.READERS[name] for name in ("gridclip --decoder dali", "DALI")}
    for name, reasons in (
        ("rabbit320.webm", {}),
        (
            "rabbit320.mp4",
            {
                "gridclip --decoder dali": "VideoError: decode: GridCLIP gives it to PyAV: DALI does not decode h264",
                "DALI": "VideoError: decode: DALI does not decode h264 on the CPU",
            },
        ),
    ):
        path = shared_data / "videos" / name
        summary = scan.summarise(path)
        wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=0.5)
        _, left_out = same_frames.usable(path, 0.5, wanted, dali)
        assert left_out.keys() == reasons.keys()
        assert all(reason in left_out[reader] for reader, reason in reasons.items())


def test_a_crew_makes_every_call_once_per_process(tmp_path: pathlib.Path) -> None:
    with Crew(2) as crew:
        crew.do(functools.partial(tempfile.mkdtemp, dir=tmp_path))
        assert len(list(tmp_path.iterdir())) == len(crew) == 2
        with pytest.raises(RuntimeError, match="FileExistsError"):
            crew.do(functools.partial(os.mkdir, tmp_path / "only one can make it"))
        crew.do(os.getpid)  # they go on


def test_decode_report(small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "decode.json"
    cores = os.sched_getaffinity(0)
    paths = [small_videos / "a.mp4", small_videos / "c.mkv"]
    decode.run(paths, repetitions=2, processes=2, readers={**OWN, "broken": operator.sub}, target=target)
    assert os.sched_getaffinity(0) == cores
    report = json.loads(target.read_text())
    assert [(entry["video"], entry["wanted_frames"]) for entry in report["results"]] == [("a.mp4", 4), ("c.mkv", 8)]
    for entry in report["results"]:
        assert list(entry["not_compared"]) == ["broken"]
        assert set(entry["times_floor"]) == {"gridclip", "PyAV"}
        for part, processes in ((entry, 1), (entry["all_cores"], 2)):
            assert part["processes"] == processes
            assert {name: len(values) for name, values in part["seconds"].items()} == {"gridclip": 2, "PyAV": 2}
            assert part["ratio_to_best_peer"] == part["ratio_to_peer"]["PyAV"] > 0
    assert report["versions"]["av"] and report["machine"]["cores"]


def test_the_floor_decodes_what_must_be_decoded_and_nothing_else(shared_data: pathlib.Path) -> None:
    path = shared_data / "videos" / "car-detection.mp4"
    decoded, packets = decode_peers.packets_decoded(path, 0.5)
    assert decoded < packets
    with floor.floor(path, 0.5) as decode_only:
        assert decode_only() == decode_only() == decoded


def test_the_verdict_leaves_out_files_that_only_start() -> None:
    long = {
        "median_s": {"gridclip": 1.0},
        "ratio_to_peer": {"decord": 2.0, "PyAV": 3.0},
        "packets_decoded": 36,
        "packets": 100,
        "times_floor": {"gridclip": 1.25},
    }
    short = {**long, "median_s": {"gridclip": 0.002}, "times_floor": {"gridclip": 9.0}, "packets": 36}
    assert decode.verdict([long, long]) == (
        "on your files, on one core: 2.00 times as fast as decord; 64% of packets are skipped; "
        "at the floor (libavcodec alone on the others) by 1.25"
    )
    assert decode.verdict([long, short]).startswith(
        "on 1 of your 2 files (the others take no time), on one core: 2.00 times as fast as decord; 64% of"
    )
    assert decode.verdict([short, short]).startswith("on your files, ") and "by 9.00" in decode.verdict([short])


def test_the_verdict_where_peers_or_files_are_missing() -> None:
    entry = {
        "median_s": {"gridclip": 1.0},
        "ratio_to_peer": {"decord": 2.0, "PyAV": 3.0},
        "packets_decoded": 10,
        "packets": 10,
        "times_floor": {"gridclip": 1.0},
    }
    bare, other = ({**entry, "ratio_to_peer": ratios} for ratios in ({}, {"PyAV": 3.0, "OpenCV": 1.0}))
    assert decode.verdict([entry]) == (
        "on your file, on one core: 2.00 times as fast as decord; 0% of packets are skipped; "
        "at the floor (libavcodec alone on the others) by 1.00"
    )
    assert "2.00 times as fast as decord on the 1 that it decodes alike; " in decode.verdict([entry, other])
    assert "3.00 times as fast as PyAV; " in decode.verdict([other])
    assert "on your file, on one core: no other program to compare with; 0% of packets" in decode.verdict([bare])
    assert decode.verdict([]) == "no file could be measured: give a folder with videos as --videos"


def test_sweep_report(small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "sweep.json"
    sweep.run([small_videos / "c.mkv"], rates_fps=(4, 0.25), repetitions=1, readers=OWN, target=target)
    (entry,) = json.loads(target.read_text())["results"]
    assert [(rate["fps"], rate["wanted_frames"]) for rate in entry["rates"]] == [(0.25, 4), (4, 68)]
    assert set(entry["crossover_fps"]) == {"PyAV", "best peer"}


def test_files_that_are_no_videos_are_left_out(
    small_videos: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "a.mp4").symlink_to(small_videos / "a.mp4")
    assert decode.readable(tmp_path) == [tmp_path / "a.mp4"]
    assert "notes.txt is left out" in capsys.readouterr().out
