"""tests/kills/: what a killed job could do to its output is found, and a real job that is killed is taken up again."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest
from gridclip.engine.store.store import Store, VideoEmbedding

from kills import scenarios, states
from kills.__main__ import Reference, one_run
from kills.disturbance import undisturbed
from kills.states import compare


def video(video_id: str, seed: int) -> VideoEmbedding:
    vectors = np.random.default_rng(seed).normal(size=(3, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return VideoEmbedding(video_id, np.arange(3.0), np.arange(3.0) + 1, vectors)


def fill(folder: pathlib.Path, videos: list[VideoEmbedding]) -> states.State:
    store = Store.open(folder, create=True)
    for each in videos:
        store.append_videos([each])
    return states.of_store(folder)


WHOLE = [video("a", 1), video("b", 2), video("c", 3)]


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        (WHOLE, {}),
        (WHOLE[::-1], {}),
        (WHOLE[:2], {"lost": ["c"]}),
        ([*WHOLE, WHOLE[1]], {"doubled": ["b"]}),
        ([*WHOLE[:2], video("c", 4)], {"different": ["c"]}),
        ([*WHOLE, video("d", 5)], {"unasked": ["d"]}),
    ],
)
def test_a_store_that_is_not_right_is_found(
    found: list[VideoEmbedding], difference: dict[str, list[str]], tmp_path: pathlib.Path
) -> None:
    expected = fill(tmp_path / "expected", WHOLE)
    assert compare(expected, fill(tmp_path / "found", found)).found() == difference


def test_half_a_video_and_other_pictures_are_found(tmp_path: pathlib.Path) -> None:
    for name in ("expected", "found"):
        for video_id in ("a", "b"):
            folder = tmp_path / name / video_id
            folder.mkdir(parents=True)
            (folder / "img_0001.jpg").write_bytes(video_id.encode())
    (tmp_path / "found" / "b" / "img_0001.jpg").write_bytes(b"x")
    (tmp_path / "found" / ".c.part").mkdir()
    (tmp_path / "found" / "failures.jsonl").write_text('{"video_id": "c", "stage": "open", "reason": "empty"}\n')
    both = [states.of_folders(tmp_path / name) for name in ("expected", "found")]
    assert compare(*both).found() == {"different": ["b"], "leftovers": [".c.part"], "failures": ["c (open)"]}


def test_a_job_that_loses_a_video_on_resuming_is_found(tmp_path: pathlib.Path) -> None:
    (tmp_path / "inputs").mkdir()
    scenario = next(each for each in scenarios.write_inputs(tmp_path / "inputs") if each.name == "import-features")
    out = tmp_path / "undisturbed"
    ended = undisturbed(scenario.command(out, resume=False), out / scenario.begun)
    assert ended.status == 0, ended.stderr
    reference = Reference(scenario, scenario.state(out), ended.seconds - ended.begun_s)
    assert len(reference.state.items) == scenarios.VIDEOS * 3 + 9
    assert one_run([reference], 0, 1, tmp_path, None).problems == {}
    forgetful = dataclasses.replace(scenario, state=lambda folder: _without_first(scenario.state(folder)))
    problems = one_run([dataclasses.replace(reference, scenario=forgetful)], 1, 1, tmp_path, None).problems
    assert problems == {"lost": [min(reference.state.items)]}


def _without_first(state: states.State) -> states.State:
    return dataclasses.replace(state, items={name: state.items[name] for name in sorted(state.items)[1:]})
