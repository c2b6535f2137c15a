"""benchmarks/retrieve*.py: peers score as the kernel does, generated blocks are parts of the whole, slices say so."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import torch
from gridclip.benchmarks import (
    charts,
    measure,
    readme_table,
    retrieve,
    retrieve_aggregates,
    retrieve_peers,
    retrieve_scaling,
)
from gridclip.benchmarks.retrieve_scaling import Size
from gridclip.engine import choices
from gridclip.engine.scoring import retrieval

WIDTH = 12
LENGTHS = np.array([1, 2, 2, 7])


def unit(rows: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve_scaling, "BLOCK_VIDEOS", 8)


@pytest.mark.parametrize("name", ["padded_einsum", "per_video", "plain_loop"])
def test_peers_score_as_the_kernel_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = np.array([0, 3, 4, 13, 15, 16])
    vectors, queries = unit(16, 0), unit(7, 1)
    kernel = np.full((7, 5), np.nan)
    scoring = retrieval.Scoring()
    for block in retrieval.score_blocks(queries.numpy(), vectors.numpy(), offsets, scoring, device="cpu"):
        kernel[np.ix_(block.queries, block.videos)] = block.scores.T
    if name == "padded_einsum":
        monkeypatch.setattr(retrieve_peers, "AGGREGATE_BYTES", 3 * 4 * 5 * WIDTH)  # three queries at once
        found = retrieve_peers.padded_einsum(retrieve_peers.padded(vectors, offsets), queries)
    else:
        found = getattr(retrieve_peers, name)(vectors, offsets, queries)
    np.testing.assert_allclose(found, kernel, atol=1e-6)


def test_every_aggregate_is_measured_beside_the_bare_product() -> None:
    found = retrieve_aggregates.run(unit(16, 0), np.array([0, 3, 4, 13, 15, 16]), unit(7, 1))
    assert tuple(found) == choices.AGGREGATES
    assert all(entry["queries"] == 7 and entry["ranking_cpu_s"] > 0 for entry in found.values())


def test_generated_blocks_are_parts_of_the_whole(small_blocks: None) -> None:
    blocks = list(retrieve_scaling.generated(21, WIDTH, LENGTHS))
    assert [block.first for block in blocks] == [0, 8, 16]
    assert [len(block.offsets) - 1 for block in blocks] == [8, 8, 5]
    assert sum(len(block.vectors) for block in blocks) == retrieve_scaling.super_image_total(21, LENGTHS)
    # The first videos of a larger corpus are those of a smaller one, and no block repeats another.
    fewer = list(retrieve_scaling.generated(10, WIDTH, LENGTHS))
    np.testing.assert_array_equal(fewer[0].vectors, blocks[0].vectors)
    np.testing.assert_array_equal(fewer[1].offsets, blocks[1].offsets[:3])
    assert not np.array_equal(blocks[0].vectors[:4], blocks[1].vectors[:4])


def test_best_videos_of_blocks_are_those_of_the_whole(small_blocks: None) -> None:
    queries = retrieve_scaling.generated_queries(6, WIDTH)
    best = None
    vectors, lengths = [], []
    for block in retrieve_scaling.generated(21, WIDTH, LENGTHS):
        best = retrieve_scaling.best_of_blocks(best, queries, block, 10)
        vectors.append(block.vectors)
        lengths.append(np.diff(block.offsets))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    whole = retrieval.best_videos(queries, np.concatenate(vectors), offsets, retrieval.Scoring(), top=10, device="cpu")
    assert best is not None
    np.testing.assert_array_equal(best[1], whole[1])
    np.testing.assert_allclose(best[0], whole[0], atol=1e-6)


def test_a_size_beyond_the_budget_is_measured_on_a_slice_and_says_so(
    small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_microsecond_a_cell(size: Size, width: int, lengths: np.ndarray) -> retrieve_scaling.Measured:
        rows = retrieve_scaling.super_image_total(size.videos, lengths)
        cells = size.queries * rows
        return retrieve_scaling.Measured(size.queries, size.videos, rows, 0.75e-6 * cells, 0.25e-6 * cells, 2**20)

    monkeypatch.setattr(retrieve_scaling, "measured", one_microsecond_a_cell)
    sizes = [Size(1000, 800), Size(10, 8)]
    small, large = retrieve_scaling.run(sizes, width=WIDTH, lengths=LENGTHS, budget_s=0.5)
    assert "extrapolated_from" not in small
    cells = 1000 * retrieve_scaling.super_image_total(800, LENGTHS)
    assert large["seconds"] == pytest.approx(0.75e-6 * cells, rel=1e-3)
    assert large["extrapolated_from"]["videos"] < 800
    assert large["extrapolated_from"]["seconds"] < 0.5
    in_full = retrieve_scaling.run(sizes, width=WIDTH, lengths=LENGTHS, budget_s=math.inf)
    assert all("extrapolated_from" not in entry for entry in in_full)


@pytest.mark.parametrize("share", [1e-6, 1e-4, 0.01, 0.3])
def test_a_slice_has_about_its_share_of_the_work(share: float) -> None:
    size = Size(100_000, 1_000_000)
    chosen = retrieve_scaling.slice_of(size, share)
    assert chosen.queries * chosen.videos == pytest.approx(share * size.queries * size.videos, rel=0.05)
    assert chosen.queries >= retrieval.CPU_BLOCK.queries


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a small run's retrieve_cpu.json."""
    folder = tmp_path_factory.mktemp("results")
    options = "--queries 20 --width 12 --repetitions 1 --peer-queries 4 --sizes 20x30 --json".split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieve, "_lengths", lambda video_info: np.array([1, 2, 3, 1]))
        retrieve.main([*options, str(folder / "retrieve_cpu.json")])
    return folder


def test_results_are_rows_of_the_table(results: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", results)
    evaluation, *_, scaling = readme_table._retrieve("retrieve_cpu.json")
    assert "evaluate 20 queries x 4 videos (7 super images)" in evaluation.what
    assert "search 20 queries x 30 videos" in scaling.what


@pytest.mark.may_skip
def test_results_have_a_chart(results: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="charts are part of the bench extra")
    first = charts.draw_all(results, tmp_path / "a")
    again = charts.draw_all(results, tmp_path / "b")
    assert [file.name for file in first] == ["retrieve_cpu.png", "retrieve_cpu.svg"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
