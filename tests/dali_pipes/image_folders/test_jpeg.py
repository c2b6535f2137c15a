"""dali_pipes/image_folders/jpeg.py: folders of super images, written whole or not at all, and read back."""

import errno
import io
import json
import pathlib

import fake_tasks
import numpy as np
import pytest
import saved_folders
from gridclip import GridClipError
from gridclip.dali_pipes.contract import Failure, Finished, SuperImages, VideoError, VideoFile
from gridclip.dali_pipes.cpu import tasks
from gridclip.dali_pipes.image_folders import jpeg, jpeg_decoding
from gridclip.dali_pipes.processes import pool
from gridclip.dali_pipes.sampling import Sampling
from PIL import Image

SAMPLING = Sampling(super_img_size=64)


def picture(seed: int, size_px: int = 64) -> np.ndarray:
    """Smooth colours that JPEG keeps well."""
    y, x = np.mgrid[:size_px, :size_px] / size_px
    waves = [np.sin(3 * x + seed + channel) + np.cos(4 * y * channel + seed) for channel in range(3)]
    return (np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)


def decode(video: VideoFile, *, count: int = 5, fail_after: int | None = None):
    """A fake decoder: runs of two super images."""
    for first in range(0, count, 2):
        if fail_after is not None and first >= fail_after:
            raise VideoError("decode", "damaged")
        numbers = np.arange(first, min(first + 2, count))
        images = np.stack([picture(number) for number in numbers])
        yield SuperImages(video.video_id, first, count, images, numbers * 8.0, numbers * 8.0 + 8)


def save(save_dir: pathlib.Path, video_id: str = "v", decode=decode) -> None:
    saved_folders.save(save_dir, video_id, decode(VideoFile(video_id, pathlib.Path("v.mp4"))), SAMPLING)


def read(folder: pathlib.Path, super_img_size: int = 64, **options) -> list[SuperImages]:
    return list(jpeg.read(VideoFile(folder.name, folder), super_img_size=super_img_size, **options))


def test_a_folder_comes_back_as_it_was_written(tmp_path, monkeypatch):
    save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v"]
    names = sorted(path.name for path in (tmp_path / "v").iterdir())
    assert names == [f"img_000{number}.jpg" for number in range(1, 6)] + ["super_images.json"]
    monkeypatch.setattr(jpeg, "READ_AT_ONCE", 2)
    runs = read(tmp_path / "v")
    assert [(run.first, run.total, len(run.images)) for run in runs] == [(0, 5, 2), (2, 5, 2), (4, 5, 1)]
    images = np.concatenate([run.images for run in runs]).astype(int)
    assert np.abs(images - np.stack([picture(number) for number in range(5)])).mean() < 2
    assert np.concatenate([run.start_s for run in runs]).tolist() == [0, 8, 16, 24, 32]
    assert np.concatenate([run.end_s for run in runs]).tolist() == [8, 16, 24, 32, 40]
    skipped = read(tmp_path / "v", skip=3)
    assert skipped[0].first == 3 and np.array_equal(skipped[0].images[0], runs[1].images[1])


def test_files_are_plain_jpeg_of_quality_75(tmp_path):
    save(tmp_path)
    with Image.open(tmp_path / "v" / "img_0001.jpg") as image, io.BytesIO() as expected:
        Image.fromarray(picture(0)).save(expected, "JPEG", quality=75)
        assert image.quantization == Image.open(expected).quantization and image.size == (64, 64)


def test_a_failed_video_leaves_no_folder(tmp_path):
    with pytest.raises(VideoError, match="damaged"):
        save(tmp_path, decode=lambda video: decode(video, fail_after=2))
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_folder_is_replaced_and_a_users_file_is_kept(tmp_path):
    part = jpeg.part_folder(tmp_path / ".parts", "v")
    part.mkdir(parents=True)
    (part / "img_0099.jpg").write_bytes(b"x")
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "img_0077.jpg").write_bytes(b"x")
    save(tmp_path)
    assert len(list((tmp_path / "v").iterdir())) == 6 and not part.exists()
    (tmp_path / "v" / "notes.txt").write_text("mine")
    with pytest.raises(VideoError, match=r"notes\.txt"):
        save(tmp_path)
    assert len(list((tmp_path / "v").iterdir())) == 7 and not part.exists()


def test_a_full_disk_ends_the_job_with_advice(tmp_path, monkeypatch):
    save(tmp_path, "done")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(GridClipError, match=r"No space left on device.*`resume=True`") as caught:
        save(tmp_path)
    assert not isinstance(caught.value, VideoError)
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_the_sidecar_marks_a_complete_folder(tmp_path):
    save(tmp_path)
    sidecar = jpeg.read_sidecar(tmp_path / "v")
    assert sidecar.sampling == SAMPLING and len(sidecar.start_s) == 5
    (tmp_path / "v" / "img_0005.jpg").unlink()
    assert jpeg.read_sidecar(tmp_path / "v") is None
    with pytest.raises(VideoError, match="does not match the 4 images"):
        read(tmp_path / "v")
    (tmp_path / "v" / "super_images.json").write_text("{")
    assert jpeg.read_sidecar(tmp_path / "v") is None


def test_folders_of_other_programs_have_unknown_times_and_numeric_order(tmp_path):
    for number in (9999, 10000, 10001):
        (tmp_path / f"img_{number:04d}.jpg").write_bytes(jpeg.encode(picture(number)))
    with pytest.raises(VideoError, match=r"img_0001\.jpg is missing"):
        read(tmp_path)
    for number in range(1, 9999):
        (tmp_path / f"img_{number:04d}.jpg").symlink_to(tmp_path / "img_9999.jpg")
    runs = read(tmp_path, skip=9997)
    assert np.isnan(runs[0].start_s).all() and runs[0].total == 10001
    images = runs[0].images.astype(int)
    assert np.abs(images[1] - picture(9999)).mean() < 2 and np.abs(images[3] - picture(10001)).mean() < 2
    (tmp_path / "img_5000.jpg").unlink()
    with pytest.raises(VideoError, match=r"img_5000\.jpg is missing"):
        read(tmp_path)


def test_other_sizes_are_resized_without_a_crop(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 60:] = 200
    (tmp_path / "img_0001.jpg").write_bytes(jpeg.encode(wide))
    image = read(tmp_path)[0].images[0]
    assert image.shape == (64, 64, 3) and image[:, :28].max() < 20 and image[:, 36:].min() > 180


@pytest.mark.parametrize("reader", ["turbojpeg", "pillow"])
@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_files_lose_the_video_with_the_files_name(tmp_path, monkeypatch, reader, damage):
    use(reader, monkeypatch)
    data = jpeg.encode(picture(1))
    (tmp_path / "img_0001.jpg").write_bytes(data)
    (tmp_path / "img_0002.jpg").write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"no image"}[damage])
    with pytest.raises(VideoError, match=r"img_0002\.jpg: ") as caught:
        read(tmp_path)
    assert caught.value.stage == "read"


@pytest.mark.parametrize("reader", ["turbojpeg", "pillow"])
def test_both_readers_give_the_same_pixels(tmp_path, monkeypatch, reader):
    use(reader, monkeypatch)
    path = tmp_path / "img.jpg"
    path.write_bytes(jpeg.encode(picture(3)))
    assert np.abs(jpeg.read_image(path).astype(int) - np.asarray(Image.open(path)).astype(int)).max() <= 2
    Image.fromarray(picture(3)[..., 0]).save(path, "JPEG")  # grey
    assert jpeg.read_image(path).shape == (64, 64, 3)


def test_pillow_steps_in_where_the_first_decoder_dies(tmp_path):
    save(tmp_path)
    tasks_ = [fake_tasks.by_name, tasks.image_tasks(64)[-1]]
    video = VideoFile("segfault", tmp_path / "v")
    results = [result for _, result in pool.run([video], tasks_, num_workers=1, size=lambda result: 0)]
    (run,) = [result for result in results if isinstance(result, SuperImages)]
    (expected,) = read(tmp_path / "v")
    assert results[-1] == Finished() and np.array_equal(run.images, expected.images)


def test_a_cut_file_costs_its_folder_and_no_other(tmp_path):
    names = [f"v{number}" for number in range(8)]
    for name in names:
        save(tmp_path, name)
    for name, length in (("v1", 200), ("v4", 500)):
        path = tmp_path / name / "img_0001.jpg"
        path.write_bytes(path.read_bytes()[:length])
    folders = [VideoFile(name, tmp_path / name) for name in names]
    results = list(pool.run(folders, tasks.image_tasks(64), num_workers=1, size=tasks.count_super_images))
    lost = {video.video_id: result for video, result in results if isinstance(result, Failure)}
    assert {name: failure.stage for name, failure in lost.items()} == {"v1": "read", "v4": "read"}
    (expected,) = read(tmp_path / "v0")
    for _, run in results:
        if isinstance(run, SuperImages):
            assert np.array_equal(run.images, expected.images)
    assert sum(result == Finished() for _, result in results) == 6


def test_a_video_id_with_a_slash_is_a_folder_in_a_folder(tmp_path):
    save(tmp_path, "a/b")
    assert jpeg.read_sidecar(tmp_path / "a" / "b") and len(list((tmp_path / "a").iterdir())) == 1


def test_an_empty_or_missing_folder_is_named(tmp_path):
    with pytest.raises(VideoError, match="no img_"):
        read(tmp_path)
    with pytest.raises(VideoError, match="No such file"):
        read(tmp_path / "none")


def test_a_sidecar_with_a_number_beyond_floats_is_damaged(tmp_path):
    save(tmp_path)
    sidecar = tmp_path / "v" / jpeg.SIDECAR
    record = json.loads(sidecar.read_text("utf-8"))
    record["start_s"][1] = 10**400
    sidecar.write_text(json.dumps(record))
    assert jpeg.read_sidecar(tmp_path / "v") is None


@pytest.mark.parametrize("text", ['"fps"', "[]", "7", "null"])
def test_a_sidecar_that_is_no_object_is_damaged(tmp_path, text):
    save(tmp_path)
    (tmp_path / "v" / jpeg.SIDECAR).write_text(text)
    assert jpeg.read_sidecar(tmp_path / "v") is None


def test_the_sidecar_is_readable_json(tmp_path):
    save(tmp_path)
    record = json.loads((tmp_path / "v" / "super_images.json").read_text())
    assert record["count"] == 5 and record["fps"] == 0.5 and record["grid_size"] == 2


def use(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes jpeg.py read with the given library."""
    if reader == "pillow":
        monkeypatch.setattr(jpeg_decoding, "turbojpeg_library", lambda: None)
    elif jpeg_decoding.turbojpeg_library() is None:
        pytest.skip("no libturbojpeg on this machine")


def test_ids_with_slashes_are_folders_in_folders(tmp_path):
    for number, video_id in enumerate(("2024/a/b", "2024/a", "2024/a", "2024/a/b/c", "2024/a/b")):
        save(tmp_path, video_id, decode=lambda video, count=5 - number: decode(video, count=count))
    counts = {"2024/a": 3, "2024/a/b": 1, "2024/a/b/c": 2}
    assert {name: len(jpeg.read_sidecar(tmp_path / name).start_s) for name in counts} == counts
    assert {name: sum(len(run.images) for run in read(tmp_path / name)) for name in counts} == counts
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == sum(counts.values()) + 3


def test_a_folder_that_is_replaced_piece_by_piece_is_never_taken_for_a_whole_one(tmp_path, monkeypatch):
    save(tmp_path, "a/b")
    save(tmp_path, "a")
    rename, seen = pathlib.Path.rename, []

    def watched(self, target):
        if self.suffix == ".jpg":
            seen.append(jpeg.read_sidecar(tmp_path / "a"))
            with pytest.raises(VideoError):  # none is there yet, or the sidecar says that it is made only in part
                read(tmp_path / "a")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", watched)
    save(tmp_path, "a")
    assert seen == [None] * 5 and jpeg.read_sidecar(tmp_path / "a") is not None


@pytest.mark.parametrize("video_id", ["../v", "/v", "", "a/../../v", "a\0", "..\\v", "x" * 300])
def test_no_folder_is_written_outside(tmp_path, video_id):
    save_dir = tmp_path / "out"
    save_dir.mkdir()
    with pytest.raises(VideoError, match="cannot be a path"):
        save(save_dir, video_id)
    assert list(tmp_path.rglob("*")) == [save_dir]
