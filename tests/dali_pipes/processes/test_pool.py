"""dali_pipes/processes/pool.py: streaming, retries, hangs, crashes, and an end without leftovers."""

import functools
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.contract import Failure, Finished, Notice, Restarted, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import super_images, tasks
from gridclip.dali_pipes.processes import child, pool, serving
from gridclip.dali_pipes.sampling import Sampling

TESTS = pathlib.Path(__file__).parents[2]


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS))
    import fake_tasks

    return fake_tasks


def video(name: str, path: str = "x") -> VideoFile:
    return VideoFile(name, pathlib.Path(path))


def collect(results):
    """Per video what it yielded, in order."""
    found: dict[str, list] = {}
    for file, result in results:
        found.setdefault(file.video_id, []).append(result)
    return found


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_every_video_streams_its_results_in_order(fakes):
    videos = [video(f"v{number}") for number in range(7)]
    found = collect(pool.run(iter(videos), [fakes.count_to_five], num_workers=2))
    assert found == {f"v{number}": [0, 1, 2, 3, 4, Finished()] for number in range(7)}


def test_no_videos_start_no_process():
    assert list(pool.run([], [print], num_workers=4)) == []


def test_the_next_task_goes_on_where_a_crash_or_hang_ended(fakes, caplog):
    names = ["good", "hang", "exit", "segfault", "killed", "bug", "good2"]
    found = collect(
        pool.run(
            [video(name) for name in names],
            [fakes.by_name, fakes.count_to_five],
            num_workers=2,
            time_limit_s=2,
            size=lambda value: 1,
        )
    )
    made = {name: [value for value in results if not isinstance(value, Notice)] for name, results in found.items()}
    assert made == {name: [0, 1, 2, 3, 4, Finished()] for name in names}
    notices = {name: value.detail for name, results in found.items() for value in results if isinstance(value, Notice)}
    others = "made by count_to_five from super image 3 on"
    assert notices == {
        "hang": f"by_name failed (nothing decoded for 2 s): {others}",
        "exit": f"by_name failed 2 times (the decoding process ended with status 3): {others}",
        "segfault": f"by_name failed 2 times (the decoding process crashed (SIGSEGV)): {others}",
        "killed": f"by_name failed 2 times (the decoding process was killed (out of memory?)): {others}",
        "bug": f"by_name failed 2 times (KeyError: 'surprise'): {others}",
    }
    assert "surprise" in caplog.text and "SIGSEGV" in caplog.text


def test_a_video_that_no_task_can_read_fails_once_with_its_reason(fakes, caplog):
    caplog.set_level(logging.ERROR)
    names = ["hang", "exit", "segfault", "killed", "bug", "broken", "good"]
    results = list(
        pool.run(
            [video(name) for name in names],
            [fakes.by_name, fakes.by_name],
            num_workers=2,
            time_limit_s=2,
            size=lambda value: 1,
        )
    )
    failures = {result.video_id: (result.stage, result.reason) for _, result in results if isinstance(result, Failure)}
    assert failures == {
        "hang": ("decode", "nothing decoded for 2 s"),
        "exit": ("decode", "the decoding process ended with status 3"),
        "segfault": ("decode", "the decoding process crashed (SIGSEGV)"),
        "killed": ("decode", "the decoding process was killed (out of memory?)"),
        "bug": ("decode", "KeyError: 'surprise'"),
        "broken": ("demux", "damaged container"),
    }
    assert sum(isinstance(result, Failure) for _, result in results) == len(failures)
    assert [value for value in collect(results)["hang"] if isinstance(value, int)] == [0, 1]  # nothing twice
    assert collect(results)["good"][-1] == Finished()


@pytest.mark.parametrize("kind", ["segfault", "killed", "exit", "bug"])
def test_a_crash_by_chance_is_tried_again_with_the_same_task_and_needs_no_notice(fakes, tmp_path, kind):
    tasks = [fakes.fails_once, fakes.by_name]
    found = collect(pool.run([video(kind, str(tmp_path / "mark"))], tasks, num_workers=1, size=lambda value: 1))
    assert found == {kind: [0, 1, 2, 3, 4, Finished()]}
    assert (tmp_path / "mark").read_text() == "02"  # where its tries began


def test_tasks_that_start_again_say_so_and_keep_what_is_known_of_the_decoder(fakes):
    found = collect(pool.run([video("killed")], [fakes.by_name, fakes.from_the_start], num_workers=1))["killed"]
    assert found[:6] == [0, 1, Restarted(), 0, 1, Restarted()]
    assert isinstance(found[6], Notice) and found[6].detail.endswith("made by from_the_start")
    assert found[7:] == [0, 1, 2, 3, 4, Finished()]


def test_the_notice_of_a_decoder_that_starts_again_comes_again(fakes, tmp_path):
    mark = str(tmp_path / "mark")
    found = collect(pool.run([video("killed", mark)], [fakes.by_name, fakes.fails_once], num_workers=1))["killed"]
    last = len(found) - 1 - found[::-1].index(Restarted())
    assert found[last + 1].kind == "decoder" and found[last + 2 :] == [0, 1, 2, 3, 4, Finished()]


def test_a_named_task_is_called_so_in_notices(fakes):
    tasks = [pool.Named("PyAV", fakes.by_name), pool.Named("decord", fakes.count_to_five)]
    found = collect(pool.run([video("bug")], tasks, num_workers=1, size=lambda value: 1))["bug"]
    (notice,) = [value for value in found if isinstance(value, Notice)]
    assert notice.detail.startswith("PyAV failed 2 times (") and "made by decord from super image 3 on" in notice.detail


@pytest.mark.parametrize("signals", ["SEGV", "KILL ABRT", "KILL SEGV KILL"])
def test_real_decoders_killed_in_the_middle_give_the_same_pixels_or_say_who_gave_others(
    fakes, shared_data, tmp_path, signals
):
    file = VideoFile("rabbit", shared_data / "videos" / "rabbit320.mp4")
    settings = Sampling(fps=12, super_img_size=32)  # 24 super images, in two runs
    plain = {
        decoder: np.concatenate([run.images for run in super_images.super_images(file, settings, decoder=decoder)])
        for decoder in ("pyav", "decord")
    }
    left = tmp_path / "signals"
    left.write_text(signals)
    killed = [
        pool.Named(name, functools.partial(fakes.killed_after_a_chunk, decoder=decoder, settings=settings, left=left))
        for name, decoder in (("PyAV", "pyav"), ("decord", "decord"))
    ]
    *events, end = collect(pool.run([file], killed, num_workers=1, size=tasks.count_super_images))["rabbit"]
    assert end == Finished() and not left.read_text()
    made = np.concatenate([event.images for event in events if isinstance(event, SuperImages)])
    notices = [event.detail for event in events if isinstance(event, Notice)]
    if signals == "SEGV":
        assert np.array_equal(made, plain["pyav"]) and not notices
        return
    assert np.array_equal(made, np.concatenate([plain["pyav"][:16], plain["decord"][16:]]))
    (notice,) = notices
    assert notice.startswith("PyAV failed 2 times") and notice.endswith("made by decord from super image 17 on")


def test_log_records_of_workers_arrive_with_the_video(fakes, caplog):
    caplog.set_level(logging.INFO, "gridclip")
    list(pool.run([video("loud")], [fakes.logging], num_workers=1))
    texts = [record.getMessage() for record in caplog.records]
    assert "loud: decoding the whole file" in texts and "loud: not of this package" in texts
    assert not any("debug" in text for text in texts)
    (traceback,) = [record for record in caplog.records if "surprise" in record.getMessage()]
    assert "Traceback" in traceback.getMessage()
    assert (traceback.name, traceback.levelno) == ("gridclip.dali_pipes.fake", logging.ERROR)


def test_a_decoder_that_complains_for_ever_counts_as_hung(fakes, caplog):
    found = collect(pool.run([video("v")], [fakes.complaining], num_workers=1, time_limit_s=0.5))
    assert found == {"v": [Failure("v", "decode", "nothing decoded for 0.5 s")]}
    assert sum("once more" in record.getMessage() for record in caplog.records) == serving.MAX_LOG_RECORDS


def test_a_worker_killed_while_it_starts_is_started_again(fakes, monkeypatch, tmp_path):
    monkeypatch.setattr(child, "START_CODE", fakes.dying_starts(tmp_path / "mark", 2) + child.START_CODE)
    found = collect(pool.run([video("a"), video("b")], [fakes.count_to_five], num_workers=1))
    assert found == {name: [0, 1, 2, 3, 4, Finished()] for name in "ab"}
    assert (tmp_path / "mark").read_text() == "xxx"


def test_an_error_that_is_not_the_videos_ends_the_job(fakes):
    with pytest.raises(GridClipError, match="no space left"):
        collect(pool.run([video("good"), video("full"), video("good2")], [fakes.by_name], num_workers=1))


def test_a_worker_that_cannot_start_is_an_error_not_a_failure_of_every_video(fakes, monkeypatch):
    monkeypatch.setattr(child, "START_CODE", "raise SystemExit('no decord here')")
    with pytest.raises(GridClipError, match="no decord here"):
        list(pool.run([video("a")], [fakes.by_name], num_workers=1))


def test_a_slow_reader_is_no_hang_and_bounds_the_memory(fakes, tmp_path):
    log = tmp_path / "log"
    results = pool.run([video("v", str(log))], [fakes.big], num_workers=1, time_limit_s=0.5)
    first = next(results)[1]
    time.sleep(1.5)
    assert first[0] == 0 and len(log.read_text().split()) <= 2  # one taken, one blocked
    values = [result[0] for _, result in results if not isinstance(result, Finished)]
    assert values == list(range(1, 20))


def test_closing_the_iterator_ends_the_processes(fakes):
    results = pool.run([video("a", "1000"), video("b", "1000")], [fakes.process_id], num_workers=2)
    pids = [next(results)[1], next(results)[1]]
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 5
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(ending):
    script = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import fake_tasks\n"
        "from gridclip.dali_pipes import contract\n"
        "from gridclip.dali_pipes.processes import pool\n"
        "videos = [contract.VideoFile('a', pathlib.Path('1000'))]\n"
        "for _, value in pool.run(videos, [fake_tasks.process_id], num_workers=1): print(value, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(TESTS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, ending)
        assert parent.wait(timeout=10) != 0
    assert wait_until_gone(pid)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"num_workers \(0\)"):
        list(pool.run([], [], num_workers=0))
    with pytest.raises(ValueError, match=r"time_limit_s \(0\)"):
        list(pool.run([], [], num_workers=1, time_limit_s=0))
