"""The benchmark of short clips: its files, and what it reports."""

from __future__ import annotations

import json
import operator
import pathlib

from gridclip.benchmarks import clips, decode_peers
from gridclip.benchmarks.corpus import Clip


def test_clips_report(tmp_path: pathlib.Path) -> None:
    two = [Clip("libx264", 90, gop_s=1, b_frames=b_frames, fps=10, duration_s=1 + b_frames) for b_frames in (0, 1)]
    paths = clips.make(5, tmp_path, two)
    assert len({path.name for path in paths}) == 5
    assert [path.samefile(paths[index % 2]) for index, path in enumerate(paths)] == [True] * 5
    target = tmp_path / "clips.json"
    readers = {"gridclip": decode_peers.gridclip_auto, "PyAV": decode_peers.pyav_whole, "broken": operator.sub}
    clips.run(paths, distinct=2, readers=readers, target=target)
    results = json.loads(target.read_text())["results"]
    assert results["clips"] == 5
    assert set(results["clip_ms"]) == {"gridclip", "PyAV", "libavcodec alone"}
    assert list(results["not_compared"]) == ["broken"]
    assert set(results["ratio_to_peer"]) == {"PyAV"} and set(results["times_floor"]) == {"gridclip", "PyAV"}
    assert results["times_floor"]["gridclip"] > 1
