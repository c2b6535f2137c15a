"""engine/jobs/sharing.py: several jobs in one folder, living and dead, here and on other machines."""

import errno
import fcntl
import logging
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.jobs import sharing
from gridclip.engine.jobs.sharing import SharedFolder

SAMPLING = Sampling(super_img_size=64)


def killed_job(save_dir: pathlib.Path, video_id: str) -> str:
    """A job that is killed with one video in work; returns its name."""
    script = (
        "import os, pathlib, signal, sys\n"
        "sys.path[:0] = sys.argv[3:]\n"
        "from gridclip.dali_pipes.sampling import Sampling\n"
        "from gridclip.engine.jobs.sharing import SharedFolder\n"
        "shared = SharedFolder(pathlib.Path(sys.argv[1]), Sampling(super_img_size=64))\n"
        "shared.claim(sys.argv[2])\n"
        "print(shared.part_dir.name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [sys.executable, "-c", script, save_dir, video_id, *sys.path]
    job = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)
    assert job.returncode == -signal.SIGKILL
    return job.stdout.strip()


def moved_to_another_machine(save_dir: pathlib.Path, name: str, silent_s: float) -> str:
    """As if the job had run elsewhere, and given its last sign of life so long ago."""
    jobs = save_dir / sharing.JOBS
    there = f"elsewhere-{name.split('-', 1)[1]}"
    (jobs / name).rename(jobs / there)
    lock = (jobs / f"{name}.lock").rename(jobs / f"{there}.lock")
    then = lock.stat().st_mtime - silent_s
    os.utime(lock, (then, then))
    return there


def test_a_video_belongs_to_one_of_two_jobs_until_it_is_released(tmp_path):
    with SharedFolder(tmp_path, SAMPLING) as one, SharedFolder(tmp_path, SAMPLING) as two:
        assert one.claim("a/b") and not two.claim("a/b") and two.held("a/b") and not one.held("a/b")
        assert two.claim("c") and not one.claim("c")
        one.release("a/b")
        assert two.claim("a/b") and one.held("a/b")
        assert one.part_dir != two.part_dir
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_ends_leaves_its_videos_to_the_others(tmp_path):
    with SharedFolder(tmp_path, SAMPLING) as one:
        with SharedFolder(tmp_path, SAMPLING) as two:
            assert two.claim("v") and not one.claim("v")
        assert one.claim("v")
        assert sorted(os.listdir(tmp_path / sharing.JOBS)) == [one.part_dir.name, f"{one.part_dir.name}.lock"]


def test_a_second_job_is_told_of_the_first(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("gridclip"), "propagate", True)
    with SharedFolder(tmp_path, SAMPLING) as one:
        one.check_alone()
        one.check_same(SAMPLING)
        with SharedFolder(tmp_path, SAMPLING) as two:
            with pytest.raises(GridClipError, match=f"{one.part_dir.name} is writing to .*`resume=True`"):
                two.check_alone()
            two.check_same(SAMPLING)
            assert one.part_dir.name in caplog.text
            with pytest.raises(GridClipError, match=r"fps = 0\.5, this run has 1\.0"):
                two.check_same(Sampling(fps=1.0, super_img_size=64))
        one.check_alone()


def test_what_a_killed_job_has_left_goes(tmp_path):
    with SharedFolder(tmp_path, SAMPLING) as running:
        running.claim("mine")
        dead = killed_job(tmp_path, "v")
        assert jpeg.part_folder(tmp_path / sharing.JOBS / dead, "v").is_dir()
        assert running.claim("v")  # the dead hold nothing
        (tmp_path / sharing.JOBS / "planted").mkdir()
        with SharedFolder(tmp_path, SAMPLING) as one:
            names = {running.part_dir.name, one.part_dir.name}
            assert set(os.listdir(tmp_path / sharing.JOBS)) == names | {f"{name}.lock" for name in names}
            assert jpeg.part_folder(running.part_dir, "mine").is_dir() and not one.claim("mine")


@pytest.mark.parametrize("silent_s", [0, 2 * sharing.SILENT_S])
def test_a_job_of_another_machine_is_given_time(tmp_path, silent_s):
    dead = moved_to_another_machine(tmp_path, killed_job(tmp_path, "v"), silent_s)
    with SharedFolder(tmp_path, SAMPLING) as one:
        assert (tmp_path / sharing.JOBS / dead).is_dir() == (not silent_s)
        assert one.claim("v")  # and made again meanwhile


def test_a_drive_without_locks_takes_one_job(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("gridclip"), "propagate", True)
    dead = killed_job(tmp_path, "v")

    def no_locks(*_args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with SharedFolder(tmp_path, SAMPLING) as one:
        assert one.claim("v") and (tmp_path / sharing.JOBS / dead).is_dir()
        one.check_alone()
    assert "No locks available" in caplog.text


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    def refused(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "mkdir", refused)
    with pytest.raises(GridClipError, match=f"cannot write to {tmp_path}: Permission denied"):
        SharedFolder(tmp_path, SAMPLING)
