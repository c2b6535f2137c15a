"""benchmarks/keyframes.py: its figures against known videos, and the README's rows from its JSON."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from generated_videos import Recipe, write
from gridclip.benchmarks import keyframes, keyframes_recall, measure, readme_table
from gridclip.benchmarks.demo import videos
from gridclip.dali_pipes.bitstream.facts import CLOSED
from gridclip.dali_pipes.packets import scan

# 30 frames a second, keyframes at 0, 1 and 2 s. At 2.5 fps the wanted times are 0, 0.4, 0.8, 1.2, ... 2.4 s.
OPTIONS = (("preset", "ultrafast"), ("x264-params", "keyint=30:scenecut=0:bframes=2"))
RECIPE = Recipe("known.mp4", frames=84, gop=30, options=OPTIONS)


def test_shifts_of_a_known_video(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, RECIPE)
    exact = keyframes.shifts([path], 2.5, None)
    assert exact["wanted_frames"] == 7 and exact["moved_share"] == exact["repeated_share"] == 0
    assert "max_s" not in exact
    near = keyframes.shifts([path, path], 2.5, 0.3)  # 0.8 -> 1, 1.2 -> 1, 2.0 stays; 0.4, 1.6 and 2.4 are too far
    assert near["wanted_frames"] == 14 and near["moved_share"] == pytest.approx(2 / 7, abs=1e-4)
    assert near["repeated_share"] == pytest.approx(1 / 7, abs=1e-4)
    assert near["max_s"] == near["median_s"] == pytest.approx(0.2)
    far = keyframes.shifts([path], 2.5, 5.0)
    assert far["moved_share"] == pytest.approx(5 / 7, abs=1e-4) and far["max_s"] == pytest.approx(0.4)
    assert far["packets_decoded"] < near["packets_decoded"] / 2 < exact["packets_decoded"]


def test_an_entry_has_what_the_readme_needs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, left_out = write(tmp_path, RECIPE), {}
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    options = {"fps": 2.5, "max_shifts_s": (0.3, 2.0), "repetitions": 1}
    entries = keyframes.run_files("real files", [path, tmp_path / "broken.mp4"], left_out=left_out, **options)
    assert list(left_out) == ["broken.mp4"] and [entry["name"] for entry in entries] == ["known.mp4"]
    (entry,) = entries
    assert list(entry["times_as_fast"]) == ["max shift 0.3 s", "max shift 2 s"]
    assert entry["seconds_per_keyframe"] == pytest.approx(2.8 / 3, abs=1e-3)
    recall = {"queries": 9, "temperature 1": {"R@1": 90.0}, "temperature 0.1": {"R@1": 95.0}}
    less = {"queries": 9, "temperature 1": {"R@1": 80.0}, "temperature 0.1": {"R@1": 94.0}}
    found = {"decode": entries, "recall": {"3 videos": {"exact": recall, "max shift 2 s": less}}, "left_out": left_out}
    report = {"settings": {"default_max_shift_s": 2.0}, "results": found}
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert readme_table._keyframes("keyframes.json") == []
    (tmp_path / "keyframes.json").write_text(json.dumps(report))
    decode, recalled = readme_table._keyframes("keyframes.json")
    assert f"{entry['times_as_fast']['max shift 2 s']:.2f} times as fast" in decode.outcome
    assert "71% of the frames move, at most 0.4 s" in decode.outcome
    assert "R@1 80.0 for 90.0 (temperature 1), R@1 94.0 for 95.0 (temperature 0.1)" in recalled.outcome


def test_other_frames_than_the_named_ones_are_noticed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, RECIPE)
    ways = keyframes.candidates((2.0,))
    keyframes.check_frames(path, 2.5, ways)
    frames = keyframes.super_images.frames
    monkeypatch.setattr(keyframes.super_images, "frames", lambda path, fps, max_shift_s: frames(path, fps))
    with pytest.raises(AssertionError, match=r"known\.mp4, max shift 2 s: frame 0 differs"):
        keyframes.check_frames(path, 2.5, ways)


def test_demo_videos_with_keyframes_at_a_fixed_distance(tmp_path: pathlib.Path) -> None:
    video = videos.make_video(9, 0, unseen=True)
    videos.write_video(video, tmp_path / "v.mp4", gop_s=2.0)
    with scan.open_video(tmp_path / "v.mp4") as (container, stream):
        _, table, _ = scan.scan(container, stream)
    distances = np.diff(np.flatnonzero(table.facts[table.shown] & CLOSED))
    assert len(distances) > 5 and (distances == 2 * video.frame_rate).all()


def test_recall_of_two_videos(tmp_path: pathlib.Path, tiny_model_dir: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setattr(keyframes_recall, "model", lambda work_dir: tiny_model_dir)
    assert keyframes_recall.why_not() is None
    corpus = next(keyframes_recall.corpora(tmp_path, 2, long=False))
    assert len(corpus.videos) == 2
    recall = keyframes_recall.measured(corpus, keyframes.candidates((2.0,)), 0.5, tmp_path)
    assert list(recall) == ["exact", "max shift 2 s"]
    for found in recall.values():
        assert found["queries"] >= 6 and found["temperature 0.1"]["R@5"] == 100.0
