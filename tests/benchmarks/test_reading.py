"""benchmarks/reading.py: what it says of a file that is read by its index, and of one that is not."""

import pytest
from gridclip.benchmarks import reading


def test_an_mp4_by_its_index_and_a_matroska_whole(write_video, tmp_path):
    pictures = {
        "duration_s": 60,
        "width_px": 320,
        "height_px": 240,
        "options": {"preset": "ultrafast", "qp": "10", "g": "20"},
    }
    mp4 = write_video(tmp_path / "a.mp4", **pictures)
    mkv = write_video(tmp_path / "a.mkv", **pictures)
    by_index, whole = (reading.measured(path, fps=0.05, repetitions=1) for path in (mp4, mkv))
    assert mp4.stat().st_size > 1 << 20, "small files are read whole"
    assert by_index["by_index"] and by_index["bytes_read"]["needed"] < 0.5 * by_index["bytes_read"]["scan"]
    assert not whole["by_index"] and whole["bytes_read"]["needed"] == pytest.approx(whole["bytes"], rel=0.1)


def test_other_frames_are_not_measured(write_video, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_frames", lambda path, fps, way: iter([way == "scan"]))
    with pytest.raises(AssertionError, match="frames differ"):
        reading.measured(write_video(tmp_path / "a.mp4"), fps=1, repetitions=1)


def test_a_file_that_is_no_video_is_left_out_with_the_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    left_out: dict[str, str] = {}
    assert reading.entries([tmp_path / "notes.txt"], repetitions=1, left_out=left_out) == []
    assert list(left_out) == ["notes.txt"] and left_out["notes.txt"]
