"""dali_pipes/cpu/dividing.py: a video in parts gives the super images, times and notices of the whole, bit by bit."""

import functools
import itertools
import pathlib
import random

import damaged_videos
import numpy as np
import pytest
from gridclip.dali_pipes.contract import Failure, Finished, Notice, Restarted, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import dividing, super_images, tasks
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.processes import pool
from gridclip.dali_pipes.processes.stretches import Divisible, Given, Left, Stretch
from gridclip.dali_pipes.sampling import Sampling

TESTS = pathlib.Path(__file__).parents[2]


@pytest.fixture
def worth_it(monkeypatch):
    """However short they are, parts are given away."""
    monkeypatch.setattr(dividing, "LEAST_COST", 1.0)


def in_parts(video, sampling, asked, *, skip=0, end=None, known=None, first=True):
    """(events of a video, parts) where each part gives away what `asked` asks for; made one after the other."""
    told: list[Left | Given] = []
    stretch = Stretch(end, known, alone=first, asked=asked, tell=told.append)
    events = list(super_images.super_images(video, sampling, skip=skip, stretch=stretch))
    parts = 1
    for given in (message for message in told if isinstance(message, Given) and message.begins):
        for begin, stop in itertools.pairwise([*given.begins, end]):
            more, count = in_parts(video, sampling, asked, skip=begin, end=stop, known=given.known, first=False)
            events += more
            parts += count
        end = given.begins[0]
    return events, parts


def rows(events):
    """What the super images of some events hold, by grid size and number; none may come twice."""
    found = {}
    for chunk in (event for event in events if isinstance(event, SuperImages)):
        for grid_size, part in chunk.by_grid():
            for number in range(len(part.images)):
                assert (grid_size, part.first + number) not in found
                row = (part.images[number].tobytes(), part.start_s[number], part.end_s[number], part.total)
                found[grid_size, part.first + number] = row
    return found


def bounds(events):
    """The bounds of all wanted frames, by the events' chunks in order."""
    chunks = sorted((event for event in events if isinstance(event, SuperImages)), key=lambda chunk: chunk.first)
    return [bound for chunk in chunks for bound in chunk.frame_bounds_s[:-1]] + [chunks[-1].frame_bounds_s[-1]]


@pytest.mark.parametrize(
    ("sampling", "least_parts"),
    [
        (Sampling(fps=2, super_img_size=32), 25),
        (Sampling(fps=3, grid_size=(1, 2), super_img_size=32), 25),
        (Sampling(fps=2, grid_size=2, stride=1, super_img_size=32), 25),
    ],
)
def test_every_real_file_in_parts_has_the_bits_of_the_whole(shared_data, worth_it, sampling, least_parts):
    chance = random.Random(0)
    all_parts = 0
    for path in sorted((shared_data / "videos").iterdir()):
        video = VideoFile("v", path)
        whole = list(super_images.super_images(video, sampling))
        divided, parts = in_parts(video, sampling, lambda: chance.choice([0, 1, 3]))
        assert rows(divided) == rows(whole), path.name
        if not sampling.overlap:  # else the last frames may begin no super image, and no chunk need hold them
            assert bounds(divided) == bounds(whole)
        assert [event for event in divided if isinstance(event, Notice)] == [
            event for event in whole if isinstance(event, Notice)
        ]
        all_parts += parts
    assert all_parts >= least_parts


def test_cuts_lie_between_super_images_and_parts_are_alike(write_video, tmp_path, worth_it):
    path = write_video(tmp_path / "a.mp4", duration_s=60)  # 30 closed GOPs
    sampling = Sampling(fps=5, grid_size=(2, 3), super_img_size=32)
    told = []
    asked = iter([3])
    stretch = Stretch(asked=lambda: next(asked, 0), tell=told.append)
    events = list(super_images.super_images(VideoFile("v", path), sampling, stretch=stretch))
    (given,) = [message for message in told if isinstance(message, Given)]
    with open_reading(path, sampling) as reading:
        layout = reading.layout()
    cuts = [layout.frame_of(begin) for begin in given.begins]
    assert [cut % 36 for cut in cuts] == [0, 0, 0]
    assert all(abs(frames - 75) <= 36 for frames in np.diff([0, *cuts, 300]))  # by a block at most
    assert len(rows(events)) == given.begins[0] == layout.before(cuts[0])
    lefts = [message.stretches for message in told if isinstance(message, Left)]
    assert lefts == sorted(lefts, reverse=True)


def test_what_is_soon_done_is_kept(shared_data):
    told = []
    stretch = Stretch(asked=lambda: 1, tell=told.append)
    path = shared_data / "videos" / "bbb480.mp4"
    with open_reading(path, Sampling(), skim=True) as reading:
        share = dividing.Share(reading, stretch, 0)
        next(share.frames("pyav"))
    assert Given() in told and not any(isinstance(message, Given) and message.begins for message in told)
    (left,) = [message.stretches for message in told if isinstance(message, Left)]
    assert left < 2  # so that nobody asks


def test_one_gop_cannot_be_cut(write_video, tmp_path, worth_it):
    path = write_video(tmp_path / "a.mp4", duration_s=20, options={"preset": "veryfast", "bf": "0", "g": "1000"})
    video = VideoFile("v", path)
    sampling = Sampling(fps=2, super_img_size=32)
    divided, parts = in_parts(video, sampling, lambda: 1)
    assert parts == 1 and rows(divided) == rows(super_images.super_images(video, sampling))


@pytest.fixture
def made_by_workers(monkeypatch):
    """A function: a video's events when `num_workers` processes may share it."""
    monkeypatch.syspath_prepend(str(TESTS))
    import fake_tasks

    def make(path, sampling, *, num_workers, on_damage="nearest", decoder="pyav"):
        settings = {"sampling": sampling, "decoder": decoder, "image_size": 32, "on_damage": on_damage}
        task = tasks.decode if num_workers == 1 else fake_tasks.parts_of_decodes
        divisible = Divisible("PyAV", functools.partial(task, **settings))
        events = pool.run([VideoFile("v", path)], [divisible], num_workers=num_workers, size=tasks.count_super_images)
        return [event for _, event in events]

    return make


def test_worker_processes_share_a_real_video(shared_data, made_by_workers):
    path = shared_data / "videos" / "car-detection.mp4"
    sampling = Sampling(fps=4, super_img_size=32)
    divided = made_by_workers(path, sampling, num_workers=3)
    assert divided[-1] == Finished() and Restarted() not in divided
    chunks = [event.first for event in divided if isinstance(event, SuperImages)]
    assert len(chunks) > 1 and rows(divided) == rows(made_by_workers(path, sampling, num_workers=1))


@pytest.mark.parametrize(
    ("place", "on_damage", "damage"),
    [
        ("start", "nearest", "zeroed"),
        ("middle", "nearest", "zeroed"),
        ("end", "nearest", "zeroed"),
        ("middle", "fail", "zeroed"),
        ("end", "nearest", "emptied"),
    ],
)
def test_damage_in_any_part_is_handled_as_in_the_whole(
    shared_data, tmp_path, made_by_workers, place, on_damage, damage
):
    source = shared_data / "videos" / "car-detection.mp4"
    first = {"start": 5, "middle": 190, "end": 340}[place]
    path = damaged_videos.copied(source, tmp_path / "v.mp4", **{damage: tuple(range(first, first + 4))})
    sampling = Sampling(fps=5, super_img_size=32)
    whole = made_by_workers(path, sampling, num_workers=1, on_damage=on_damage)
    divided = made_by_workers(path, sampling, num_workers=2, on_damage=on_damage)
    # A container that lost packets is decoded as a whole from the start, and so never divided.
    assert divided.count(Restarted()) == (damage == "zeroed")
    divided = divided[divided.index(Restarted()) + 1 :] if damage == "zeroed" else divided
    assert divided[-1] == whole[-1]
    if not isinstance(whole[-1], Failure):
        assert rows(divided) == rows(whole)
        assert [event for event in divided if isinstance(event, Notice)] == [
            event for event in whole if isinstance(event, Notice)
        ]
