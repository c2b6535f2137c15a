"""engine/jobs/slurm_script.py: the script under a stand-in for Slurm that kills, ends and re-queues its tasks.

sbatch and scontrol are scripts that note what they are asked for; this test then plays the scheduler.
"""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import coloured_videos
import fake_model
import gridclip
import lance
import pytest
from click.testing import CliRunner
from gridclip.cli import main

TESTS = pathlib.Path(__file__).resolve().parents[2]
STAND_IN = """#!{python}
import json, os, pathlib, shutil, sys
spool = pathlib.Path({spool!r})
number = len(list(spool.glob("*.json"))) + 1
name = pathlib.Path(sys.argv[0]).name
if name == "sbatch":
    (spool / f"{{number}}.sh").write_bytes(pathlib.Path(sys.argv[-2 if sys.argv[-1] == "close" else -1]).read_bytes())
    print(number)
(spool / f"{{number}}.json").write_text(json.dumps([name, *sys.argv[1:]]))
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> pathlib.Path:
    """The spool of a cluster without machines; its commands are first in PATH."""
    spool, commands = tmp_path / "spool", tmp_path / "commands"
    spool.mkdir(), commands.mkdir()
    for name in ("sbatch", "scontrol"):
        (commands / name).write_text(STAND_IN.format(python=sys.executable, spool=str(spool)))
        (commands / name).chmod(0o755)
    # Appends of two videos, so that a short task commits several times.
    command = f'#!/bin/sh\nexec {sys.executable} {TESTS / "kills" / "command.py"} "$@"\n'
    (commands / "gridclip").write_text(command)
    (commands / "gridclip").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GRIDCLIP", str(commands / "gridclip"))
    return spool


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos with a space")
    for number in range(12):
        colour = list(coloured_videos.COLOURS)[number % 8]
        coloured_videos.write(folder / f"{number:02d}.mp4", colour, duration_s=4 + 8 * (number % 2))
    return folder


def noted(spool: pathlib.Path) -> list[list[str]]:
    return [
        json.loads((spool / f"{number}.json").read_text()) for number in range(1, len(list(spool.glob("*.json"))) + 1)
    ]


def start(script: pathlib.Path, *arguments: str, shard: int | None = None, restarts: int = 0) -> subprocess.Popen:
    """What a compute node does with a task."""
    environment = {**os.environ, "SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": str(restarts)}
    if shard is not None:
        environment |= {"SLURM_ARRAY_TASK_ID": str(shard), "SLURM_ARRAY_JOB_ID": "1"}
    return subprocess.Popen(["bash", str(script), *arguments], env=environment, start_new_session=True)


def wait_for_videos(store: pathlib.Path, count: int, task: subprocess.Popen) -> None:
    """Until the store holds so many videos, or the task is over."""
    table = store / "super_images.lance"
    while task.poll() is None:
        if (table / "_versions").is_dir() and any((table / "_versions").iterdir()):
            ids = lance.dataset(str(table)).to_table(columns=["video_id"])["video_id"]
            if len(ids.unique()) >= count:
                return
        time.sleep(0.02)


def rows(store: pathlib.Path) -> list[dict]:
    found = lance.dataset(str(store / "super_images.lance")).to_table().to_pylist()
    return sorted(found, key=lambda row: (row["video_id"], row["index"]))


def submit(tmp_path, videos, model, *options: str) -> pathlib.Path:
    arguments = ["--model", model, "--video-dir", videos, "--store", tmp_path / "a store", "--tasks", "2"]
    result = CliRunner().invoke(main, ["slurm-script", *map(str, arguments), "--gpus-per-task", "0", *options])
    assert result.exit_code == 0, result.output
    script = tmp_path / "job.sh"
    script.write_text(result.output)
    subprocess.run(["bash", str(script)], check=True, env={k: v for k, v in os.environ.items() if "SLURM" not in k})
    return script


@pytest.mark.parametrize("own_stores", [False, True])
def test_tasks_that_are_killed_and_queued_again_make_the_store_of_one_machine(cluster, videos, tmp_path, own_stores):
    model = fake_model.write(tmp_path / "model")
    gridclip.embed_videos(model, videos, tmp_path / "one machine", num_workers=1)
    submit(tmp_path, videos, model, "--cpus-per-task", "1", *(["--own-stores"] if own_stores else []))
    array, closing = noted(cluster)
    assert array[:2] == ["sbatch", "--parsable"] and "--dependency=afterany:1" in closing and closing[-1] == "close"
    task = cluster / "1.sh"
    assert "#SBATCH --array=0-1\n" in task.read_text() and "#SBATCH --requeue\n" in task.read_text()
    store = tmp_path / "a store"
    stores = [tmp_path / "a store.shards" / shard if own_stores else store for shard in "01"]

    first = start(task, shard=0)
    wait_for_videos(stores[0], 2, first)
    os.killpg(first.pid, signal.SIGKILL)  # its machine is gone
    first.wait()
    second = start(task, shard=1)
    while second.poll() is None and not (stores[1] / "job.1-of-2.json").exists():
        time.sleep(0.02)
    second.send_signal(signal.SIGUSR1)  # its time is nearly up
    assert second.wait(60) == 0
    assert noted(cluster)[2:] == [["scontrol", "requeue", "1_1"]]
    for shard in (0, 1):
        assert start(task, shard=shard, restarts=1).wait(120) == 0
    assert start(cluster / "2.sh", "close", shard=0).wait(120) == 0
    assert rows(store) == rows(tmp_path / "one machine")
    assert gridclip.status(stores[0]).jobs[0].counts.left == 0


def test_what_is_asked_for_is_in_the_script(tmp_path):
    arguments = ["--model", "ViT-B/32", "--video-dir", "s3://b/it's", "--store", tmp_path / "s", "--tasks", "8"]
    asked = ["--gpus-per-task", "2", "--time", "4:00:00", "--partition", "a100", "--sbatch-option", "--mem=64G"]
    result = CliRunner().invoke(main, ["slurm-script", *map(str, arguments), *asked, "--fps", "1", "--cells"])
    lines = result.output.splitlines()
    for directive in ("--array=0-7", "--gres=gpu:2", "--time=4:00:00", "--partition=a100", "--mem=64G"):
        assert f"#SBATCH {directive}" in lines
    (command,) = [line for line in lines if "embed-videos" in line]
    words = shlex.split(command.rstrip("\\"))
    assert words[words.index("--video-dir") + 1] == "s3://b/it's" and words[words.index("--num-gpus") + 1] == "2"
    assert {"--fps", "1", "--cells"} <= set(words)
    assert subprocess.run(["bash", "-n"], input=result.output, text=True, check=False).returncode == 0


def test_wrong_use(tmp_path):
    arguments = ["slurm-script", "--model", "m", "--video-dir", "v", "--tasks", "2"]
    result = CliRunner().invoke(main, [*arguments, "--shard-id", "1"])
    assert result.exit_code == 2 and "--shard-id cannot be among" in result.output
    result = CliRunner().invoke(main, [*arguments, "--sbatch-option", "mem"])
    assert result.exit_code == 2 and "no option of sbatch" in result.output
    result = CliRunner().invoke(main, ["merge", "--store", str(tmp_path / "s")])
    assert result.exit_code == 2 and "nothing to do" in result.output
