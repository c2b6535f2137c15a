"""engine/jobs/status.py and heartbeat.py: what jobs leave behind, alive, ended and killed, against what was done."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import coloured_videos
import fake_model
import gridclip
import pytest
from gridclip import GridClipError
from gridclip.engine.jobs import heartbeat, status


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for colour in list(coloured_videos.COLOURS)[:4]:
        coloured_videos.write(folder / f"{colour}.mp4", colour, duration_s=4)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    return fake_model.write(tmp_path_factory.mktemp("model"))


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_job_that_has_ended(videos, model, tmp_path):
    gridclip.embed_videos(model, videos, tmp_path / "s", num_workers=1)
    before = files(tmp_path)
    found = gridclip.status(tmp_path / "s")
    assert files(tmp_path) == before  # reads only
    assert (found.stored, found.left, found.failed, found.alive) == (4, 0, 2, False)
    (job,) = found.jobs
    assert (job.state, job.host, job.pid) == ("finished", socket.gethostname(), os.getpid())
    assert (job.counts.total, job.counts.done, job.counts.failed) == (6, 4, 2)
    assert job.counts.failed_by_stage == {"open": 2}
    assert {(group.stage, group.count) for group in found.failures} <= {("open", 1), ("open", 2)}
    assert "4 videos stored" in str(found) and "finished 0:00:0" in str(found) and "2 failed" in str(found)
    assert json.loads(json.dumps(found.to_json()))["jobs"][0]["counts"]["left"] == 0


def test_shards_stand_side_by_side_and_stored_videos_have_not_failed(videos, model, tmp_path):
    (videos / "broken.mp4").write_bytes(b"no video")
    for shard_id in range(2):
        gridclip.embed_videos(model, videos, tmp_path / "s", num_workers=1, num_shards=2, shard_id=shard_id)
    found = gridclip.status(tmp_path / "s")
    assert [(job.num_shards, job.shard_id) for job in found.jobs] == [(2, 0), (2, 1)]
    assert sum(job.counts.done for job in found.jobs) == found.stored == 4
    assert (found.left, found.failed) == (0, 2)
    assert "job 1 of 2 finished" in str(found) and "in all: 0 left" in str(found)
    lines = (tmp_path / "s" / "failures.0-of-2.jsonl").read_text().splitlines()
    lines += (tmp_path / "s" / "failures.1-of-2.jsonl").read_text().splitlines()
    stale = json.dumps({"video_id": "red", "stage": "decode", "reason": "of an earlier run"})
    (tmp_path / "s" / "failures.jsonl").write_text("\n".join([stale, *lines, *lines]) + "\n")
    assert gridclip.status(tmp_path / "s").failed == 2


def test_a_folder_of_super_images_has_a_status(videos, tmp_path):
    gridclip.superimages(videos, tmp_path / "out", num_workers=1)
    found = gridclip.status(tmp_path / "out")
    assert (found.stored, found.left, found.failed) == (None, 0, 2)
    assert "made super images of 4 of 6 videos" in str(found)


def test_where_nothing_is_it_says_so(tmp_path):
    with pytest.raises(GridClipError, match=r"no job has written to .*nowhere"):
        gridclip.status(tmp_path / "nowhere")
    (tmp_path / "job.json").write_text('{"pid": "no record"}')
    with pytest.raises(GridClipError, match="no job"):
        gridclip.status(tmp_path)


SLOW_JOB = """
import sys, time
import gridclip
from gridclip.engine.jobs import heartbeat, sources
heartbeat.BEAT_S = 0.02
make = sources.video_source
def slow(*arguments, **options):
    def events(videos):
        for event in source(videos):
            yield event
            if type(event[1]).__name__ == "Finished":
                print("one", flush=True)
                time.sleep(60)
    source = make(*arguments, **options)
    return events
from gridclip.engine.jobs import embed_videos
embed_videos.video_source = slow
gridclip.embed_videos(sys.argv[1], sys.argv[2], sys.argv[3], num_workers=1, batch_size=1, resume=True)
"""


def test_a_running_job_is_alive_and_a_killed_one_has_died(videos, model, tmp_path):
    arguments = [sys.executable, "-c", SLOW_JOB, str(model), str(videos), str(tmp_path / "s")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as job:
        job.stdout.readline()
        deadline = time.monotonic() + 30
        while not (found := gridclip.status(tmp_path / "s")).jobs[0].counts.done and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found.alive and found.jobs[0].pid == job.pid and found.jobs[0].state == "running"
        assert found.left == 6 - found.jobs[0].counts.done - found.jobs[0].counts.failed > 0
        assert f"running (process {job.pid} on" in str(found)
        job.send_signal(signal.SIGKILL)
    found = gridclip.status(tmp_path / "s")
    assert not found.alive and found.jobs[0].state == "died" and found.left and found.left_s is None
    assert "go on with `resume=True`" in str(found)
    gridclip.embed_videos(model, videos, tmp_path / "s", num_workers=1, resume=True)
    found = gridclip.status(tmp_path / "s")
    assert [job.state for job in found.jobs] == [
        "finished"
    ] and found.stored == 4  # the dead one's record is taken over


def test_an_interrupted_and_a_stopped_job_say_so(tmp_path):
    counts = status.Counts("embedded", 5, 2, 1, 0, 9, {"open": 1}, 0.5, 4.0)
    with pytest.raises(KeyboardInterrupt), heartbeat.Heartbeat(tmp_path, 1, 0, lambda: counts):
        raise KeyboardInterrupt
    (job,) = gridclip.status(tmp_path).jobs
    assert (job.state, job.videos_per_s, job.counts.left) == ("interrupted", 0.75, 2)
    with pytest.raises(GridClipError), heartbeat.Heartbeat(tmp_path, 1, 0, lambda: counts):
        raise GridClipError("the disk is full")
    (job,) = gridclip.status(tmp_path).jobs
    assert (job.state, job.error) == ("stopped", "the disk is full")


def test_two_jobs_at_once_have_a_record_each_and_share_what_is_left(tmp_path):
    first = status.Counts("made super images of", 10, 3, 1, 0, None, {"open": 1}, 0.0, 4.0)
    second = status.Counts("made super images of", 10, 2, 0, 0, None, {}, 0.0, 4.0)
    with heartbeat.Heartbeat(tmp_path, 1, 0, lambda: first), heartbeat.Heartbeat(tmp_path, 1, 0, lambda: second):
        found = gridclip.status(tmp_path)
        assert [job.counts.done for job in found.jobs] == [3, 2] and found.left == 10 - 4 - 2


def test_a_job_on_another_machine_lives_while_it_shows_signs_and_a_reused_process_id_is_no_job(tmp_path):
    counts = status.Counts("embedded", 5, 2, 0, 0, 9, {}, 0.5, 4.0)
    with heartbeat.Heartbeat(tmp_path, 1, 0, lambda: counts):
        record = json.loads((tmp_path / "job.json").read_text())
    record |= {"ended_s": None, "outcome": None, "videos_per_s": 1.5}
    for changes, state in [
        ({}, "running"),
        ({"process_started": 1}, "died"),
        ({"host": "elsewhere"}, "running"),
        ({"host": "elsewhere", "beat_s": time.time() - 2 * heartbeat.SILENT_S}, "died"),
    ]:
        (tmp_path / "job.json").write_text(json.dumps(record | {"beat_s": time.time()} | changes))
        (job,) = gridclip.status(tmp_path).jobs
        assert job.state == state
        assert job.left_s == (2.0 if state == "running" else None)


def test_reasons_that_differ_in_names_and_numbers_only_are_one_group(tmp_path):
    reasons = [("a", "/x/a.mp4 ends at 3 of 9"), ("b", "/x/b.mp4 ends at 17 of 80"), ("c", "no video stream")]
    lines = [json.dumps({"video_id": name, "stage": "open", "reason": reason}) for name, reason in reasons]
    (tmp_path / "failures.jsonl").write_text("\n".join(lines) + "\nno json\n")
    found = gridclip.status(tmp_path)
    assert [(group.count, group.video_id) for group in found.failures] == [(2, "a"), (1, "c")]


def test_the_rate_is_that_of_the_last_minutes():
    rate = heartbeat.Rate()
    assert rate.add(0, 0.0) is None
    assert rate.add(30, 10.0) == 3.0
    for second in range(20, 1000, 10):
        found = rate.add(30 + (second - 10) * 5, float(second))
    assert found == pytest.approx(5.0)
