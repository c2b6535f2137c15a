"""dali_pipes/nvdali/pipeline_threads.py and batching.py: batches of like cost, bisection, bounded waiting, hangs."""

import threading
import time
from multiprocessing.connection import wait

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.contract import EncodedImages, EncodedSegment, PipelineError, SuperImages
from gridclip.dali_pipes.nvdali import pipeline_threads
from gridclip.dali_pipes.nvdali.batch_queue import Limits, choose
from gridclip.dali_pipes.nvdali.pipeline_threads import PipelineThreads, RebuiltPipeline, Trust
from hypothesis import given
from hypothesis import strategies as st

TIMES = np.zeros(1)


def segment(name: str, cost: float = 1.0, decoded_bytes: int = 1) -> EncodedSegment:
    return EncodedSegment(name, 0, 1, TIMES, TIMES, cost, decoded_bytes, b"", np.zeros(1, np.int32))


class Fake:
    """A pipeline that fails with every batch that holds a run whose name begins with "bad", and then for ever."""

    built = 0

    def __init__(self) -> None:
        Fake.built += 1
        self.valid = True
        self.batches: list[list[str]] = []

    def decode(self, batch):
        assert self.valid, "a pipeline must not be used after an error"
        self.batches.append([run.video_id for run in batch])
        if any(run.video_id.startswith("bad") for run in batch):
            self.valid = False
            raise PipelineError("DALI: bad sample")
        return [np.full((1, 2, 2, 3), ord(run.video_id[0]), np.uint8) for run in batch]


@given(bad=st.lists(st.booleans(), min_size=1, max_size=17))
def test_only_the_guilty_runs_are_lost(bad):
    runs = [segment(f"{'bad' if is_bad else 'good'}{number}") for number, is_bad in enumerate(bad)]
    Fake.built = 0
    outcomes = RebuiltPipeline(Fake, Trust(1000)).decode(runs)
    assert [run.video_id for run, _ in outcomes] == [run.video_id for run in runs]
    assert [isinstance(result, PipelineError) for _, result in outcomes] == bad
    assert Fake.built <= 1 + sum(bad) * (len(bad).bit_length() + 1)  # a search by halves, not one by one


class Broken(Fake):
    """DALI on a machine where it decodes nothing."""

    def decode(self, batch):
        assert self.valid
        self.valid = False
        self.batches.append([run.video_id for run in batch])
        raise PipelineError("DALI: no NVDEC")


def test_dali_that_decodes_nothing_is_given_up_for_good(caplog):
    Fake.built = 0
    found = {}
    with PipelineThreads(Broken, num_pipelines=2, limits=Limits(16, 99, 48)) as threads:
        for number in range(48):
            threads.give(segment(f"a{number}"))
        while threads.busy:
            found |= {run.video_id: result for run, result in threads.collect(time_limit_s=10)}
        assert threads.given_up and threads.room == 0
    assert len(found) == 48 and all(isinstance(result, PipelineError) for result in found.values())
    assert Fake.built <= 2 + pipeline_threads.GIVE_UP_AFTER  # not 31 a batch
    assert caplog.text.count("DALI is given up") == 1 and "no NVDEC" in caplog.text


def test_failures_with_successes_between_never_give_dali_up():
    trust = Trust(6)
    pipeline = RebuiltPipeline(Fake, trust)
    for _ in range(20):
        outcomes = pipeline.decode([segment("good1"), segment("bad2"), segment("good3"), segment("good4")])
        assert [isinstance(result, PipelineError) for _, result in outcomes] == [False, True, False, False]
    assert not trust.lost


def test_one_guilty_run_in_the_largest_batch_never_gives_dali_up():
    trust = Trust(pipeline_threads.GIVE_UP_AFTER)
    runs = [segment("bad0"), *(segment(f"good{number}") for number in range(511))]
    outcomes = RebuiltPipeline(Fake, trust).decode(runs)
    assert sum(isinstance(result, PipelineError) for _, result in outcomes) == 1 and not trust.lost


def test_a_pipeline_that_cannot_be_built_again_gives_dali_up(caplog):
    pipelines = [Fake()]

    def build():
        if not pipelines:
            raise GridClipError("the GPU is gone")
        return pipelines.pop()

    trust = Trust(1000)
    pipeline = RebuiltPipeline(build, trust)
    for _ in range(2):
        outcomes = pipeline.decode([segment("good"), segment("bad")])
        assert all(isinstance(result, PipelineError) for _, result in outcomes)
    assert trust.lost and "the GPU is gone" in caplog.text


@given(
    costs=st.lists(st.floats(1, 1e9), min_size=1, max_size=30),
    sizes=st.lists(st.integers(1, 100), min_size=30, max_size=30),
    items=st.integers(1, 8),
    decoded_bytes=st.integers(1, 300),
)
def test_batches_are_bounded_hold_the_oldest_and_its_nearest_in_cost(costs, sizes, items, decoded_bytes):
    runs = [segment(str(number), cost, sizes[number]) for number, cost in enumerate(costs)]
    batch = choose(runs, Limits(items, decoded_bytes, 99))
    assert batch[0] is runs[0] and len(batch) <= items and len({run.video_id for run in batch}) == len(batch)
    assert len(batch) == 1 or sum(run.decoded_bytes for run in batch) <= decoded_bytes
    left = [run for run in runs if run not in batch]
    if left and len(batch) < items:  # what was left did not fit
        room = decoded_bytes - sum(run.decoded_bytes for run in batch)
        assert min(run.decoded_bytes for run in left) > room


def test_runs_of_like_cost_go_together():
    runs = [segment(str(cost), cost) for cost in (10, 900, 12, 950, 9, 11, 1000)]
    assert [run.cost for run in choose(runs, Limits(4, 999, 99))] == [10, 9, 11, 12]


def test_jpeg_files_count_one_by_one():
    runs = [EncodedImages(str(n), 0, 3, TIMES, TIMES, 1.0, 1, [b""] * 3) for n in range(4)]
    assert len(choose(runs, Limits(7, 99, 99))) == 2


def test_everything_given_is_collected_once():
    limits = Limits(items=3, decoded_bytes=99, waiting=5)
    found = {}
    with PipelineThreads(Fake, num_pipelines=2, limits=limits) as threads:
        for number in range(40):
            while threads.full:
                found |= {run.video_id: result for run, result in threads.collect(time_limit_s=10)}
            threads.give(segment(f"{'bad' if number % 7 == 0 else chr(97 + number % 26)}{number}"))
        assert wait([threads.wake], 10)  # a reader of worker processes is woken
        while threads.busy:
            found |= {run.video_id: result for run, result in threads.collect(time_limit_s=10)}
        assert not wait([threads.wake], 0)
    assert len(found) == 40
    for name, result in found.items():
        if name.startswith("bad"):
            assert isinstance(result, PipelineError)
        else:
            assert isinstance(result, SuperImages) and (result.images == ord(name[0])).all()


def test_what_nobody_collects_stops_the_pipelines():
    taken = []

    class Counting(Fake):
        def decode(self, batch):
            taken.append(len(batch))
            return super().decode(batch)

    with PipelineThreads(Counting, num_pipelines=2, limits=Limits(1, 99, 99)) as threads:
        for number in range(30):
            threads.give(segment(f"a{number}"))
        time.sleep(0.5)
        assert len(taken) <= 2 + 2  # a batch in each thread, and as many that wait to be collected


def test_a_hang_ends_the_job_with_advice():
    release = threading.Event()

    class Hanging(Fake):
        def decode(self, batch):
            release.wait(30)
            return super().decode(batch)

    with PipelineThreads(Hanging, num_pipelines=1, limits=Limits(1, 99, 9)) as threads:
        threads.give(segment("a"))
        with pytest.raises(GridClipError, match=r"0\.2 s.*`resume=True`"):
            threads.collect(time_limit_s=0.2)
        release.set()


def test_a_pipeline_that_cannot_be_built_is_an_error_not_a_hang():
    def build():
        raise GridClipError("no such GPU")

    with PipelineThreads(build, num_pipelines=2, limits=Limits(1, 99, 9)) as threads:
        threads.give(segment("a"))
        with pytest.raises(GridClipError, match="no such GPU"):
            threads.collect(time_limit_s=10)
