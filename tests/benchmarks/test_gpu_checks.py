"""benchmarks/gpu: what tells right from wrong there, each against an independent computation or a planted fault."""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Callable

import av
import numpy as np
import pytest
import torch
from gridclip import GridClipError
from gridclip.benchmarks.gpu import (
    colours,
    compare,
    decoder_cache,
    decoding,
    encoder,
    predictions,
    ranking,
    segments_of,
    videos,
)
from gridclip.benchmarks.gpu.checks import Check, guarded
from gridclip.benchmarks.gpu.plans import PLACES, PLANS, SMALL_MODEL, Place, Work
from gridclip.benchmarks.gpu.videos import Recipe
from gridclip.dali_pipes import grid
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.sampling import Sampling
from PIL import Image

VP9 = Recipe("VP9", "libvpx-vp9", 160, 96, 24, (("deadline", "realtime"), ("cpu-used", "8")), gop=8, suffix="webm")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return videos.make(VP9, tmp_path_factory.mktemp("clips"))


@pytest.fixture
def work(tmp_path: pathlib.Path) -> Work:
    plan = dataclasses.replace(PLANS["cpu", "quick"], clips=(VP9,), stride=6, offsets=6)
    return Work(PLACES["cpu"], plan, tmp_path)


def faulty(decode: Callable[..., np.ndarray], spoil: Callable[[np.ndarray], np.ndarray], call: int) -> Callable:
    """`decode`, whose frames are spoiled at its `call`-th call, from 0."""
    calls = iter(range(10_000))

    def decoded(*arguments: object) -> np.ndarray:
        frames = decode(*arguments)
        return spoil(frames) if next(calls) == call else frames

    return decoded


def test_neighbouring_pictures_are_far_apart_at_the_size_that_is_compared() -> None:
    """Else a decoder that is off by one frame would pass: every neighbour must lie under the floor."""
    for width, height in ((320, 180), (1280, 720)):
        frames = []
        for index in range(20):
            planes = av.VideoFrame.from_ndarray(videos.picture(index, width, height), format="yuv420p")
            frames.append(grid.resize(planes.to_ndarray(format="rgb24"), decoding.SIZE_PX))
        for index, frame in enumerate(frames):
            for other in frames[index + 1 : index + 1 + compare.NEIGHBOURS]:
                assert compare.psnr_db(frame[None], other[None])[0] < compare.MIN_PSNR_DB


def test_a_file_has_the_frames_and_keyframes_of_its_recipe(clip: pathlib.Path) -> None:
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) == 24
    assert [index for index, packet in enumerate(packets) if packet.is_keyframe] == [0, 8, 16]
    made_at = clip.stat().st_mtime_ns
    assert videos.make(VP9, clip.parent).stat().st_mtime_ns == made_at


def test_fit_finds_frames_that_are_others() -> None:
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    assert compare.fit(expected, expected).right
    made = expected.copy()
    made[5] = expected[6]
    fit = compare.fit(made, expected)
    assert fit.wrong.tolist() == [5] and fit.nearest[5] == 6
    assert "frame 5 is nearest to frame 6" in str(fit)
    mean = np.mean((expected[6].astype(float) - expected[5]) ** 2)
    assert fit.psnr_db[5] == pytest.approx(10 * np.log10(255**2 / mean))
    assert fit.values()["nearest_of_wrong"] == {5: 6}


def test_equal_neighbours_are_no_fault() -> None:
    still = np.full((6, 4, 4, 3), 9, np.uint8)
    assert compare.fit(still, still).right


def test_dali_shows_every_frame_and_pruning_changes_nothing(work: Work, clip: pathlib.Path) -> None:
    found = list(decoding.check_clip(work, VP9, clip, None))
    assert [check.verdict for check in found] == ["pass", "pass"], found
    assert len(found[0].values["psnr_db"]) == 24
    assert found[1].values["frames"] == 24  # every frame was wanted once


def test_a_decoder_that_is_off_by_one_fails(work: Work, clip: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = faulty(decoding.decode, lambda frames: np.roll(frames, 1, axis=0), call=0)
    monkeypatch.setattr(decoding, "decode", shifted)
    check = next(decoding.check_clip(work, VP9, clip, None))
    assert check.verdict == "fail"
    assert len(check.values["nearest_of_wrong"]) == 24 and check.values["nearest_of_wrong"][1] == 0


def test_one_other_bit_after_pruning_fails(work: Work, clip: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(frames: np.ndarray) -> np.ndarray:
        frames[0, 0, 0, 0] ^= 1
        return frames

    monkeypatch.setattr(decoding, "decode", faulty(decoding.decode, spoil, call=2))
    _, check = decoding.check_clip(work, VP9, clip, None)
    assert check.verdict == "fail" and check.values["unequal"] == [1]  # the second offset's first frame


def test_what_jobs_leave_to_the_cpu_is_told_and_not_judged(
    work: Work, clip: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding.segments, "why_not", lambda *_: "its pixels are yuv420p10le")
    (check,) = decoding.check_clip(work, VP9, clip, None)
    assert check.verdict == "measured" and "yuv420p10le" in check.told

    def fails(*_: object) -> np.ndarray:
        raise GridClipError("DALI: unsupported")

    monkeypatch.setattr(decoding, "decode", fails)
    (check,) = decoding.check_clip(work, VP9, clip, None)
    assert check.verdict == "measured" and "DALI: unsupported" in check.told


def test_a_clip_that_breaks_costs_itself_only(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(VP9, label="other")
    both = dataclasses.replace(work, plan=dataclasses.replace(work.plan, clips=(VP9, other), offsets=1))
    real = decoding.check_clip

    def breaks(work: Work, recipe: Recipe, *rest: object):
        if recipe is VP9:
            raise RuntimeError("CUDA error:\n  700")
        return real(work, recipe, *rest)

    monkeypatch.setattr(decoding, "check_clip", lambda *arguments: (yield from breaks(*arguments)))
    found = list(decoding.run(both))
    assert [check.verdict for check in found] == ["fail", "pass", "pass"]
    assert found[0].told == "RuntimeError: CUDA error: 700"


def test_large_frames_are_asked_for_in_parts(clip: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_of, "MOST_BYTES", 160 * 96 * 3 * 10)
    parts = segments_of.whole_file(clip, np.arange(24))
    assert [len(part.positions) for part in parts] == [10, 10, 4]
    assert np.concatenate([part.positions for part in parts]).tolist() == list(range(24))
    assert all(part.decoded_bytes == len(part.positions) * 160 * 96 * 3 for part in parts)


def test_pruned_segments_hold_fewer_packets(clip: pathlib.Path) -> None:
    with open_reading(clip, Sampling()) as reading:
        (segment,) = segments_of.pruned(reading, np.array([9]))
        assert segments_of.kept_packets(reading, 1) == 1  # its own wanted frame is the first, a keyframe
    with av.open(io.BytesIO(segment.data)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 2


def test_a_wrong_crop_shows(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(work.plan, crop_sizes=(((64, 48), (54, 48)),))
    cropped = dataclasses.replace(work, plan=plan)
    monkeypatch.setattr(decoder_cache, "_alone", decoder_cache.decode_file)
    assert [check.verdict for check in decoder_cache.run(cropped)] == ["pass", "pass"]

    def widened(frames: np.ndarray) -> np.ndarray:
        size = frames.shape[1]
        images = [Image.fromarray(frame).resize((size - 1, size)).resize((size, size)) for frame in frames]
        return np.stack([np.asarray(image) for image in images])

    # 0 and 1: each alone; 2: the first one's first turn; 3: the second one after it.
    monkeypatch.setattr(decoder_cache, "decode", faulty(decoder_cache.decode, widened, call=3))
    first, second = decoder_cache.run(cropped)
    assert (first.verdict, second.verdict) == ("pass", "fail")
    assert second.values["unequal"] == 1


def test_a_fresh_process_decodes_the_same(clip: pathlib.Path) -> None:
    frames = decoder_cache._alone(PLACES["cpu"], clip)
    assert np.array_equal(frames, decoder_cache.decode_file(PLACES["cpu"], clip))


@pytest.mark.parametrize(
    ("lowest_db", "obstacle", "verdict"),
    [(41.0, None, "pass"), (34.9, None, "fail"), (20.0, "full range", "measured"), (50.0, "full range", "measured")],
)
def test_colours_under_the_floor_must_be_left_to_the_cpu(lowest_db: float, obstacle: str | None, verdict: str) -> None:
    assert colours.judge("BT.709", lowest_db, obstacle).verdict == verdict


def test_bt709_is_left_to_pyav_by_dalis_cpu_variant(work: Work) -> None:
    found = {check.name: check for check in colours.run(work)}
    assert len(found) == 6 and not [check for check in found.values() if check.verdict == "fail"]
    assert found["BT.601, full range"].verdict == "pass"
    assert found["BT.709, limited range"].values["lowest_db"] < colours.MIN_PSNR_DB  # when this ends, so may the rule


PROFILE = """[
 {"cat": "Session", "name": "model_loading", "args": {}},
 {"cat": "Node", "name": "a_fence_before", "args": {"op_name": "MatMul"}},
 {"cat": "Node", "name": "a_kernel_time", "args": {"op_name": "MatMul", "provider": "CUDAExecutionProvider"}},
 {"cat": "Node", "name": "b_kernel_time", "args": {"op_name": "MatMul", "provider": "CUDAExecutionProvider"}},
 {"cat": "Node", "name": "c_kernel_time", "args": {"op_name": "MemcpyToHost", "provider": "CUDAExecutionProvider"}},
 {"cat": "Node", "name": "d_kernel_time", "args": {"op_name": "Gather", "provider": "CPUExecutionProvider"}}
]"""


def test_a_profile_tells_where_nodes_ran() -> None:
    placed = encoder.parse_profile(PROFILE)
    assert placed["CUDAExecutionProvider"] == {"MatMul": 2, "MemcpyToHost": 1}
    assert placed["CPUExecutionProvider"] == {"Gather": 1}


@pytest.mark.parametrize(
    ("nodes", "verdict"),
    [
        ({"CUDAExecutionProvider": {"MatMul": 2}}, "pass"),
        ({"CUDAExecutionProvider": {"MatMul": 2, "MemcpyToHost": 1}}, "fail"),
        ({"CUDAExecutionProvider": {"MatMul": 2}, "CPUExecutionProvider": {"Gather": 1}}, "fail"),
        ({}, "fail"),
    ],
)
def test_no_node_may_leave_the_card(
    nodes: dict, verdict: str, work: Work, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = dataclasses.replace(work, place=Place("cuda", 0, ("cuda",)))
    monkeypatch.setattr(encoder, "find_placement", lambda *_: nodes)
    (check,) = encoder.check_placement(card, tmp_path, np.zeros((2, 8, 8, 3), np.uint8), "model")
    assert check.verdict == verdict


def test_a_real_profile_has_every_node_of_the_graph(work: Work) -> None:
    found = {check.name: check for check in encoder.run(work)}
    nodes = found["ViT of width 64, 56 px, fp16: where nodes run"].values["nodes"]
    assert nodes["CPUExecutionProvider"]["Attention"] == SMALL_MODEL.vision_layers
    assert all(check.verdict in ("pass", "measured", "not possible") for check in found.values())


def test_the_encoder_is_compared_with_torch_itself(work: Work) -> None:
    """fp32 on the CPU is what a card is held against, so it must be right."""
    from gridclip.benchmarks.gpu import models
    from gridclip.export.clip_model import CLIP, normalise_pixels

    expected, images = encoder._expected(work, SMALL_MODEL)
    torch.manual_seed(0)
    model = CLIP(SMALL_MODEL).eval()
    with torch.inference_mode():
        embedded = model.encode_image(normalise_pixels(torch.from_numpy(images)))
    found = torch.nn.functional.normalize(embedded, dim=-1).numpy()
    assert (found * expected).sum(axis=1).min() > 0.99999
    assert models.describe(SMALL_MODEL) == "ViT of width 64, 56 px"


def test_other_embeddings_fail(work: Work) -> None:
    expected, images = encoder._expected(work, SMALL_MODEL)
    folder = work.folder / "models" / "width-64-56px-fp32"
    (check,) = encoder.check_provider(work, folder, "cpu", images, -expected, "model")
    assert check.verdict == "fail" and "-1.000000" in check.told
    (check,) = encoder.check_provider(work, folder, "tensorrt", images, expected, "model")
    assert check.verdict == "not possible"
    (check,) = encoder.check_provider(work, folder, "cuda", images, expected, "model")
    assert check.verdict == "fail"


def test_float64_scores_are_the_definition() -> None:
    """score = (a.s) / sqrt(a^T G a), one pair at a time."""
    queries, _, vectors, offsets = ranking.make_vectors(3, 4)
    found = ranking.float64_scores(queries, vectors, offsets, 0.3)
    for row, query in enumerate(queries.astype(float)):
        query = query / np.linalg.norm(query)
        for video in range(4):
            own = vectors[offsets[video] : offsets[video + 1]].astype(float)
            own /= np.linalg.norm(own, axis=1, keepdims=True)
            similar = own @ query
            weights = np.exp(similar / 0.3) / np.exp(similar / 0.3).sum()
            score = weights @ similar / np.sqrt(weights @ own @ own.T @ weights)
            assert found[row, video] == pytest.approx(score, abs=1e-12)


def test_ranks_may_differ_in_ties_only() -> None:
    scores = np.array([[0.9, 0.5, 0.5 + 1e-9, 0.1]])
    targets = np.array([1])
    for rank, verdict in ((1, "fail"), (2, "pass"), (3, "pass"), (4, "fail")):
        assert ranking.check_ranks("ranks", np.array([rank]), scores, targets).verdict == verdict
    for best, verdict in (([0, 1], "pass"), ([0, 2], "pass"), ([0, 3], "fail"), ([0, 0], "fail"), ([1, 0], "fail")):
        assert ranking.check_best("best", np.array([best]), scores).verdict == verdict


def test_predictions_are_the_issues_arithmetic() -> None:
    peak = {"matrix_flop_per_s": 790e12, "flop_per_image": 162e9}
    told = predictions.predict("encode", peak)
    assert told["value"] == pytest.approx(0.6 * 4_876, rel=1e-3) and told["floor"] == told["value"]
    assert told["formula"] == "0.6 * matrix_flop_per_s / flop_per_image"
    facts = {"engines": 7, "super_images": 2.5, "kept_packets": 114, "packets": 600}
    assert predictions.predict("super images of --decoder dali", facts)["value"] == pytest.approx(112, rel=0.01)
    assert predictions.predict("pruned over whole files", facts)["value"] == pytest.approx(600 / 114, rel=1e-3)
    assert predictions.PREDICTIONS.keys() == predictions.formulas().keys()


@pytest.mark.parametrize(
    ("name", "result", "floors", "verdict"),
    [
        ("pruned over whole files", 3.0, True, "pass"),
        ("pruned over whole files", 2.9, True, "fail"),
        ("pruned over whole files", 2.9, False, "measured"),
        ("end to end over the slower stage", 1.15, True, "pass"),
        ("end to end over the slower stage", 1.2, True, "fail"),
        ("frames decoded", 1.0, True, "measured"),
    ],
)
def test_floors(name: str, result: float, floors: bool, verdict: str) -> None:
    facts = {"engines": 7.0, "packets": 600.0, "kept_packets": 114.0}
    check = predictions.held_against("rate", name, result, facts, floors=floors)
    assert check.verdict == verdict
    assert check.prediction is not None and check.prediction["formula"]
    assert check.values["result"] == result


def test_an_error_becomes_the_last_check(caplog: pytest.LogCaptureFixture) -> None:
    def found():
        yield Check("one", "pass", "fine")
        raise OSError("gone")

    assert [check.verdict for check in guarded("rest", found())] == ["pass", "fail"]
    assert "gone" in caplog.text
