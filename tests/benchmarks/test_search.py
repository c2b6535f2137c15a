"""benchmarks/search*.py: exact answers and recall against loops in float64, every row of a report, runs that go on."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import pathlib
import signal
import subprocess
from typing import Any

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.benchmarks import charts_search, search, search_corpus, search_process, search_systems, search_table
from gridclip.benchmarks.search_corpus import SCORINGS, TOP, Corpus
from gridclip.engine.store.store import Store

WIDTH, ROWS, QUERIES = 32, 800, 6
SMALL = ["--super-images", str(ROWS), "--width", str(WIDTH), "--queries", str(QUERIES), "--demo-videos", "0"]
WITH_PEERS = importlib.util.find_spec("faiss") is not None


@pytest.fixture
def corpus(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setattr(search_corpus, "BLOCK_VIDEOS", 16)
    monkeypatch.setattr(search_corpus, "BLOCK_ROWS", 100)
    return search_corpus.make_generated(tmp_path / "corpus", super_images=ROWS, queries=QUERIES, width=WIDTH)


def unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return found


def best_by_definition(corpus: Corpus, query: np.ndarray, scoring: str) -> list[int]:
    """The ten best videos, one video at a time, in float64, with the weighted sum itself."""
    options = SCORINGS[scoring]
    scores = []
    for first, last in itertools.pairwise(corpus.offsets):
        rows = unit(np.array(corpus.vectors[first:last], np.float64))
        similar = rows @ query
        if options["aggregate"] == "max":
            scores.append(similar.max())
        else:
            scores.append(unit(np.exp(similar / options["temperature"]) @ rows) @ query)
    return np.argsort(scores)[::-1][:TOP].tolist()


def test_exact_answers_are_those_of_the_definition(corpus: Corpus) -> None:
    assert len(corpus.vectors) == corpus.offsets[-1] == ROWS == corpus.facts["super_images"]
    np.testing.assert_allclose(np.linalg.norm(corpus.queries, axis=1), 1, atol=1e-6)
    for number, query in enumerate(corpus.queries.astype(np.float64)):
        for scoring in SCORINGS:
            assert corpus.exact(scoring)[number].tolist() == best_by_definition(corpus, query, scoring)
        nearest = np.argsort(corpus.vectors.astype(np.float64) @ query)[::-1][:TOP]
        assert corpus.exact("super_images")[number].tolist() == nearest.tolist()


def test_the_store_has_the_vectors(corpus: Corpus) -> None:
    table = Store.open(corpus.store).read_super_images()
    assert [search_corpus.video_number(name) for name in table.video_ids] == list(range(len(corpus.offsets) - 1))
    np.testing.assert_array_equal(table.offsets, corpus.offsets)
    np.testing.assert_array_equal(table.vectors, corpus.vectors)


def test_cosines_are_those_that_the_formula_promises(tmp_path: pathlib.Path) -> None:
    corpus = search_corpus.make_generated(tmp_path / "wide", super_images=4000, queries=50, width=256)
    similar = np.tril(corpus.vectors.astype(np.float32) @ corpus.vectors.astype(np.float32).T, -1)
    own = np.repeat(np.arange(len(corpus.offsets) - 1), np.diff(corpus.offsets))
    same = np.tril(own[:, None] == own, -1)
    assert similar[np.tril(~same, -1)].mean() == pytest.approx(0.53, abs=0.03)  # mostly of two topics
    assert similar[same].mean() == pytest.approx(0.84, abs=0.03)  # of one scene and of two
    assert corpus.facts["mean_cosine_of_query_and_its_super_image"] == pytest.approx(0.5, abs=0.05)


def test_a_corpus_is_kept_and_one_that_was_cut_off_is_made_again(
    corpus: Corpus, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cut_off := tmp_path / "cut_off" / "store").mkdir(parents=True)
    (cut_off / "left_over").write_text("")
    again = search_corpus.make_generated(cut_off.parent, super_images=ROWS, queries=QUERIES, width=WIDTH)
    np.testing.assert_array_equal(again.vectors, corpus.vectors)
    np.testing.assert_array_equal(again.queries, corpus.queries)
    monkeypatch.setattr(search_corpus, "_write_generated", lambda *arguments, **options: pytest.fail("made again"))
    search_corpus.make_generated(corpus.folder, super_images=ROWS, queries=QUERIES, width=WIDTH)


def test_the_demos_vectors_and_captions(tmp_path: pathlib.Path) -> None:
    corpus = search_corpus.make_demo(tmp_path / "demo", videos=2, queries=4, say=print)
    table = Store.open(corpus.store).read_super_images()
    np.testing.assert_array_equal(table.offsets, corpus.offsets)
    assert (len(table.video_ids), corpus.queries.shape) == (2, (4, table.vectors.shape[1]))
    for number, query in enumerate(corpus.queries.astype(np.float64)):
        for scoring in SCORINGS:
            assert corpus.exact(scoring)[number].tolist() == best_by_definition(corpus, query, scoring)


def test_recall_counts_the_best_ten() -> None:
    exact = np.array([np.arange(10), np.arange(10, 20)])
    assert search_process.recall([np.arange(10)[::-1], np.arange(10, 20)], exact) == 1
    assert search_process.recall([np.array([0, 1, 99]), np.arange(15, 30)], exact) == pytest.approx((0.2 + 0.5) / 2)
    late = np.concatenate([np.arange(50, 60), np.arange(10)])  # the right ones, but after ten others
    assert search_process.recall([late], exact) == 0


def test_the_product_finds_the_exact_answers(corpus: Corpus, tmp_path: pathlib.Path) -> None:
    product = search_systems.Product()
    (tmp_path / "product").mkdir()
    product.build(corpus, tmp_path / "product")
    ask = product.open(tmp_path / "product", "max")({})
    for number, query in enumerate(corpus.queries):
        similar = corpus.vectors.astype(np.float64) @ query  # as they are rounded, not of unit length
        best = [max(similar[first:last]) for first, last in itertools.pairwise(corpus.offsets)]
        assert ask(query).videos.tolist() == np.argsort(best)[::-1][:TOP].tolist()
        super_images = ask(query).super_images
        assert super_images is not None
        assert super_images.tolist() == corpus.exact("super_images")[number].tolist()


def test_videos_of_super_images_are_in_the_order_of_their_best() -> None:
    answer = search_systems._of_super_images(np.array([9, 0, 5, 1, 6, 8]), np.array([0, 2, 5, 7, 10]))
    assert answer.videos.tolist() == [3, 0, 2]


def test_queries_stop_where_the_budget_ends() -> None:
    def ask(query: np.ndarray) -> search_systems.Answer:
        return search_systems.Answer(query)

    many = np.zeros((100, 1))
    assert len(search_process.answers_and_seconds(ask, many, budget_s=-1)[0]) == search_process.FEWEST
    assert [len(part) for part in search_process.answers_and_seconds(ask, many, budget_s=60)] == [100] * 3


def test_a_report_has_every_row(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "FIRST_RUNS", 1)
    target, work_dir = tmp_path / "search.json", tmp_path / "work"
    arguments = [*SMALL, "--work-dir", str(work_dir), "--queries-s", "1", "--note", "a test", "--json", str(target)]
    search.main(arguments)
    report = json.loads(target.read_text())
    (entry,) = report["results"]
    names = [system.name for system in search_systems.systems()]
    assert sorted([*entry["systems"], *entry["left_out"]]) == sorted(names)
    assert set(entry["left_out"]) <= (set() if WITH_PEERS else {"faiss IVF-PQ", "faiss HNSW"})
    ways = search_table.ways(entry)
    for name, asked in ways.items():
        best = search_table.chosen_effort(asked)
        assert best["queries"] == QUERIES and 0 < best["p50_ms"] <= best["p95_ms"]
        assert len(asked["firsts_s"]) == 1 and asked["first_peak_mib"] > 10
        if "IVF-PQ" not in name:
            assert best["recall_videos"] >= (1 if "exact" in name or "product" in name else 0.9)
    assert {name.partition(", ")[2] for name in ways} == set(SCORINGS)
    assert not list(work_dir.glob("search/*/built"))
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)

    again = []
    monkeypatch.setattr(search, "measure_system", lambda system, *_, **limits: again.append(system.name) or {})
    monkeypatch.setattr(search, "lines", lambda name, measured: [])
    search.main([*arguments, "--resume"])
    assert sorted(again) == sorted(entry["left_out"]), "what is measured is not measured again, what is missing is"
    with pytest.raises(GridClipError, match="--resume: .* measured with queries_s 1"):
        search.main([*arguments, "--queries-s", "2", "--resume"])


def test_a_process_that_takes_too_long_or_fails_is_left_out_with_the_reason(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: dict[str, Any] = {"queries_s": 1, "threads": 1}
    with pytest.raises(search.LeftOut, match=r"building it took longer than 0\.01 s"):
        search.measure_system(search_systems.Exact(), corpus, limit_s=0.01, **limits)
    with pytest.raises(search.LeftOut, match="building it failed: ValueError: not enough values"):
        search.measure_system(search_systems.Exact(name="no such system"), corpus, limit_s=60, **limits)
    killed = subprocess.CompletedProcess([], -signal.SIGKILL, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: killed)
    with pytest.raises(search.LeftOut, match="building it was ended by SIGKILL"):
        search.measure_system(search_systems.Exact(), corpus, limit_s=60, **limits)


def test_without_faiss_or_memory_its_rows_say_so(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    hnsw = search_systems.systems()[-1]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(search.LeftOut, match="faiss-cpu is not installed: pip install"):
        search.measure_system(hnsw, corpus, queries_s=1, limit_s=60, threads=1)
    monkeypatch.setattr(search_systems, "_available_bytes", lambda: ROWS * WIDTH * 4)
    with pytest.raises(search.LeftOut, match="it holds 0.0 GiB of vectors"):
        search.measure_system(search_systems.Product(), corpus, queries_s=1, limit_s=60, threads=1)


def test_the_fastest_effort_that_finds_enough_is_chosen() -> None:
    efforts = [{"recall_videos": recall, "p50_ms": ms} for recall, ms in ((0.9, 1), (0.995, 5), (0.99, 3), (1.0, 9))]
    assert search.chosen(efforts) == 2
    assert search.chosen(efforts[:1]) == 0


def test_sizes_are_numbers() -> None:
    assert search._sizes("1e4,250") == [10_000, 250]
    assert search._sizes("") == []
    for wrong in ("many", "0"):
        with pytest.raises(argparse.ArgumentTypeError, match=wrong):
            search._sizes(wrong)


def report(**left_out: str) -> dict[str, Any]:
    def asked(p50_ms: float, *recalls: float) -> dict[str, Any]:
        efforts = [
            {"effort": {"n": n}, "recall_videos": recall, "p50_ms": p50_ms, "p95_ms": 2 * p50_ms, "cpu_ms": p50_ms}
            for n, recall in enumerate(recalls)
        ]
        return {"first_s": 0.5, "first_peak_mib": 90, "peak_mib": 2000, "efforts": efforts, "chosen": len(recalls) - 1}

    def entry(size: int) -> dict[str, Any]:
        built = {"build_s": 1.5, "build_peak_mib": 50, "disk_mib": 1234.5}
        systems = {
            "gridclip index": {**built, "asked": {"max": asked(size / 1000, 0.995), "softmax": asked(3, 1.0)}},
            "faiss IVF-PQ": {**built, "asked": {"max": asked(1, 0.5, 0.75)}},
        }
        return {"corpus": "generated", "super_images": size, "width": 768, "systems": systems, "left_out": left_out}

    settings = {"threads": 2, "predicted": search.PREDICTED}
    machine = {"processor": "Some Processor", "cores": 8}
    return {"machine": machine, "settings": settings, "results": [entry(10_000), entry(1_000_000)]}


def test_the_table_has_the_largest_corpus_beside_what_was_predicted() -> None:
    head, _, index, _, peer, gone = search_table.table(report(other="not installed"))
    assert {line.count("|") for line in (head, index, peer, gone)} == {head.count("|")}
    assert "| gridclip index, max, n 0 | 0.995 (0.99) | 1,000, 2,000 (70) |" in index
    assert "| faiss IVF-PQ, max, n 1 | 0.750 (0.85) | 1, 2 (5) | 1 | 2,000 | 0.50 s, 90 MiB | 1.5 s, 50 MiB |" in peer
    assert "| other | left out: not installed |" in gone


def test_the_headline_is_the_largest_corpus_where_nothing_was_left_out() -> None:
    whole = report()["results"]
    larger = {**whole[1], "super_images": 10_000_000, "left_out": {"other": "too large"}}
    assert search_table.compared({**report(), "results": [larger, *whole]}) is whole[1]
    assert (
        search_table.compared({**report(), "results": [{**whole[0], "left_out": {"other": "gone"}}, larger]}) is larger
    )


def test_a_row_for_each_corpus() -> None:
    small, large = search_table.rows({**report(), "results": [{**each, "videos": 7} for each in report()["results"]]})
    assert (small[0], small[-1]) == ("find the 10 best of 7 videos, 10,000 super images (generated)", False)
    expected = "gridclip index (max) 0.995, 1,000 ms, 2,000 MiB; gridclip index (softmax) 1.000, 3 ms, 2,000 MiB; faiss"
    assert expected in large[2] and large[-1]


def test_figures_are_short() -> None:
    assert [search_table.short(value) for value in (1071.4, 31.36, 0.25, 6e-05)] == ["1,070", "31.4", "0.25", "0"]


@pytest.mark.may_skip  # matplotlib is in the extra "bench" only
def test_the_chart_shows_every_size_and_every_effort() -> None:
    pytest.importorskip("matplotlib")
    figure = charts_search.search_chart(report())
    assert figure is not None
    latency, *_, recall = figure.axes
    lines = {line.get_label(): line for line in latency.lines}
    assert lines["gridclip index, max"].get_ydata().tolist() == [10, 1000]
    efforts = [list(line.get_ydata()) for line in recall.lines]
    assert [50, 75] in efforts and [99.5] in efforts
    assert charts_search.search_chart({"results": []}) is None
