"""Match probabilities of hits, against the formula written out for a hand-made store."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.search.matches import match_probabilities
from gridclip.engine.search.search import Searcher
from gridclip.engine.store.store import Store, VideoEmbedding
from gridclip.export.model_info import ModelFacts

FACTS = {"image_size": 32, "embed_dim": 3, "context_length": 8, "start_token": None, "end_token": 1}


@pytest.fixture
def searcher(tmp_path: pathlib.Path) -> Searcher:
    store = Store.open(tmp_path / "store", create=True)
    turns = np.eye(3, dtype=np.float32)
    store.append_videos(
        [
            VideoEmbedding("first", np.array([0.0, 8.0]), np.array([8.0, 16.0]), turns[[1, 0]]),
            VideoEmbedding("other", None, None, turns[[2]]),
        ]
    )
    return Searcher(store)


def test_it_is_that_of_the_most_similar_super_image(searcher: Searcher) -> None:
    sentence = np.array([2.0, 1.0, 0.0], np.float32)  # of any length
    hits = searcher.search(sentence)
    found = match_probabilities(hits, searcher, sentence, ModelFacts(**FACTS, logit_scale=20.0, logit_bias=-10.0))
    cosines = {"first": 2 / math.sqrt(5), "other": 0.0}
    assert found.keys() == cosines.keys()
    for video_id, cosine in cosines.items():
        assert found[video_id] == pytest.approx(1 / (1 + math.exp(10 - 20 * cosine)), rel=1e-4)


def test_a_model_that_cannot_say_it_is_refused(searcher: Searcher) -> None:
    sentence = np.ones(3, np.float32)
    with pytest.raises(GridClipError, match="gives no match probability"):
        match_probabilities(searcher.search(sentence), searcher, sentence, ModelFacts(**FACTS, logit_scale=20.0))
