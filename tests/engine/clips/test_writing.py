"""Tests of engine/clips: what a clip shows, against the frames of the whole video."""

from __future__ import annotations

import fractions
import pathlib
from collections.abc import Callable

import av
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.ids import UnusableId
from gridclip.engine.clips.writing import clip_path, write_clip

FPS = 10


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., pathlib.Path]) -> pathlib.Path:
    """12 s, a keyframe every 2 s, B-frames."""
    return write_video(tmp_path_factory.mktemp("clips") / "v.mp4", duration_s=12, fps=FPS)


def shown(path: pathlib.Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(stream)]
    return [pixels for pixels, _ in frames], [float(time) for _, time in frames if time is not None]


def differences(clip: list[np.ndarray], whole: list[np.ndarray]) -> list[float]:
    return [float(np.abs(one.astype(int) - other).mean()) for one, other in zip(clip, whole, strict=False)]


def test_packets_are_copied_where_a_keyframe_is_at_the_start(video: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert write_clip(video, 4.0, 8.0, tmp_path / "new" / "clip.mp4")
    whole, _ = shown(video)
    clip, times = shown(tmp_path / "new" / "clip.mp4")
    assert len(clip) >= 4 * FPS and times[0] == pytest.approx(0, abs=1 / FPS)
    assert max(differences(clip[: 4 * FPS], whole[4 * FPS :])) == 0
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "clip.mp4"]


@pytest.mark.parametrize(("start_s", "end_s"), [(5.0, 7.5), (0.7, 1.2), (11.0, 99.0)])
def test_a_moment_between_keyframes_is_encoded_from_its_own_frame_on(
    video: pathlib.Path, tmp_path: pathlib.Path, start_s: float, end_s: float
) -> None:
    assert not write_clip(video, start_s, end_s, tmp_path / "clip.mp4")
    whole, _ = shown(video)
    first, last = round(start_s * FPS), min(round(end_s * FPS), len(whole))
    clip, times = shown(tmp_path / "clip.mp4")
    assert len(clip) == last - first
    assert np.allclose(times, np.arange(last - first) / FPS, atol=2e-3)
    near = max(differences(clip, whole[first:last]))
    assert near < 6 < min(differences(clip, whole[first + 3 :]) or [99])


def test_sound_comes_along(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=FPS, options={"g": "20"})
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000)
        for number in range(6 * FPS):
            image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 4, np.uint8), format="rgb24")
            image.pts, image.time_base = number, fractions.Fraction(1, FPS)
            container.mux(pictures.encode(image))
        container.mux(pictures.encode())
        for number in range(6 * 16000 // 1024):
            tone = np.sin(np.arange(1024, dtype=np.float32) / 10)[None]
            samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 16000, number * 1024
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
    for start_s, copied in ((2.0, True), (3.0, False)):
        clip = tmp_path / f"{start_s}.mp4"
        assert write_clip(path, start_s, start_s + 2, clip) is copied
        with av.open(str(clip)) as container:
            heard = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
            assert heard == pytest.approx(2, abs=0.25)
        assert len(shown(clip)[0]) == pytest.approx(2 * FPS, abs=2)


def test_what_cannot_be_cut_is_told_and_nothing_stays(video: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    folder = tmp_path / "clips"
    for path, start_s in ((tmp_path / "text.mp4", 0.0), (video, 50.0), (tmp_path / "missing.mp4", 0.0)):
        with pytest.raises(GridClipError, match=r"no clip of .* from .* s: "):
            write_clip(path, start_s, start_s + 1, folder / "clip.mp4")
    assert list(folder.iterdir()) == []


def test_a_clip_lies_below_its_folder(tmp_path: pathlib.Path) -> None:
    assert clip_path(tmp_path, "2024/a b", 8, 12.25) == tmp_path / "2024" / "a b_8.0-12.2s.mp4"
    for outside in ("../a", "/a", "a/../../b"):
        with pytest.raises(UnusableId):
            clip_path(tmp_path, outside, 0, 1)
