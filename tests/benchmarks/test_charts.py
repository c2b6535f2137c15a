"""Results in, charts out: the numbers behind them, and the files where matplotlib is installed."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from gridclip.benchmarks import chart_parts, charts, decode, measure, readme_table, sweep

MACHINE = {"processor": "Some Processor", "cores": 8}


def decode_report() -> dict[str, Any]:
    seconds = {"gridclip": [1.0, 3.0, 2.0], "gridclip --decoder decord": [1.0], "decord": [6.0], "OpenCV": [1.0]}
    facts = {"wanted": 10, "duration_s": 20.0}
    not_compared = {"OpenCV": "returns 9 frames instead of 10", "DALI": "cannot read it: VideoError: ..."}
    entry = {
        "video": "a_file_$name$.mp4",
        "packets_decoded": 100,
        "packets": 600,
        "not_compared": not_compared,
        **decode.speeds(seconds, processes=1, not_compared=not_compared, **facts),
        "all_cores": decode.speeds(seconds, processes=8, not_compared=not_compared, **facts),
    }
    return {"machine": MACHINE, "settings": {"fps": 0.5}, "results": [entry, {**entry, "video": "b.mp4"}]}


def sweep_report() -> dict[str, Any]:
    ratios = {"decord": [8.0, 4.0, 2.0, 0.5], "PyAV": [8.0, 4.0, 3.0, 2.0]}
    rates = [
        {"fps": fps, "ratio_to_peer": {peer: values[at] for peer, values in ratios.items()}}
        for at, fps in enumerate((0.1, 0.5, 1.0, 4.0))
    ]
    entry = {"video": "a.mp4", "crossover_fps": sweep.crossovers(rates), "rates": rates}
    return {"machine": MACHINE, "settings": {}, "results": [entry]}


def end_to_end_report() -> dict[str, Any]:
    sample = {"at_s": 0.5, "cores": 1.5, "worker_cores": 1.0, "memory_mib": 300.0, "parent_mib": 200.0, "workers": 2}
    entry = {
        "videos": 8,
        "super_images": 24,
        "videos_per_s": {"two stages": 1.0, "fused": 2.0},
        "encoder_busy": {"two stages": 0.5, "fused": 0.9},
        "stages_s": {"two stages": [{"superimages": 3.0, "embed-images": 5.0}], "fused": [{"embed-videos": 4.0}]},
        "over_time": {"two stages": [sample, {**sample, "at_s": 1.0}], "fused": [sample]},
    }
    return {"machine": MACHINE, "settings": {}, "results": {"tiny": entry, "large": entry}}


def scaling_report() -> dict[str, Any]:
    memory = {"parent_peak_mib": 300.0, "peak_mib": 500.0}
    results = {
        "by_videos": [{"videos": count, "seconds": count / 50, **memory} for count in (10, 100, 1000)],
        "by_workers": [{"workers": workers, "videos": 100, "seconds": 4 / workers, **memory} for workers in (1, 2)],
        "line": {"seconds_per_video": 0.02, "start_s": 0.1, "largest_deviation": 0.1},
    }
    return {"machine": MACHINE, "settings": {"video": "short.mp4"}, "results": results}


def test_speeds_are_those_of_all_processes() -> None:
    entry = decode_report()["results"][0]
    assert entry["median_s"]["gridclip"] == 2.0
    assert entry["frames_per_second"]["gridclip"] == 5.0
    assert entry["video_seconds_per_second"]["gridclip"] == 10.0
    assert entry["all_cores"]["frames_per_second"]["gridclip"] == 40.0
    assert entry["all_cores"]["video_seconds_per_second"]["decord"] == pytest.approx(26.67)


def test_ratios_are_to_peers_that_return_the_same_frames() -> None:
    entry = decode_report()["results"][0]
    assert entry["ratio_to_peer"] == {"decord": 3.0}
    assert entry["ratio_to_best_peer"] == 3.0
    nobody = decode.speeds({"gridclip": [1.0]}, wanted=1, duration_s=1.0, processes=1, not_compared={})
    assert nobody["ratio_to_best_peer"] is None


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([8.0, 4.0, 2.0, 0.5], 2.0),  # halfway between 1 and 4 fps, in logarithms
        ([8.0, 4.0, 1.0, 0.5], 1.0),
        ([0.9, 2.0, 1.5, 1.2], None),
        ([0.9, 4.0, 2.0, 0.5], 2.0),
        ([0.9, 0.8, 1.0, 0.7], 0.0),
        ([4.0, 0.25, 2.0, 0.5], 2.0),  # the last time that it falls
        ([4.0, 0.25, 2.0, 1.5], None),
    ],
)
def test_crossover(ratios: list[float], expected: float | None) -> None:
    assert sweep.crossover_fps([0.1, 0.5, 1.0, 4.0], ratios) == expected


def test_crossovers_of_each_peer_and_of_the_best() -> None:
    rates = sweep_report()["results"][0]["rates"]
    assert sweep.crossovers(rates) == {"decord": 2.0, "PyAV": None, "best peer": 2.0}
    rates[1] = {"fps": 0.5, "ratio_to_peer": {"PyAV": 4.0}}  # decord returned other frames at this rate
    assert sweep.crossovers(rates) == {"PyAV": None, "best peer": 2.0}
    rates[1] = {"fps": 0.5, "ratio_to_peer": {}}
    assert sweep.crossovers(rates) == {}


def test_what_the_charts_say() -> None:
    assert chart_parts.machine_line(decode_report()) == "machine: Some Processor, 8 cores"
    assert charts.in_order([{"b": 1, "gridclip --decoder decord": 1}, {"a": 1, "b": 1}]) == ["b", "a"]
    assert charts.crossing_text({"best peer": 2.345}) == "pays below 2.3 fps"
    assert charts.crossing_text({"best peer": None}) == "pays at every rate measured"
    assert charts.crossing_text({"best peer": 0.0}) == "does not pay"
    assert charts.crossing_text({}) == "no peer returned the wanted frames at every rate"


def test_readme_row_of_a_sweep(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = sweep_report()
    for rate in report["results"][0]["rates"]:
        rate["ratio_to_best_peer"] = min(rate["ratio_to_peer"].values())
    (tmp_path / "sweep.json").write_text(json.dumps(report))
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    (row,) = readme_table._sweep("sweep.json")
    assert "decode `a.mp4` at 0.1 to 4 fps" in row.what
    assert "8.0 to 0.5 times as fast; pruning pays below 2 fps" in row.outcome


@pytest.mark.may_skip  # matplotlib is in the extra "bench" only
def test_charts_are_drawn_and_do_not_change(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    reports = {
        "decode_x": decode_report(),
        "end_to_end": end_to_end_report(),
        "scaling": scaling_report(),
        "sweep": sweep_report(),
    }
    for name, report in {**reports, "unknown": {}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    written = charts.draw_all(tmp_path, tmp_path / "charts")
    assert [path.name for path in written] == [f"{name}.{suffix}" for name in reports for suffix in ("png", "svg")]
    first = [path.read_bytes() for path in written]
    assert first[0].startswith(b"\x89PNG") and b"<svg" in first[1] and b"<dc:date>" not in first[1]
    assert [path.read_bytes() for path in charts.draw_all(tmp_path, tmp_path / "charts")] == first
