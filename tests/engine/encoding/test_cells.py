"""Cells with a trained model: on generated videos, a frame's own embedding tells better when a caption is true."""

import numpy as np
import pytest
from gridclip.benchmarks.demo import videos
from gridclip.benchmarks.demo.scenes import Painter
from gridclip.dali_pipes.grid import assemble
from gridclip.engine.encoding.encoder import Encoder

PERIOD_S, CELLS, VIDEOS = 2.0, 2, 8


def sample(video: videos.DemoVideo) -> tuple[list[np.ndarray], list[int]]:
    """A frame every two seconds, uint8 [H, W, 3] each, and the scene of each."""
    frames, owners = [], []
    painters = [Painter(scene) for scene in video.scenes]
    for time_s in np.arange(0, video.timestamps[-1][1] - 1e-6, PERIOD_S):
        owner = next(index for index, (_, end_s) in enumerate(video.timestamps) if time_s < end_s)
        start_s = video.timestamps[owner][0]
        frames.append(np.asarray(painters[owner].frame(time_s - start_s).convert("RGB")))
        owners.append(owner)
    return frames, owners


def average_precision(scores: np.ndarray, true: np.ndarray) -> float:
    """Mean precision at each true item; items of one score count as one, so that no order of them is luck."""
    return float(np.mean([true[scores >= score].mean() for score in scores[true]]))


@pytest.fixture(scope="module")
def measured(tiny_model_dir) -> dict[str, np.ndarray]:
    """By level, means over captions: average precision of the video's frames, share of best ones that are true."""
    encoder = Encoder(tiny_model_dir, provider="cpu", num_threads=1)
    found: dict[str, list[tuple[float, float]]] = {"super": [], "cell": []}
    for number in range(VIDEOS):
        video = videos.make_video(77, number, unseen=True)
        frames, owners = sample(video)
        embeddings = encoder.encode_images(assemble(frames, CELLS, encoder.info.image_size), CELLS)
        of_frames = {
            "super": embeddings[:, :1].repeat(CELLS**2, axis=1).reshape(-1, encoder.info.embed_dim)[: len(frames)],
            "cell": embeddings[:, 1:].reshape(-1, encoder.info.embed_dim)[: len(frames)],
        }
        for scene, query in enumerate(encoder.encode_texts(video.captions)):
            true = np.array(owners) == scene
            for level, rows in of_frames.items():
                scores = rows @ query
                # The frames of a super image share its score: the best one is any of them.
                found[level].append((average_precision(scores, true), true[scores == scores.max()].mean()))
    return {level: np.array(values).mean(axis=0) for level, values in found.items()}


def test_frames_are_ranked_better_by_their_cells(measured):
    (by_super, best_by_super), (by_cell, best_by_cell) = measured["super"], measured["cell"]
    assert by_cell > max(0.95, by_super + 0.05)
    assert best_by_cell > max(0.97, best_by_super + 0.02)


def test_a_cell_s_embedding_is_of_its_own_frame(tiny_model_dir):
    """Of four frames of four scenes, each caption is closest to the cell of its frame, wherever that is."""
    encoder = Encoder(tiny_model_dir, provider="cpu", num_threads=1)
    video = next(video for video in (videos.make_video(5, n, unseen=True) for n in range(9)) if len(video.scenes) == 4)
    frames = [np.asarray(Painter(scene).frame(scene.duration_s / 2).convert("RGB")) for scene in video.scenes]
    captions = encoder.encode_texts(video.captions)
    for order in ([0, 1, 2, 3], [3, 0, 2, 1], [1, 3, 0, 2]):
        super_image = assemble([frames[index] for index in order], CELLS, encoder.info.image_size)
        (rows,) = encoder.encode_images(super_image, CELLS)
        assert (rows[1:] @ captions.T).argmax(axis=1).tolist() == order
