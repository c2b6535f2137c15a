"""engine/aggregates.py: the table is what is offered, and docs/recipes/aggregate.md works: a toy gets into a recall."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest
import torch
from gridclip.engine import choices
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.evaluation.evaluation import evaluate
from gridclip.engine.scoring import aggregates
from gridclip.engine.scoring.aggregate import Aggregate, Group, Part
from gridclip.engine.search.search import search
from gridclip.engine.store.store import Store, VideoEmbedding


class BestPair(Aggregate):
    """The best mean of two neighbouring super images; a single one stands for itself."""

    name = "best-pair"

    def prepare(self, part: Part) -> Part:
        rows, groups, first = [], [], 0
        for group in part.groups:
            own = group.of(part.vectors)
            pairs = own if group.length == 1 else torch.nn.functional.normalize(own[:, 1:] + own[:, :-1], dim=2)
            groups.append(Group(first, group.count, pairs.shape[1]))
            rows.append(pairs.flatten(0, 1))
            first += len(rows[-1])
        return dataclasses.replace(part, vectors=torch.cat(rows), groups=groups)

    def scores(self, part: Part, similar: torch.Tensor, temperature: float) -> torch.Tensor:
        return torch.cat([group.of(similar).amax(1) for group in part.groups])


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    """For a query along [1, 1, 0]: "once" has the best super image, "twice" the best pair of neighbours."""
    store = Store.open(tmp_path / "store", create=True)
    videos = {
        "once": [[1, 1, 0], [0, 0, 1]],
        "twice": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
        "single": [[1, 0, 1]],
    }
    store.append_videos(
        [
            VideoEmbedding(name, None, None, np.array(rows, np.float32) / np.linalg.norm(rows, axis=1, keepdims=True))
            for name, rows in videos.items()
        ]
    )
    store.put_queries([Query(0, "twice", "both at once")], np.array([[0.5, 0.5, 0]], np.float32))
    return store


def test_the_table_is_what_is_offered() -> None:
    assert tuple(aggregates.AGGREGATES) == choices.AGGREGATES
    assert all(aggregate.name == name for name, aggregate in aggregates.AGGREGATES.items())


def test_an_aggregate_joins_through_the_table(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="best-pair"):
        evaluate(store, aggregate="best-pair")
    monkeypatch.setitem(aggregates.AGGREGATES, "best-pair", BestPair())
    found = evaluate(store, aggregate="best-pair", topk=[1])
    assert found.recall == {1: 100}
    assert found.to_json()["aggregate"] == "best-pair"
    assert "(best-pair)" in str(found)
    assert evaluate(store, aggregate="max", topk=[1]).recall == {1: 0}
    hits = search(store, np.array([1, 1, 0]), aggregate="best-pair")
    assert [hit.video_id for hit in hits] == ["twice", "once", "single"]
    np.testing.assert_allclose([hit.score for hit in hits], [1, np.sqrt(0.5), 0.5], atol=1e-3)


def test_only_the_softmax_tells_of_its_temperature() -> None:
    told = {name: aggregate.describe(0.1) for name, aggregate in aggregates.AGGREGATES.items()}
    names = ("mean", "max", "windows", "tf-prvr")
    assert told == {"softmax": "softmax, temperature 0.1", **{name: name for name in names}}
