"""engine/jobs/super_images.py: folders of videos to JPEG folders, with resume, overwrite and failures."""

import dataclasses
import errno
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import av
import coloured_videos
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.contract import Failure
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.dali_pipes.processes.stretches import Divisible
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.jobs.failures import FailureLog
from gridclip.engine.jobs.sharing import SharedFolder
from gridclip.engine.jobs.super_images import make_super_images
from PIL import Image

SAMPLING = Sampling(super_img_size=64)


def make(video_dir, save_dir, **options):
    options = {"sampling": SAMPLING, "num_workers": 1, **options}
    return make_super_images(video_dir, save_dir, **options)


def failures(folder) -> list[tuple[str, str]]:
    lines = (folder / "failures.jsonl").read_text().splitlines()
    return [(record["video_id"], record["stage"]) for record in map(json.loads, lines)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for colour, duration_s in (("red", 9), ("green", 17), ("blue", 1)):
        coloured_videos.write(folder / f"{colour}.mp4", colour, duration_s=duration_s)
    return folder


def test_every_video_gets_its_folder(videos, tmp_path):
    save_dir = tmp_path / "new" / "out"
    summary = make(videos, save_dir)
    assert (summary.done, summary.super_images, summary.failures) == (3, 4, 0) and summary.succeeded
    assert "3 videos (4 super images)" in str(summary) and "none failed" in str(summary)
    assert sorted(os.listdir(save_dir)) == ["blue", "failures.jsonl", "green", "job.json", "red"]
    assert sorted(os.listdir(save_dir / "green")) == ["img_0001.jpg", "img_0002.jpg", "super_images.json"]
    with Image.open(save_dir / "red" / "img_0001.jpg") as image:
        assert np.abs(np.asarray(image)[16, 16].astype(int) - coloured_videos.COLOURS["red"]).max() < 12
    blue = np.asarray(Image.open(save_dir / "blue" / "img_0001.jpg"))
    assert blue[36:, 36:].max() < 12 and blue[:28, :28, 2].min() > 180  # one frame, three black cells
    sidecar = jpeg.read_sidecar(save_dir / "green")
    assert sidecar.start_s == pytest.approx([0, 8], abs=0.5) and sidecar.end_s[1] == pytest.approx(17, abs=0.3)
    assert failures(save_dir) == []


def test_existing_folders_need_a_choice(videos, tmp_path):
    make(videos, tmp_path)
    with pytest.raises(GridClipError, match=r"folders of 3 of the 3 videos.*`resume=True`.*`overwrite=True`"):
        make(videos, tmp_path)
    with pytest.raises(ValueError, match="exclude"):
        make(videos, tmp_path, resume=True, overwrite=True)
    with pytest.raises(GridClipError, match=r"fps = 0\.5, this run has 1\.0.*`overwrite=True`"):
        make(videos, tmp_path, resume=True, sampling=Sampling(fps=1.0, super_img_size=64))
    summary = make(videos, tmp_path, overwrite=True, sampling=Sampling(fps=1.0, super_img_size=64))
    assert summary.super_images == 3 + 5 + 1 and len(os.listdir(tmp_path / "green")) == 5 + 1


def test_resume_makes_again_only_what_is_not_finished(videos, tmp_path):
    make(videos, tmp_path)
    (tmp_path / "green" / "img_0002.jpg").unlink()
    (tmp_path / "red" / "super_images.json").unlink()
    kept = (tmp_path / "blue" / "img_0001.jpg").stat()
    summary = make(videos, tmp_path, resume=True)
    assert (summary.done, summary.finished_before) == (2, 1)
    assert (tmp_path / "blue" / "img_0001.jpg").stat() == kept
    assert jpeg.read_sidecar(tmp_path / "green") and jpeg.read_sidecar(tmp_path / "red")
    summary = make(videos, tmp_path, resume=True)
    assert (summary.done, summary.finished_before) == (0, 3) and summary.succeeded


def bad_files(folder: pathlib.Path) -> None:
    good = coloured_videos.write(folder / "good.mp4", "cyan").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "text.mkv").write_text("no video" * 100)
    (folder / "cut.mp4").write_bytes(good[: len(good) // 2])
    (folder / "gone.mp4").symlink_to(folder / "nothing")
    (folder / "folder.mp4").mkdir()
    with av.open(str(folder / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for _ in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_bad_files_are_failures_once_and_go_away_when_mended(tmp_path):
    videos, save_dir = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    bad_files(videos)
    summary = make(videos, save_dir)
    assert (summary.done, summary.failures) == (1, 5)
    assert [name for name, _ in sorted(failures(save_dir))] == ["audio", "cut", "empty", "gone", "text"]
    assert sorted(os.listdir(save_dir)) == ["failures.jsonl", "good", "job.json"]

    coloured_videos.write(videos / "empty.mp4", "red")
    summary = make(videos, save_dir, resume=True)
    assert (summary.done, summary.failures, summary.finished_before) == (1, 4, 1)
    assert [name for name, _ in sorted(failures(save_dir))] == ["audio", "cut", "gone", "text"]


def test_annotated_videos(videos, tmp_path):
    annotations = tmp_path / "anno.json"
    annotations.write_text(
        json.dumps(
            {
                name: {"duration": 9.0, "timestamps": [[0, 5]], "sentences": ["something moves"]}
                for name in ("red", "missing")
            }
        )
    )
    summary = make(videos, tmp_path / "out", anno_file=annotations)
    assert (summary.done, summary.failures) == (1, 1)
    assert failures(tmp_path / "out") == [("missing", "list")]


def test_a_full_disk_ends_the_job_and_keeps_what_is_finished(videos, tmp_path, monkeypatch):
    from gridclip.engine.jobs import super_images

    make(videos, tmp_path)
    (tmp_path / "red" / "super_images.json").unlink()

    def full(sampling, decoder, on_damage):
        import fake_tasks

        return [fake_tasks.full_disk]

    monkeypatch.setattr(super_images.tasks, "compressing_tasks", full)
    with pytest.raises(GridClipError, match=os.strerror(errno.ENOSPC)):
        make(videos, tmp_path, resume=True)
    assert jpeg.read_sidecar(tmp_path / "green") and not list(tmp_path.glob(".*"))


def images(folder: pathlib.Path) -> int:
    """The super images in all folders."""
    return len(list(folder.glob("*/img_*.jpg")))


def test_the_count_is_that_of_the_files_after_a_crash_and_a_failure(videos, tmp_path, monkeypatch):
    from gridclip.engine.jobs import super_images

    def dying(*args):
        import fake_saving

        return fake_saving.dying_tasks(*args)

    monkeypatch.setattr(super_images.tasks, "compressing_tasks", dying)
    summary = make(videos, tmp_path, num_workers=2)
    assert (summary.done, summary.failures) == (2, 1) and failures(tmp_path) == [("green", "decode")]
    assert summary.super_images == images(tmp_path) == 10
    assert max(os.listdir(tmp_path / "red")) == "super_images.json" and not list(tmp_path.glob(".*"))


def test_unfinished_work_of_killed_jobs_goes_even_beside_finished_folders(videos, tmp_path):
    make(videos, tmp_path)
    for part in (tmp_path / ".red.part", tmp_path / ".jobs" / "host-1-ab" / "green.part"):
        part.mkdir(parents=True)
        (part / "img_0001.jpg").write_bytes(b"x")
    mine = tmp_path / ".notes.part"
    mine.mkdir()
    summary = make(videos, tmp_path, resume=True)
    assert (summary.done, summary.finished_before) == (0, 3)
    assert sorted(os.listdir(tmp_path)) == [".notes.part", "blue", "failures.jsonl", "green", "job.json", "red"]


JOB = """
import json, pathlib, sys
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.jobs.super_images import make_super_images
print("ready", flush=True)
sys.stdin.readline()
sampling = Sampling(fps=2.5, super_img_size=64)
summary = make_super_images(*map(pathlib.Path, sys.argv[1:]), sampling=sampling, resume=True)
print(json.dumps([summary.done, summary.finished_before, summary.failures, summary.super_images]), flush=True)
"""


def job(videos: pathlib.Path, save_dir: pathlib.Path) -> subprocess.Popen:
    """A job in a process of its own that waits for a line to begin."""
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, videos, save_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_jobs_in_one_folder_share_the_work(tmp_path):
    videos, save_dir = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    video = coloured_videos.write(videos / "v00.mp4", "red", duration_s=10)
    for number in range(1, 40):
        (videos / f"v{number:02d}.mp4").symlink_to(video)
    with job(videos, save_dir) as one, job(videos, save_dir) as two:
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [json.loads(process.stdout.readline()) for process in (one, two)]
    assert one.returncode == two.returncode == 0
    assert [done + before for done, before, _, _ in results] == [40, 40]
    assert [failed for _, _, failed, _ in results] == [0, 0]
    assert sum(done for done, _, _, _ in results) == 40  # no video was made twice
    assert sum(count for _, _, _, count in results) == images(save_dir) == 40 * 7
    folders = sorted(save_dir.glob("v*"))
    assert len(folders) == 40 and all(jpeg.read_sidecar(folder) for folder in folders)
    assert not list(save_dir.glob(".*"))


def test_one_of_two_jobs_is_killed_and_the_other_makes_the_rest(tmp_path):
    videos, save_dir = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    video = coloured_videos.write(videos / "v00.mp4", "red", duration_s=30)
    for number in range(1, 20):
        (videos / f"v{number:02d}.mp4").symlink_to(video)
    with job(videos, save_dir) as killed, job(videos, save_dir) as other:
        for process in (killed, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(save_dir.glob(f".jobs/*-{killed.pid}-*/*.part/*.jpg")) and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.kill()
        done, before, failed, _ = json.loads(other.stdout.readline())
    assert (done + before, failed) == (20, 0)
    assert all(jpeg.read_sidecar(save_dir / f"v{number:02d}") for number in range(20))
    summary = make(videos, save_dir, resume=True, sampling=Sampling(fps=2.5, super_img_size=64))
    assert summary.finished_before == 20 and not list(save_dir.glob(".*"))


def test_failures_are_written_where_a_second_job_has_begun_the_file_anew(tmp_path):
    path = tmp_path / "failures.jsonl"
    with FailureLog(path) as one, FailureLog(path):
        one.add(Failure("red", "decode", "damaged"))
    assert failures(tmp_path) == [("red", "decode")]


def test_overwrite_and_other_settings_wait_for_a_running_job(videos, tmp_path):
    make(videos, tmp_path)
    with SharedFolder(tmp_path, SAMPLING) as running:
        with pytest.raises(GridClipError, match=f"{running.part_dir.name} is writing to"):
            make(videos, tmp_path, overwrite=True)
        with pytest.raises(GridClipError, match=r"fps = 0\.5, this run has 2\.0"):
            make(videos, tmp_path, sampling=Sampling(fps=2.0, super_img_size=64), anno_file=None, resume=True)
        assert make(videos, tmp_path, resume=True).finished_before == 3
    assert make(videos, tmp_path, overwrite=True).done == 3


def test_super_images_need_neither_onnx_runtime_nor_lance(videos, tmp_path):
    script = (
        "import sys\n"
        "sys.modules['onnxruntime'] = sys.modules['lance'] = None\n"
        "from gridclip.cli import main\n"
        "main(['superimages', '--video-dir', sys.argv[1], '--save-dir', sys.argv[2], '--super-img-size', '64'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, videos, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(jpeg.read_sidecar(tmp_path / name) for name in ("red", "green", "blue"))


def test_ctrl_c_ends_at_once_and_keeps_what_is_finished(tmp_path):
    videos, save_dir = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    video = coloured_videos.write(videos / "v00.mp4", "red", duration_s=40)
    for number in range(1, 60):
        (videos / f"v{number:02d}.mp4").symlink_to(video)
    script = (
        "import pathlib, sys\n"
        "from gridclip.dali_pipes.sampling import Sampling\n"
        "from gridclip.engine.jobs.progress import Interrupted\n"
        "from gridclip.engine.jobs.super_images import make_super_images\n"
        "try: make_super_images(*map(pathlib.Path, sys.argv[1:]), sampling=Sampling(fps=5.0))\n"
        "except Interrupted as error: print(error.summary.done)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, videos, save_dir], stdout=subprocess.PIPE) as job:
        deadline = time.monotonic() + 30
        while len(list(save_dir.glob("v*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        interrupted = time.monotonic()
        job.send_signal(signal.SIGINT)
        done = int(job.stdout.read())
    assert time.monotonic() - interrupted < 8
    folders = sorted(save_dir.glob("v*"))
    assert 2 <= len(folders) < 60 and done <= len(folders) <= done + 1
    assert all(jpeg.read_sidecar(folder) for folder in folders)
    assert not list(save_dir.glob(".*"))


GRIDS = Sampling(fps=1.0, super_img_size=64, grid_size=(1, 3))


def test_several_grids_are_folders_beside_each_other(small_videos, tmp_path):
    summary = make_super_images(small_videos, tmp_path / "together", sampling=GRIDS, num_workers=2)
    assert (summary.done, summary.super_images, summary.failures) == (4, (9 + 4 + 17 + 1) + (1 + 1 + 2 + 1), 0)
    for size in (1, 3):
        alone = tmp_path / f"alone_{size}"
        make_super_images(small_videos, alone, sampling=dataclasses.replace(GRIDS, grid_size=size))
        expected = {path.relative_to(alone): path.read_bytes() for path in alone.rglob("*.*") if path.parent != alone}
        folder = tmp_path / "together" / f"grid_{size}"
        assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} == expected
    assert not list((tmp_path / "together").rglob("*.part"))


def test_an_unfinished_grid_makes_its_video_again(small_videos, tmp_path):
    make_super_images(small_videos, tmp_path, sampling=GRIDS)
    with pytest.raises(GridClipError, match="already has folders of 4 of the 4 videos"):
        make_super_images(small_videos, tmp_path, sampling=GRIDS)
    (tmp_path / "grid_3" / "a" / jpeg.SIDECAR).unlink()
    summary = make_super_images(small_videos, tmp_path, sampling=GRIDS, resume=True)
    assert (summary.done, summary.finished_before) == (1, 3)
    assert jpeg.read_sidecar(tmp_path / "grid_3" / "a") is not None
    with pytest.raises(GridClipError, match=r"grid_1/a was made with fps = 1.0, this run has 2.0"):
        make_super_images(small_videos, tmp_path, sampling=dataclasses.replace(GRIDS, fps=2.0), resume=True)


def test_overlapping_super_images_are_written_as_they_are_read(small_videos, tmp_path):
    sampling = Sampling(fps=1.0, super_img_size=64, stride=1)
    make_super_images(small_videos, tmp_path, sampling=sampling)
    sidecar = jpeg.read_sidecar(tmp_path / "a")
    assert sidecar is not None and sidecar.sampling == sampling
    assert sidecar.start_s == pytest.approx(range(6), abs=0.11)  # 9 frames: another begins while the last is in none
    assert sidecar.end_s == pytest.approx(range(4, 10), abs=0.11)
    assert len(list((tmp_path / "a").glob("img_*.jpg"))) == 6


def test_a_long_video_is_shared_by_workers_and_its_files_are_the_same(shared_data, tmp_path, monkeypatch):
    from gridclip.engine.jobs import super_images

    video_dir, sampling = tmp_path / "videos", Sampling(fps=4, super_img_size=64, grid_size=(1, 2))
    video_dir.mkdir()
    (video_dir / "car-detection.mp4").symlink_to(shared_data / "videos" / "car-detection.mp4")
    make(video_dir, tmp_path / "whole", sampling=sampling)
    seen = []

    def shared(*settings):
        import fake_tasks

        task = functools.partial(fake_tasks.parts_of_files, sampling=settings[0], decoder="pyav")
        return [Divisible("PyAV", task)]

    def noted(events, *arguments, **options):
        return super_images_write(map(note, events), *arguments, **options)

    def note(event):
        seen.append(getattr(event[1], "first", None))
        return event

    super_images_write = super_images.write_folders
    monkeypatch.setattr(super_images.tasks, "compressing_tasks", shared)
    monkeypatch.setattr(super_images, "write_folders", noted)
    summary = make(video_dir, tmp_path / "shared", sampling=sampling, num_workers=3)
    firsts = [first for first in seen if first is not None]
    assert firsts != sorted(firsts), "one worker made all of it"
    whole, files = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*/car-detection/*")}
        for name in ("whole", "shared")
    )
    assert whole == files and len(whole) == summary.super_images + 2
