"""dali_pipes/processes/: a video in several hands: every unit once, and failures, hangs and crashes of parts."""

import collections
import pathlib
import time

import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.contract import Failure, Finished, Notice, Restarted, VideoFile
from gridclip.dali_pipes.processes import pool
from gridclip.dali_pipes.processes.stretches import Divisible, Given, Indivisible, Stretch

TESTS = pathlib.Path(__file__).parents[2]


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS))
    import fake_tasks

    return fake_tasks


def one(value) -> int:
    return 1


def events_of(videos, tasks, *, num_workers=3, **settings):
    """Per video id its events, in order."""
    found = collections.defaultdict(list)
    for video, event in pool.run(videos, tasks, num_workers=num_workers, size=one, **settings):
        found[video.video_id].append(event)
    return found


def numbers(events):
    return [event for event in events if isinstance(event, int)]


def logged(path: pathlib.Path) -> dict[int, list[int]]:
    """Per process the units that it made, by the file that `in_parts` writes."""
    found = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        process, number = line.split()
        found[int(process)].append(int(number))
    return found


def test_one_video_is_made_by_all_workers_and_every_unit_comes_once(fakes, tmp_path):
    log = tmp_path / "log"
    found = events_of([VideoFile("v", log)], [Divisible("counting", fakes.in_parts)])["v"]
    assert sorted(numbers(found)) == list(range(fakes.UNITS))
    assert found[-1] == Finished() and found.count(Finished()) == 1 and len(found) == fakes.UNITS + 1
    assert len(logged(log)) > 1  # how many join in time is the machine's to say


def test_the_last_videos_of_a_job_are_shared_and_no_video_before_them(fakes, tmp_path):
    logs = {name: tmp_path / name for name in ("whole1", "whole2", "whole3", "v")}
    videos = [VideoFile(name, log) for name, log in logs.items()]
    found = events_of(videos, [Divisible("counting", fakes.in_parts)], num_workers=2)
    for video in videos:
        assert sorted(numbers(found[video.video_id])) == list(range(fakes.UNITS))
        assert found[video.video_id][-1] == Finished()
    assert len(logged(logs["whole1"])) == len(logged(logs["whole2"])) == 1
    assert len(logged(logs["v"])) == 2


def test_a_task_that_is_not_divisible_is_never_asked(fakes, tmp_path):
    log = tmp_path / "log"
    whole = pool.undivided([Divisible("counting", fakes.in_parts)])
    found = events_of([VideoFile("whole", log)], whole)["whole"]
    assert numbers(found) == list(range(fakes.UNITS)) and len(logged(log)) == 1
    assert whole[0].name == "counting"


def test_without_a_size_there_is_nothing_to_go_on_from_and_nothing_is_shared(fakes, tmp_path):
    log = tmp_path / "log"
    task = Divisible("counting", fakes.in_parts)
    found = [event for _, event in pool.run([VideoFile("whole", log)], [task], num_workers=3)]
    assert numbers(found) == list(range(fakes.UNITS)) and len(logged(log)) == 1


def test_what_the_first_one_knows_goes_along(fakes):
    found = events_of([VideoFile("unknown-30", pathlib.Path("x"))], [Divisible("counting", fakes.in_parts)])
    assert found["unknown-30"][-1] == Finished()


@pytest.mark.parametrize("kind", ["killed", "segfault", "exit", "bug"])
@pytest.mark.parametrize("at", [3, 30])
def test_a_crash_by_chance_costs_its_part_one_more_try(fakes, tmp_path, kind, at):
    name = f"{kind}-{at}"
    found = events_of([VideoFile(name, tmp_path / "log")], [Divisible("counting", fakes.in_parts_once)])[name]
    assert sorted(numbers(found)) == list(range(fakes.UNITS))
    assert found[-1] == Finished() and len(found) == fakes.UNITS + 1  # no notice


def test_a_poisonous_part_is_made_by_the_next_task_which_a_notice_says(fakes):
    video = VideoFile("segfault-30", pathlib.Path("x"))
    others = VideoFile("whole", pathlib.Path("x"))
    tasks = [Divisible("counting", fakes.in_parts), Divisible("the other", fakes.without_fault)]
    found = events_of([video, others], tasks)
    made = found["segfault-30"]
    assert sorted(numbers(made)) == list(range(fakes.UNITS)) and made[-1] == Finished()
    (notice,) = [event for event in made if isinstance(event, Notice)]
    assert notice.kind == "decoder" and notice.detail.startswith("counting failed 2 times (")
    assert "made by the other from super image 31" in notice.detail
    assert not [event for event in found["whole"] if isinstance(event, Notice)] and found["whole"][-1] == Finished()


def test_a_part_that_hangs_is_given_up_after_the_time_limit(fakes):
    video = VideoFile("slow-30", pathlib.Path("x"))
    tasks = [Divisible("counting", fakes.in_parts), Divisible("the other", fakes.without_fault)]
    found = events_of([video], tasks, time_limit_s=2)["slow-30"]
    assert sorted(numbers(found)) == list(range(fakes.UNITS)) and found[-1] == Finished()
    (notice,) = [event for event in found if isinstance(event, Notice)]
    assert "nothing decoded for 2 s" in notice.detail


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("broken", ("demux", "damaged container")),
        ("segfault", ("decode", "the decoding process crashed (SIGSEGV)")),
    ],
)
def test_a_lost_part_loses_its_video_once_and_no_other(fakes, kind, failure):
    name = f"{kind}-30"
    videos = [VideoFile(name, pathlib.Path("x")), VideoFile("whole", pathlib.Path("x"))]
    found = events_of(videos, [Divisible("counting", fakes.in_parts)], num_workers=2)
    assert found[name][-1] == Failure(name, *failure)
    assert sum(isinstance(event, (Failure, Finished)) for event in found[name]) == 1
    assert sorted(numbers(found["whole"])) == list(range(fakes.UNITS)) and found["whole"][-1] == Finished()


def test_a_part_that_needs_the_whole_begins_the_video_anew_in_one_process(fakes, tmp_path):
    log = tmp_path / "log"
    found = events_of([VideoFile("indivisible-30", log)], [Divisible("counting", fakes.in_parts)])["indivisible-30"]
    assert found.count(Restarted()) == 1
    assert found[found.index(Restarted()) + 1 :] == [*range(fakes.UNITS), Finished()]


def test_a_full_disk_ends_the_job_whichever_part_meets_it(fakes):
    with pytest.raises(GridClipError, match="no space left"):
        events_of([VideoFile("full-30", pathlib.Path("x"))], [Divisible("counting", fakes.in_parts)])


def test_a_slow_reader_bounds_what_all_parts_hold(fakes, tmp_path):
    """Nobody waits for an earlier part: a process that has made a result blocks until it is taken."""
    log = tmp_path / "log"
    results = pool.run([VideoFile("v", log)], [Divisible("counting", fakes.big_parts)], num_workers=2, size=one)
    taken = 0
    while not log.exists() or len(logged(log)) < 2:
        assert not isinstance(next(results)[1], Finished)
        taken += 1
    time.sleep(1)
    assert sum(map(len, logged(log).values())) <= taken + 2 * 2  # each: one blocked, one in the making
    results.close()


def test_a_stretch_that_keeps_the_whole_gives_nothing_away():
    told = []
    stretch = Stretch(asked=lambda: 2, tell=told.append)
    stretch.keep_whole("damaged")
    assert stretch.asking() == 0 and told == [Given()]
    given = Stretch(asked=lambda: 2, tell=told.append)
    given.give([12, 20], known="all")
    assert given.end == 12 and told[-1].begins == (12, 20)
    with pytest.raises(Indivisible, match="damaged"):
        given.keep_whole("damaged")
    with pytest.raises(Indivisible, match="damaged"):
        Stretch(alone=False).keep_whole("damaged")
