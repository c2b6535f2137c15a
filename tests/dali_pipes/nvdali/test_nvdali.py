"""DALI's pipelines, their CPU variant: real files against the fallback path, and what becomes of files DALI refuses."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import saved_folders
import torch
from generated_videos import Recipe, write
from gridclip import GridClipError
from gridclip.dali_pipes import grid
from gridclip.dali_pipes.bitstream.readers import may_hold_fields
from gridclip.dali_pipes.contract import CompressedSegment, Failure, Finished, Notice, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import super_images
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.dali_pipes.nvdali import pipeline_threads, segments, self_test, sources
from gridclip.dali_pipes.nvdali.batch_queue import Limits
from gridclip.dali_pipes.nvdali.jpeg_pipeline import JpegPipeline
from gridclip.dali_pipes.nvdali.nvidia_driver import DecoderLimits
from gridclip.dali_pipes.nvdali.pipeline_threads import PipelineError
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder

SAMPLING = Sampling(super_img_size=64)
REAL_WEBM = ("crystal.webm", "echo.webm", "rabbit320.webm")
FAST = (("deadline", "realtime"), ("cpu-used", "8"))
GENERATED = (
    Recipe("vp9.webm", codec="libvpx-vp9", gop=45, size=(320, 180), options=FAST),
    Recipe("vp8.mkv", codec="libvpx", gop=20, size=(160, 120), options=FAST),
    Recipe("mjpeg.avi", codec="mjpeg", size=(160, 120), pixel_format="yuvj420p"),
)


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("generated")
    for recipe in GENERATED:
        write(folder, recipe)
    return folder


def psnr_db(images: np.ndarray, others: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 images, dB."""
    error = np.mean((images.astype(float) - others) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def encoded(path: pathlib.Path, sampling: Sampling = SAMPLING) -> list[CompressedSegment]:
    """The segments of a video that DALI can decode as a whole."""
    video = VideoFile(path.stem, path)
    made = segments.read_compressed(
        video, skip=0, sampling=sampling, image_size=sampling.super_img_size, device="cpu", gauge=None
    )
    runs = [run for run in made if not isinstance(run, Notice)]
    assert all(isinstance(run, CompressedSegment) for run in runs), runs
    return runs


def expected(path: pathlib.Path, sampling: Sampling = SAMPLING) -> np.ndarray:
    """The super images of the fallback path, uint8 [L, S, S, 3]."""
    made = super_images.super_images(VideoFile("v", path), sampling)
    return np.concatenate([run.images for run in made if isinstance(run, SuperImages)])


def pipeline(sampling: Sampling = SAMPLING, image_size: int | None = None) -> VideoPipeline:
    return VideoPipeline(sampling, image_size or sampling.super_img_size, device_id=None, max_items=4, num_threads=2)


def collect(events) -> dict[str, np.ndarray]:
    """Per video its super images in order, or its Failure."""
    runs: dict[str, list[SuperImages]] = {}
    found: dict[str, np.ndarray | Failure] = {}
    for video, event in events:
        if isinstance(event, SuperImages):
            runs.setdefault(video.video_id, []).append(event)
        elif isinstance(event, Failure):
            found[video.video_id] = event
        elif isinstance(event, Finished):
            ordered = sorted(runs[video.video_id], key=lambda run: run.first)
            assert [run.first for run in ordered] == np.cumsum([0, *(len(run.images) for run in ordered[:-1])]).tolist()
            found[video.video_id] = np.concatenate([np.asarray(run.images) for run in ordered])
        elif not isinstance(event, Notice):
            runs.pop(video.video_id, None)
    return found


@pytest.mark.parametrize("name", REAL_WEBM)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(fps=2, grid_size=3, super_img_size=224)])
def test_real_vp8_files_give_the_fallbacks_super_images(shared_data, name, sampling):
    path = shared_data / "videos" / name
    (segment,) = encoded(path, sampling)
    (images,) = pipeline(sampling).decode([segment])
    reference = expected(path, sampling)
    assert images.shape == reference.shape
    assert min(psnr_db(image, other) for image, other in zip(images.numpy(), reference, strict=True)) >= 40


@pytest.mark.parametrize("recipe", GENERATED, ids=lambda recipe: recipe.name)
def test_every_codec_of_the_cpu_variant(generated, recipe):
    path = generated / recipe.name
    for size_px in (90, 91):  # cells of 45 fill 90 pixels, and leave a margin of 91
        sampling = Sampling(fps=3, super_img_size=size_px)
        runs = encoded(path, sampling)
        images = np.concatenate([made.numpy() for made in pipeline(sampling).decode(runs)])
        reference = expected(path, sampling)
        assert images.shape == reference.shape
        assert psnr_db(images, reference) >= 40

        assert (images[:, 90:] == 0).all() and (images[:, :, 90:] == 0).all()


def test_unused_cells_are_black_and_segments_of_a_batch_keep_their_lengths(shared_data):
    runs = [encoded(shared_data / "videos" / name)[0] for name in REAL_WEBM]
    lengths = [len(run.start_s) for run in runs]
    images = pipeline().decode(runs)
    assert [len(made) for made in images] == lengths and len(set(lengths)) > 1
    for run, made in zip(runs, images, strict=True):
        used = (len(run.positions) - 1) % 4 + 1
        cells = [made[-1, :32, :32], made[-1, :32, 32:], made[-1, 32:, :32], made[-1, 32:, 32:]]
        assert [bool((cell == 0).all()) for cell in cells] == [index >= used for index in range(4)]


def test_super_images_are_resized_to_the_model(shared_data):
    path = shared_data / "videos" / "echo.webm"
    sampling = Sampling(super_img_size=224)
    (images,) = pipeline(sampling, image_size=64).decode(encoded(path, sampling))
    reference = np.stack([grid.resize(image, 64) for image in expected(path, sampling)])
    assert psnr_db(images.numpy(), reference) >= 40


def test_tensors_stay_as_they_are_while_the_pipeline_goes_on(shared_data):
    runs = {name: encoded(shared_data / "videos" / name) for name in REAL_WEBM}
    pipe = pipeline()
    (kept,) = pipe.decode(runs["echo.webm"])
    copy = kept.clone()
    for _ in range(3):
        pipe.decode(runs["crystal.webm"])
    assert (kept == copy).all()


def test_embeddings_of_the_tiny_model_agree(shared_data, tiny_model_dir):
    encoder = Encoder(tiny_model_dir, provider="cpu")
    size = encoder.info.image_size
    sampling = Sampling(super_img_size=size)
    for name in REAL_WEBM:
        path = shared_data / "videos" / name
        (images,) = pipeline(sampling).decode(encoded(path, sampling))
        cosines = (encoder.encode_images(images.numpy()) * encoder.encode_images(expected(path, sampling))).sum(1)
        assert cosines.min() >= 0.995


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("limits", [Limits(8, 1 << 30, 8), Limits(1, 1, 1)], ids=["roomy", "tight"])
def test_a_folder_of_all_kinds_loses_nothing(shared_data, hybrid, limits):
    paths = sorted((shared_data / "videos").iterdir())
    videos = [VideoFile(path.name, path) for path in paths]
    events = sources.decode_videos(
        iter(videos), SAMPLING, 64, device_id=None, hybrid=hybrid, num_workers=2, time_limit_s=60, limits=limits
    )
    found = collect(events)
    assert set(found) == {path.name for path in paths}
    for path in paths:
        reference = expected(path)
        if path.suffix == ".webm":
            assert psnr_db(found[path.name], reference) >= 40
        else:
            assert np.array_equal(found[path.name], reference)


def test_hybrid_workers_decode_what_dali_has_no_room_for(shared_data, tmp_path):
    video = VideoFile("echo", shared_data / "videos" / "echo.webm")
    gauge = tmp_path / "room"
    kinds = []
    for room in (0, 1):
        segments.Gauge.create(gauge, room)
        options = {"sampling": SAMPLING, "image_size": 64, "device": "cpu", "gauge": gauge}
        kinds.append([type(run) for run in segments.read_compressed(video, skip=0, **options)])
    assert kinds == [[Notice, SuperImages], [Notice, CompressedSegment]]


def test_damaged_packets_are_never_black_frames(shared_data):
    (good,) = encoded(shared_data / "videos" / "echo.webm")
    shorter = dataclasses.replace(good, data=good.data[: len(good.data) // 2])
    beyond = dataclasses.replace(good, positions=good.positions + 10_000)
    garbage = dataclasses.replace(good, data=b"no video at all" * 9)
    for bad in (shorter, beyond, garbage):
        with pytest.raises(PipelineError, match="DALI"):
            pipeline().decode([good, bad])


def test_a_bad_segment_sends_its_video_alone_to_the_fallback(generated, tmp_path, monkeypatch):
    """DALI cannot decode one video: its batch mates come from DALI all the same, and it comes from the workers."""
    names = ("a", "b", "guilty", "c")
    videos = [VideoFile(name, shutil.copy(generated / "vp9.webm", tmp_path / f"{name}.webm")) for name in names]
    decode = VideoPipeline.decode
    batches = []

    def refuse(self, batch):
        batches.append([run.video_id for run in batch])
        if any(run.video_id == "guilty" for run in batch):
            batch = [dataclasses.replace(run, data=run.data[:200]) for run in batch]
        return decode(self, batch)

    monkeypatch.setattr(VideoPipeline, "decode", refuse)
    events = list(
        sources.decode_videos(
            iter(videos), SAMPLING, 64, device_id=None, hybrid=False, num_workers=2, time_limit_s=60, num_pipelines=1
        )
    )
    found = collect(events)
    kinds = {video.video_id: [] for video in videos}
    for video, event in events:
        kinds[video.video_id].append(type(event).__name__)
    assert kinds["guilty"] == ["Restarted", "Notice", "SuperImages", "Finished"]
    assert all(kinds[name] == ["SuperImages", "Finished"] for name in names if name != "guilty")
    assert ["guilty"] in batches  # bisected until it stood alone
    reference = expected(generated / "vp9.webm")
    assert np.array_equal(found["guilty"], reference)
    assert all(psnr_db(found[name], reference) >= 40 for name in names)


def test_a_file_that_nothing_reads_is_recorded_once(generated, tmp_path):
    broken = tmp_path / "broken.webm"
    broken.write_bytes((generated / "vp9.webm").read_bytes()[:300])
    videos = [VideoFile("broken", broken), VideoFile("good", generated / "vp9.webm"), VideoFile("no", tmp_path / "no")]
    options = {"device_id": None, "hybrid": False, "num_workers": 1, "time_limit_s": 60}
    found = collect(sources.decode_videos(iter(videos), SAMPLING, 64, **options))
    assert isinstance(found["broken"], Failure) and isinstance(found["no"], Failure)
    assert psnr_db(found["good"], expected(generated / "vp9.webm")) >= 40


@pytest.mark.parametrize(
    ("name", "reason"),
    [("h264_10bits.mp4", "yuv420p10le"), ("bbb480.mp4", None), ("crystal.webm", None), ("av1_video.mkv", None)],
)
def test_what_is_not_for_nvdec(shared_data, name, reason):
    with segments.open_needed(shared_data / "videos" / name, SAMPLING) as reading:
        obstacle = segments.why_not(reading, "gpu")
        assert (obstacle is None) if reason is None else reason in obstacle
        assert (segments.why_not(reading, "cpu") is None) == name.endswith(".webm")


def test_turned_videos_are_not_for_dali(tmp_path):
    from whole_decodes import rotated

    source = write(tmp_path, Recipe("upright.mp4", options=(("preset", "ultrafast"),)))
    for turns in (1, 2, 3):
        turned = rotated(source, tmp_path / "turned.mp4", turns)
        with segments.open_needed(turned, SAMPLING) as reading:
            assert "turned" in segments.why_not(reading, "gpu")
    with segments.open_needed(source, SAMPLING) as reading:
        assert segments.why_not(reading, "gpu") is None


def test_large_frames_make_short_segments(monkeypatch, tmp_path):
    path = write(tmp_path, Recipe("vp8.webm", codec="libvpx", frames=90, gop=1, options=(("deadline", "realtime"),)))
    sampling = Sampling(fps=30, super_img_size=64)
    assert len(encoded(path, sampling)) == 2  # 64 and 26 frames
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 8 * 128 * 96 * 3)
    runs = encoded(path, sampling)
    assert [len(run.positions) for run in runs] == [8] * 11 + [2]
    assert all(run.decoded_bytes <= 8 * 128 * 96 * 3 for run in runs)
    images = np.concatenate([made.numpy() for run in runs for made in pipeline(sampling).decode([run])])
    assert psnr_db(images, expected(path, sampling)) >= 40


@pytest.fixture(scope="module")
def jpeg_folders(shared_data, tmp_path_factory) -> pathlib.Path:
    save_dir = tmp_path_factory.mktemp("jpegs")
    sampling = Sampling(fps=2, super_img_size=336)
    for name in ("echo.webm", "bbb480.mp4", "pancake.mkv"):
        video = VideoFile(name, shared_data / "videos" / name)
        saved_folders.save(save_dir, name, super_images.super_images(video, sampling), sampling)
    return save_dir


def jpeg_events(folders, image_size, **options):
    return sources.decode_images(iter(folders), image_size, device_id=None, num_workers=2, time_limit_s=60, **options)


@pytest.mark.parametrize("image_size", [336, 224, 64])
def test_jpeg_folders_give_the_fallbacks_super_images(jpeg_folders, image_size):
    folders = [VideoFile(path.name, path) for path in sorted(jpeg_folders.iterdir())]
    found = collect(jpeg_events(folders, image_size))
    for folder in folders:
        reference = np.concatenate([run.images for run in jpeg.read(folder, super_img_size=image_size)])
        assert found[folder.video_id].shape == reference.shape
        assert psnr_db(found[folder.video_id], reference) >= 40


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_damaged_jpeg_loses_its_video_only(jpeg_folders, tmp_path, damage):
    for folder in jpeg_folders.iterdir():
        shutil.copytree(folder, tmp_path / folder.name)
    bad = tmp_path / "bbb480.mp4" / "img_0001.jpg"
    data = bytearray(bad.read_bytes())
    noise = b"\xff\xd8" + bytes(500) + b"\xff\xd9"
    bad.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": noise}[damage])
    found = collect(jpeg_events([VideoFile(path.name, path) for path in sorted(tmp_path.iterdir())], 64))
    assert isinstance(found["bbb480.mp4"], Failure) and "img_0001.jpg" in found["bbb480.mp4"].reason
    assert all(isinstance(found[name], np.ndarray) for name in ("echo.webm", "pancake.mkv"))


X264, X265 = ("libx264", "x264-params", "bframes=0"), ("libx265", "x265-params", "pools=1:log-level=none")
CODINGS = {
    "h264.mp4": (*X264, "interlaced=1"),
    "h264.mkv": (*X264, "interlaced=1"),
    "h264.ts": (*X264, "interlaced=1"),
    "hevc.mp4": (*X265, "interlace=tff"),
    "hevc.ts": (*X265, "interlace=tff"),
    "mpeg4.avi": ("mpeg4", "flags", "+mv4", "+ilme+ildct"),
    "mpeg4.mp4": ("mpeg4", "flags", "+mv4", "+ilme+ildct"),
}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("name", CODINGS)
def test_interlaced_streams_are_not_for_dali(tmp_path, name, interlaced):
    codec, option, common, fields = CODINGS[name]
    options = [(option, common)]
    if interlaced:
        options = [(option, common + (fields if option == "flags" else f":{fields}"))]
    if codec != "mpeg4":
        options.append(("preset", "ultrafast"))
    recipe = Recipe(name, codec, frames=12, gop=6, b_frames=0, interlaced=interlaced, options=tuple(options))
    with segments.open_needed(write(tmp_path, recipe), SAMPLING) as reading:
        assert may_hold_fields(reading.summary.codec, reading.stream.codec_context) == interlaced
        obstacle = segments.why_not(reading, "gpu")
        assert obstacle == "its frames may be interlaced" if interlaced else obstacle is None


def test_full_range_mjpeg_is_not_for_nvdec(generated):
    with segments.open_needed(generated / "mjpeg.avi", SAMPLING) as reading:
        assert "full range" in segments.why_not(reading, "gpu")
        assert segments.why_not(reading, "cpu") is None


def test_what_the_card_does_not_decode_goes_to_the_workers(generated):
    """An A100 has no AV1; here a card without VP9, and one for small pictures only."""
    video = VideoFile("vp9", generated / "vp9.webm")
    options = {"skip": 0, "sampling": SAMPLING, "image_size": 64, "device": "gpu", "gauge": None}
    large, small = DecoderLimits(128, 128, 8192, 8192, 65536), DecoderLimits(128, 128, 256, 256, 65536)
    cards = (({"vp9": large}, CompressedSegment), ({"h264": large}, SuperImages), ({"vp9": small}, SuperImages))
    for limits, kind in cards:
        (run,) = segments.read_compressed(video, **options, limits=limits)
        assert type(run) is kind
    with segments.open_needed(video.path, SAMPLING) as reading:
        assert segments.why_not(reading, "gpu", {}) == "DALI does not decode vp9 on this GPU"
        assert "320 x 180" in segments.why_not(reading, "gpu", {"vp9": small})


class Altered:
    """DALI's pipeline, with something wrong in what comes back."""

    def __init__(self, inner, alter):
        self.inner, self.alter = inner, alter
        self.feed_input = inner.feed_input

    def run(self):
        return self.alter(*self.inner.run())


def shape_of(*frames_shape):
    return lambda grids, shapes: (grids, [torch.tensor(frames_shape)])


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (shape_of(4, 180, 320, 3), r"frames of vp9 came back as \[4\], expected \[5\]"),  # a picture is missing
        (shape_of(5, 90, 160, 3), "in bytes at their own size"),
        (lambda grids, shapes: ([torch.zeros(1, 64, 64, 3)], shapes), r"super images of vp9 came back as \[1, 64"),
        (lambda grids, shapes: ([torch.zeros(2, 64, 63, 3)], shapes), "super images of vp9"),
        (lambda grids, shapes: ([], []), "number of segments"),
    ],
)
def test_every_shape_that_comes_back_is_checked(generated, alter, message):
    sampling = Sampling(fps=5 / 3, super_img_size=64)
    (run,) = encoded(generated / "vp9.webm", sampling)
    assert len(run.positions) == 5
    pipe = pipeline(sampling)
    assert pipe.decode([run])[0].shape == (2, 64, 64, 3)
    pipe._pipeline = Altered(pipe._pipeline, alter)
    with pytest.raises(PipelineError, match=message):
        pipe.decode([run])


@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(grid_size=3, super_img_size=100, max_shift_s=1.0)])
def test_the_self_test_passes_where_dali_decodes(sampling):
    self_test.check_videos(pipeline(sampling, 64), sampling, 64, "cpu")
    self_test.check_images(JpegPipeline(64, device_id=None, max_items=1, num_threads=1), 64)


def test_the_gpus_sample_is_one_for_nvdec():
    (run,) = segments.read_compressed(
        VideoFile("sample", self_test.VIDEOS["gpu"]),
        skip=0,
        sampling=Sampling(fps=self_test.SAMPLE_FPS, grid_size=3),
        image_size=64,
        device="gpu",
        gauge=None,
    )
    assert isinstance(run, CompressedSegment) and len(run.positions) == 6


class Wrong:
    """A pipeline that decodes, but not what it was given."""

    def __init__(self, inner, alter):
        self.inner, self.alter = inner, alter

    def decode(self, batch):
        return [self.alter(images) for images in self.inner.decode(batch)]


@pytest.mark.parametrize(
    "alter",
    [
        torch.zeros_like,
        lambda images: images.flip(0),
        lambda images: images.flip(-1),
        lambda images: images[:1],
        lambda images: images.roll(20, 1),
    ],
    ids=["black", "another order", "blue for red", "too few", "shifted"],
)
def test_the_self_test_finds_wrong_pixels(alter):
    with pytest.raises(GridClipError, match=r"vp9\.webm"):
        self_test.check_videos(Wrong(pipeline(), alter), SAMPLING, 64, "cpu")


def test_a_job_whose_dali_decodes_garbage_is_decoded_by_the_workers(generated, monkeypatch, caplog):
    decode = VideoPipeline.decode
    monkeypatch.setattr(VideoPipeline, "decode", lambda self, batch: [255 - made for made in decode(self, batch)])
    videos = [VideoFile("vp9", generated / "vp9.webm")]
    options = {"device_id": None, "hybrid": False, "num_workers": 1, "time_limit_s": 60}
    found = collect(sources.decode_videos(videos, SAMPLING, 64, required=False, **options))
    assert np.array_equal(found["vp9"], expected(videos[0].path))
    assert "decoding on the CPU: DALI decodes the test file vp9.webm to other pixels" in caplog.text
    with pytest.raises(GridClipError, match="other pixels"):
        collect(sources.decode_videos(videos, SAMPLING, 64, required=True, **options))


def test_dali_that_fails_in_mid_job_is_given_up_and_nothing_is_lost(generated, tmp_path, monkeypatch, caplog):
    decode, started = VideoPipeline.decode, []

    def refuse(self, batch):
        if len(started) == 0:  # the self-test
            started.append(True)
            return decode(self, batch)
        raise PipelineError("DALI: no more")

    monkeypatch.setattr(VideoPipeline, "decode", refuse)
    monkeypatch.setattr(pipeline_threads, "GIVE_UP_AFTER", 3)
    videos = [VideoFile(f"v{n}", shutil.copy(generated / "vp9.webm", tmp_path / f"v{n}.webm")) for n in range(6)]
    found = collect(
        sources.decode_videos(
            videos, SAMPLING, 64, device_id=None, hybrid=False, num_workers=1, time_limit_s=60, limits=Limits(1, 1, 1)
        )
    )
    reference = expected(generated / "vp9.webm")
    assert len(found) == 6 and all(np.array_equal(images, reference) for images in found.values())
    assert caplog.text.count("DALI is given up after 3 failures") == 1


@pytest.mark.skipif(sources.first_gpu() is not None, reason="there is a GPU")
@pytest.mark.may_skip
def test_dali_that_cannot_start_leaves_the_work_to_the_cpu(jpeg_folders, shared_data, caplog):
    """A GPU whose driver is too old for DALI: here, none at all."""
    options = {"device_id": 0, "num_workers": 1, "time_limit_s": 60}
    echo = VideoFile("echo", shared_data / "videos" / "echo.webm")
    found = collect(sources.decode_videos([echo], SAMPLING, 64, hybrid=True, required=False, **options))
    assert np.array_equal(found["echo"], expected(echo.path))
    folder = VideoFile("echo.webm", jpeg_folders / "echo.webm")
    found = collect(sources.decode_images([folder], 64, **options))
    assert found["echo.webm"].shape[1:] == (64, 64, 3)
    assert caplog.text.count("decoding on the CPU: DALI cannot build its pipeline") == 2
    with pytest.raises(GridClipError, match="DALI cannot build its pipeline"):
        collect(sources.decode_videos([echo], SAMPLING, 64, hybrid=True, required=True, **options))


def test_jpeg_batches_are_one_tensor(jpeg_folders):
    folder = VideoFile("echo.webm", jpeg_folders / "echo.webm")
    runs = list(jpeg.read_compressed(folder, skip=0, super_img_size=64))
    pipe = JpegPipeline(64, device_id=None, max_items=64, num_threads=2)
    images = pipe.decode(runs + runs)
    assert images[0].untyped_storage().data_ptr() == images[-1].untyped_storage().data_ptr()
    assert (images[0] == images[-1]).all()
