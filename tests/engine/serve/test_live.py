"""A store that grows while it is served: its counts are told, and its new videos are found."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from gridclip.engine.search.search import Searcher
from gridclip.engine.serve import live
from gridclip.engine.serve.bounds import Bounds
from gridclip.engine.serve.refusal import Refusal
from gridclip.engine.store.rows import VideoEmbedding
from gridclip.engine.store.store import Store

pytest.importorskip("starlette")


def video(name: str, direction: int, width: int) -> VideoEmbedding:
    vectors = np.zeros((2, width), np.float32)
    vectors[:, direction] = 1
    return VideoEmbedding(name, np.array([0.0, 8.0]), np.array([8.0, 12.0]), vectors)


class FakeEncoder:
    """Sentences are the numbers of directions."""

    def __init__(self, encoder: Any) -> None:
        self.model_dir, self.info = encoder.model_dir, encoder.info

    def encode_texts(self, texts: Any) -> np.ndarray:
        vectors = np.zeros((len(texts), self.info.embed_dim), np.float32)
        for row, text in enumerate(texts):
            vectors[row, int(text) if text.isdigit() else 0] = 1
        return vectors


def test_new_videos_are_told_and_found(
    tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gridclip
    from gridclip.engine.serve.server import make_service
    from starlette.testclient import TestClient

    monkeypatch.setattr(live, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(live, "TELL_S", 0.05)
    encoder = FakeEncoder(gridclip.load_model(tiny_model_dir, num_gpus=0))
    store, width = Store.open(tmp_path / "store", create=True), encoder.info.embed_dim
    store.append_videos([video("one", 1, width)])
    service = make_service(encoder, Searcher(store), store.reader(), None, Bounds(making=1))
    with TestClient(service.application(local=True, token=None), base_url="http://localhost") as client:
        answer = client.get("/api/search?q=2").json()
        assert [row["video_id"] for row in answer["results"]] == ["one"] and answer["results"][0]["file"] is None
        (tmp_path / "store" / "failures.jsonl").write_text('{"video": "three"}\n')
        store.append_videos([video("two", 2, width)])
        for _ in range(200):
            found = client.get("/api/search?q=2").json()["results"]
            if found[0]["video_id"] == "two":
                break
        assert found[0]["score"] == pytest.approx(1, abs=1e-3)
        info = client.get("/api/info").json()
        assert (info["videos"], info["embeddings"], info["failed"]) == (2, 4, 1)
        assert "no file" in client.get("/media/two").json()["error"]


def test_listeners_hear_of_every_change_are_bounded_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(live, "TELL_S", 0.01)
    monkeypatch.setattr(live, "STILL_THERE_S", 0.2)
    counts = [live.Counts(1, 4, 0)]
    grown: list[int] = []

    async def listen() -> tuple[list[str], int]:
        followed = live.Live(lambda: counts[-1], lambda: grown.append(counts[-1].videos), Bounds(listeners=1))
        following = asyncio.create_task(followed.follow())
        heard: list[str] = []
        events = followed.listen()
        heard.append(await anext(events))
        with pytest.raises(Refusal, match="follow the store already"):
            followed.listen()
        counts.append(live.Counts(3, 9, 1))
        heard.append(await anext(events))
        while not heard[-1].startswith(":"):
            heard.append(await anext(events))
        followed.ended = True
        left = [event async for event in events]
        following.cancel()
        return heard, len(left)

    heard, left = asyncio.run(listen())
    told = [json.loads(event.partition("data: ")[2]) for event in heard if "data" in event]
    assert told[0] == {"videos": 1, "embeddings": 4, "failed": 0, "growing": False}
    assert told[1] == {"videos": 3, "embeddings": 9, "failed": 1, "growing": True}
    assert told[-1] == told[1] | {"growing": False} and left <= 1
    assert len(grown) == 2, "at first, and after the videos have doubled"
