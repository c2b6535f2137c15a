"""engine/normalisation.py and query_bank.py against their formulas, written with dense float64 matrices."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine import choices
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.scoring import normalisation
from gridclip.engine.scoring.normalisation import Normalisation, QueryBank, rank_normalised
from gridclip.engine.scoring.query_bank import load_query_bank
from gridclip.engine.scoring.retrieval import Scoring, Wanted
from gridclip.engine.store.store import Store


def unit(rows: np.ndarray) -> np.ndarray:
    normed: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalisation, "QUERIES_AT_ONCE", 7)


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(4)
    common = generator.standard_normal(12)
    vectors = unit(generator.standard_normal((19, 12)) + common).astype(np.float32)
    queries = unit(generator.standard_normal((30, 12)) + common).astype(np.float32)
    return {
        "queries": queries,
        "targets": generator.integers(0, 19, 30),
        "vectors": vectors,
        "offsets": np.arange(20),
    }


def expected(adjusted: np.ndarray, targets: np.ndarray) -> tuple[list[int], list[list[int]]]:
    ranks = [1 + int((row > row[target]).sum()) for row, target in zip(adjusted, targets, strict=True)]
    return ranks, np.argsort(-adjusted, axis=1)[:, :4].tolist()


def test_qb_norm_is_the_dynamic_inverted_softmax(small_blocks: None, data: dict[str, np.ndarray]) -> None:
    bank = unit(np.random.default_rng(5).standard_normal((9, 12)) + data["vectors"].mean(0))
    scores = data["queries"].astype(np.float64) @ data["vectors"].T
    banked = bank @ data["vectors"].T
    activated = set(banked.argmax(1).tolist())
    inverted = np.exp(20 * scores) / np.exp(20 * banked).sum(0)
    is_active = np.array([row.argmax() in activated for row in scores])
    assert 0 < is_active.sum() < len(scores)
    ranks, best = expected(np.where(is_active[:, None], inverted, scores), data["targets"])
    chosen = Normalisation("qb-norm", QueryBank(bank.astype(np.float32), "here"))
    found = rank_normalised(**data, wanted=Wanted(Scoring("max"), 4), normalisation=chosen, device="cpu")
    assert found.ranks.tolist() == ranks and found.videos.tolist() == best
    assert (np.diff(found.scores) <= 0).all()


def test_sinkhorn_ranks_by_the_scaled_matrix(small_blocks: None, data: dict[str, np.ndarray]) -> None:
    plan = np.exp(20 * (data["queries"].astype(np.float64) @ data["vectors"].T))
    for _ in range(normalisation.SINKHORN_ROUNDS):
        plan /= plan.sum(1, keepdims=True)
        plan *= len(plan) / plan.shape[1] / plan.sum(0)
    ranks, best = expected(plan, data["targets"])
    chosen = Normalisation("sinkhorn")
    found = rank_normalised(**data, wanted=Wanted(Scoring("max"), 4), normalisation=chosen, device="cpu")
    assert chosen.transductive
    assert found.ranks.tolist() == ranks and found.videos.tolist() == best


def test_more_scores_than_fit_are_refused(monkeypatch: pytest.MonkeyPatch, data: dict[str, np.ndarray]) -> None:
    monkeypatch.setattr(normalisation, "MOST_SCORES", 30 * 19 - 1)
    with pytest.raises(GridClipError, match="30 queries x 19 videos are 570 scores, and sinkhorn keeps all of them"):
        rank_normalised(**data, wanted=Wanted(Scoring()), normalisation=Normalisation("sinkhorn"), device="cpu")


def test_names_and_banks_must_fit(data: dict[str, np.ndarray]) -> None:
    assert [Normalisation(name).name for name in choices.NORMALISATIONS if name != "qb-norm"] == ["none", "sinkhorn"]
    bank = QueryBank(np.ones((2, 5), np.float32), "elsewhere")
    with pytest.raises(ValueError, match="normalise .'softly'. must be one of none, qb-norm, sinkhorn"):
        Normalisation("softly")
    with pytest.raises(ValueError, match="needs a bank of queries"):
        Normalisation("qb-norm")
    with pytest.raises(ValueError, match="`query_bank` is for `normalise='qb-norm'`"):
        Normalisation("sinkhorn", bank)
    with pytest.raises(GridClipError, match="the query bank elsewhere is 5 wide, the videos are 12"):
        rank_normalised(**data, wanted=Wanted(Scoring()), normalisation=Normalisation("qb-norm", bank), device="cpu")


def test_a_bank_is_a_store_or_an_npz(tmp_path: pathlib.Path) -> None:
    vectors = np.eye(3, dtype=np.float32)
    store = Store.open(tmp_path / "store", create=True)
    store.put_queries([Query(n, "v", f"text {n}") for n in range(3)], vectors)
    np.savez(tmp_path / "bank.npz", embedding=vectors)
    for name in ("store", "bank.npz"):
        np.testing.assert_array_equal(load_query_bank(tmp_path / name).vectors, vectors)
    np.savez(tmp_path / "wrong.npz", embedding=np.array([[np.nan, 1]]))
    np.savez(tmp_path / "other.npz", texts=vectors)
    np.save(tmp_path / "bare.npy", vectors)
    for name in ("wrong.npz", "other.npz", "bare.npy", "gone.npz"):
        with pytest.raises(GridClipError, match=f"the query bank .*{name}"):
            load_query_bank(tmp_path / name)
