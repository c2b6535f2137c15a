"""benchmarks/decode_modes.py: its figures against known videos and vectors, its table, rows and chart from its JSON."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest
from generated_videos import Recipe, write
from gridclip.benchmarks import charts_decode_modes, decode_modes, keyframes_recall, measure, readme_table

OPTIONS = (("preset", "veryfast"), ("crf", "40"), ("x264-params", "keyint=30:scenecut=0:bframes=2"))
RECIPE = Recipe("known.mp4", frames=84, gop=30, options=OPTIONS)
ALL = list(charts_decode_modes.WAYS)


def recall(at_1: float) -> dict[str, Any]:
    return {"queries": 9, "temperature 1": {"R@1": at_1}, "temperature 0.1": {"R@1": at_1 + 5}}


def report(files: list[dict[str, Any]]) -> dict[str, Any]:
    demo = {
        "name": "3 videos",
        "times_as_fast": dict(zip(ALL[1:], (1.25, 1.5, 2.0), strict=True)),
        "cosine": {way: {"least": 0.875, "mean": 0.9375} for way in ALL[1:]},
        "recall": {way: recall(90.0 - at) for at, way in enumerate(ALL)},
    }
    machine = {"processor": "Some Processor", "cores": 8}
    return {"machine": machine, "settings": {"model": "a model"}, "results": {"files": files, "demo": [demo]}}


def test_differences_are_those_of_the_formula() -> None:
    exact = [np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 50, np.uint8)]
    other = [exact[0], exact[1] + np.uint8(4)]
    found = decode_modes.differences(iter(other), iter(exact))
    assert found["psnr_db"] == pytest.approx(10 * math.log10(255**2 / 8), abs=0.01)
    assert found["least_psnr_db"] == pytest.approx(10 * math.log10(255**2 / 16), abs=0.01)
    assert found["same_share"] == 0.5
    same = decode_modes.differences(iter(exact), iter(exact))
    assert same == {"psnr_db": None, "least_psnr_db": None, "same_share": 1.0}


def test_cosines() -> None:
    found = decode_modes.cosines(np.array([[3.0, 4.0], [2.0, 0.0]]), np.array([[3.0, 4.0], [1.0, 1.0]]))
    assert found == {"least": pytest.approx(math.sqrt(0.5), abs=1e-5), "mean": pytest.approx(0.85355, abs=1e-5)}


def test_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert readme_table._decode_modes("decode_modes.json") == []
    left_out: dict[str, str] = {}
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths = [write(tmp_path, RECIPE), tmp_path / "broken.mp4"]
    (entry,) = decode_modes._of_files_here("real files", paths, left_out, fps=2.5, repetitions=1)
    assert list(left_out) == ["broken.mp4"]
    assert (entry["codec"], entry["wanted_frames"]) == ("h264", 7)
    pictures = entry["pictures"]
    # 0, 12, 24, ... 72: of these 0 and 60 are keyframes, which fast decodes exactly; the others need the filter.
    assert pictures["--decode fast"]["same_share"] == pytest.approx(2 / 7, abs=1e-4)
    assert pictures["--decode fast"] == pictures["skip_loop_filter=nokey"]
    assert pictures["skip_loop_filter=all"]["same_share"] == 0 and pictures["flags2=+fast"]["psnr_db"] is None
    whole = report([entry])
    (tmp_path / "decode_modes.json").write_text(json.dumps(whole))
    rows = readme_table._decode_modes("decode_modes.json")
    assert [row.what.split(":")[0] for row in rows] == ["`--decode fast`", "`--sampling keyframes`", "both"]
    expected = (
        "1.25 times as fast, cosine 0.93750 in the mean and 0.87500 at least, R@1 89.0 for 90.0 (temperature 1), "
    )
    assert expected + "R@1 94.0 for 95.0 (temperature 0.1) of 9 queries" in rows[0].outcome
    assert f"{entry['times_as_fast']['--decode fast']:.2f} times as fast in geometric mean" in rows[0].outcome
    table = decode_modes.as_table(whole["results"]).splitlines()
    assert len({line.count("|") for line in table}) == 1 and len(table) == 2 + len(ALL)
    assert "0.8750, 0.9375 | 89.0, 94.0 |" in table[3]


@pytest.mark.may_skip  # matplotlib is in the extra "bench" only
def test_the_chart_has_every_way() -> None:
    pytest.importorskip("matplotlib")
    figure = charts_decode_modes.decode_modes_chart(report([]))
    assert figure is not None
    (axes,) = figure.axes
    points = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines if line.get_marker() != "None"
    }
    assert {(1.0, 90.0), (1.25, 89.0), (1.5, 88.0), (2.0, 87.0), (2.0, 92.0)} <= points
    nothing: dict[str, Any] = {"results": {"demo": []}}
    assert charts_decode_modes.decode_modes_chart(nothing) is None


def test_the_demo(tmp_path: pathlib.Path, tiny_model_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyframes_recall, "model", lambda work_dir: tiny_model_dir)
    demo = next(keyframes_recall.corpora(tmp_path, 2, long=False))
    found = decode_modes.of_demo(demo, tmp_path, fps=0.5, repetitions=1)
    assert list(found["recall"]) == ALL and list(found["cosine"]) == ALL[1:]
    assert 0.9 < found["cosine"]["--decode fast"]["least"] <= found["cosine"]["--decode fast"]["mean"] <= 1
    assert found["recall"]["--decode fast"]["queries"] >= 6
