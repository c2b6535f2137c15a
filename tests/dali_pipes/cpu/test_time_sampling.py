"""`--sampling time` on files: the frame on screen at every wanted time, against a whole decode and plain arithmetic."""

from __future__ import annotations

import dataclasses
import fractions
import logging
import pathlib

import av
import numpy as np
import pytest
from generated_videos import STRUCTURES, picture, write
from gridclip import GridClipError
from gridclip.dali_pipes import grid
from gridclip.dali_pipes.contract import CompressedSegment, Notice, SuperImages, VideoError, VideoFile
from gridclip.dali_pipes.cpu import decoding, super_images, tasks
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.layout import Part
from gridclip.dali_pipes.nvdali import segments
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.packets import pruning, scan
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.store.store import Store

GRACE = fractions.Fraction(1, 1000)


def write_uneven(path: pathlib.Path, codec: str = "libvpx", **options: str) -> pathlib.Path:
    """92 frames in 38.8 s of which the container says that they are 30 a second."""
    gaps_ms = np.random.default_rng(5).choice([33, 100, 400, 900], 91, p=[0.3, 0.2, 0.3, 0.2])
    gaps_ms[40] = 38_767 - gaps_ms.sum() + gaps_ms[40]  # a still picture for seconds
    assert gaps_ms[40] > 4000
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 25
        stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for index, pts in enumerate(np.append(0, np.cumsum(gaps_ms)).tolist()):
            frame = av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")
            frame.pts, frame.time_base = pts, fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_uneven(tmp_path_factory.mktemp("uneven") / "uneven.webm", deadline="realtime", **{"cpu-used": "8"})


def on_screen(path: pathlib.Path, fps: float) -> list[tuple[float, np.ndarray]]:
    """(wanted time, frame on screen) by decoding everything; stamps as fractions, frames without one by the rate."""
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        rate = stream.average_rate
        shown = [(frame.pts, frame.duration, decoding.to_rgb(frame, reformatter)) for frame in container.decode(stream)]
        base = stream.time_base
    if any(pts is None for pts, _, _ in shown):
        starts = [fractions.Fraction(index) / rate for index in range(len(shown))]
        end = len(shown) / rate
    else:
        stamps = sorted(pts for pts, _, _ in shown)  # avi stamps pictures in the order of coding
        starts = [(pts - stamps[0]) * base for pts in stamps]
        end = max((pts + (duration or 0) - stamps[0]) * base for pts, duration, _ in shown)
    expected = []
    k = 0
    while k == 0 or k / fractions.Fraction(fps) < end - GRACE:
        time = k / fractions.Fraction(fps)
        expected.append(
            (
                float(time),
                [pixels for start, (*_, pixels) in zip(starts, shown, strict=True) if start <= time + GRACE][-1],
            )
        )
        k += 1
    return expected


def assert_shows_what_is_on_screen(path: pathlib.Path, fps: float, decoder="pyav") -> None:
    sampling = Sampling(fps=fps, mode="time")
    expected = on_screen(path, fps)
    with open_reading(path, sampling) as reading:
        found = list(reading.frames(decoder, cells=4))
        assert reading.planned_s.tolist() == pytest.approx([time for time, _ in expected])
        start_s, end_s = reading.layout().spans_s([Part(2, 0, reading.layout().count(2))])
        duration_s = reading.summary.duration_s
    assert len(found) == len(expected)
    for index, (frame, (time, pixels)) in enumerate(zip(found, expected, strict=True)):
        assert np.array_equal(frame, pixels), f"frame {index} at {time} s differs"
    assert start_s.tolist() == pytest.approx([time for time, _ in expected[::4]])
    assert end_s.tolist() == [*start_s[1:], duration_s]


@pytest.mark.parametrize("fps", [0.5, 3.0, 12.0])
def test_a_webm_of_variable_rate(uneven: pathlib.Path, fps: float) -> None:
    stream = scan.summarise(uneven)
    assert (stream.frame_count, stream.avg_fps) == (92, 30.0) and stream.duration_s == pytest.approx(38.8)
    assert_shows_what_is_on_screen(uneven, fps)


def test_by_count_it_gives_one_frame_and_says_so(uneven: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        notice, run = tasks.decode(
            VideoFile("v", uneven), skip=0, sampling=Sampling(super_img_size=64), decoder="pyav", image_size=64
        )
    assert isinstance(notice, Notice) and isinstance(run, SuperImages)
    assert (notice.video_id, notice.kind) == ("v", "rate") and run.total == 1
    assert "92 frames at 30 fps are 3.1 s" in notice.detail and "span 38.8 s" in notice.detail
    assert "1 wanted frames by count, 20 with `mode='time'`" in notice.detail
    assert notice.detail in caplog.text and str(uneven) in caplog.text


def test_nothing_is_said_by_time_or_twice_or_of_even_files(uneven: pathlib.Path, small_videos: pathlib.Path) -> None:
    video = VideoFile("v", uneven)
    for path, sampling in ((uneven, Sampling(mode="time")), (small_videos / "a.mp4", Sampling())):
        assert all(isinstance(run, SuperImages) for run in super_images.super_images(VideoFile("v", path), sampling))
    runs = list(super_images.super_images(video, Sampling(fps=8), skip=1))
    assert runs and all(isinstance(run, SuperImages) for run in runs)
    assert isinstance(next(super_images.super_images(video, Sampling(max_shift_s=1.0))), Notice)


def test_dali_s_segments_bring_the_notice_and_the_same_frames(uneven: pathlib.Path) -> None:
    options = {"skip": 0, "image_size": 64, "device": "cpu", "gauge": None}
    video = VideoFile("v", uneven)
    notice, *_ = segments.read_compressed(video, sampling=Sampling(super_img_size=64), **options)
    assert isinstance(notice, Notice) and notice.kind == "rate"
    sampling = Sampling(fps=3, super_img_size=64, mode="time")
    runs = list(segments.read_compressed(video, sampling=sampling, **options))
    assert len(runs) == 2 and all(isinstance(run, CompressedSegment) for run in runs)
    pipeline = VideoPipeline(sampling, 64, device_id=None, max_items=1, num_threads=1)
    found = np.concatenate([images.numpy() for run in runs for images in pipeline.decode([run])])
    expected = grid.assemble([pixels for _, pixels in on_screen(uneven, 3)], 2, 64)
    assert np.abs(found.astype(int) - expected).mean() < 3


# Hidden and leading pictures, edit lists, no time stamps, no random access, another stream first, millisecond stamps.
TRICKY = (
    "h264_open_gop.mkv",
    "h264_edit_list.mp4",
    "h264_variable_rate.mp4",
    "h264_variable_rate.mkv",
    "h264_two_streams.mp4",
    "h264_no_pts.avi",
    "h264_annexb.ts",
    "h264_raw.h264",
    "hevc_open_gop.mp4",
    "vp8.webm",
    "av1.mkv",
    "mjpeg.avi",
    "mpeg2.mkv",
)


@pytest.mark.parametrize("recipe", [each for each in STRUCTURES if each.name in TRICKY], ids=lambda recipe: recipe.name)
def test_every_structure(tmp_path: pathlib.Path, recipe) -> None:
    path = write(tmp_path, dataclasses.replace(recipe, size=(64, 48)))
    for fps in (1.0, 7.0, 50.0):  # at 50 frames come twice
        assert_shows_what_is_on_screen(path, fps)


def test_real_files(shared_data: pathlib.Path) -> None:
    for path in sorted((shared_data / "videos").iterdir()):
        assert_shows_what_is_on_screen(path, 0.5)


def test_decord_gives_the_same_frames(uneven: pathlib.Path) -> None:
    with open_reading(uneven, Sampling(fps=3, mode="time")) as reading:
        assert all(reading.counts_right(part) for part in pruning.plan_segments(reading.table, reading.wanted, cells=4))
        found = np.stack(list(reading.frames("decord", cells=4)))
    # decord's older FFmpeg converts colours a little differently; other frames differ by more than 20
    expected = np.stack([pixels for _, pixels in on_screen(uneven, 3)])
    assert np.abs(found.astype(int) - expected).mean() < 6


def test_a_worker_that_goes_on_delivers_the_rest(uneven: pathlib.Path) -> None:
    video, sampling = VideoFile("v", uneven), Sampling(fps=3, super_img_size=64, mode="time")
    images, rest = (
        np.concatenate([run.images for run in super_images.super_images(video, sampling, skip=skip)])
        for skip in (0, 17)
    )
    assert np.array_equal(images[17:], rest) and len(images) == 30


def test_a_short_video_gives_its_first_frame_or_none(small_videos: pathlib.Path) -> None:
    path = small_videos / "d.mp4"
    with open_reading(path, Sampling(mode="time")) as reading:
        assert reading.wanted.tolist() == [0] and reading.planned_s.tolist() == [0.0]
    with (
        pytest.raises(VideoError, match="shorter than one period"),
        open_reading(path, Sampling(mode="time", min_frames=0)),
    ):
        pass


@pytest.mark.parametrize(("max_shift_s", "mode"), [(None, "frames"), (2.0, "keyframes")])
def test_a_store_of_before_is_of_the_mode_it_meant(tmp_path: pathlib.Path, max_shift_s, mode) -> None:
    record = dataclasses.asdict(Sampling(max_shift_s=max_shift_s))
    del record["mode"]
    Store.open(tmp_path / "s", create=True).claim_sampling({"source": "videos", **record})
    store = Store.open(tmp_path / "s")
    assert store.sampling is not None and store.sampling["mode"] == mode
    same = Sampling(max_shift_s=max_shift_s, mode=mode)
    store.claim_sampling({"source": "videos", **dataclasses.asdict(same)})
    with pytest.raises(GridClipError, match=rf"(mode = '{mode}'.*'time'|max_shift_s = 2\.0)"):
        store.claim_sampling({"source": "videos", **dataclasses.asdict(Sampling(mode="time"))})
