"""Videos that are no files of their own: in tars and in an object store they are shown, played and cut as files are."""

from __future__ import annotations

import io
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import av
import faulty_store
import numpy as np
import pytest
from faulty_store import BUCKET
from gridclip.dali_pipes import remote
from gridclip.engine.search.search import Searcher
from gridclip.engine.serve import files
from gridclip.engine.serve.bounds import Bounds
from PIL import Image

from .conftest import Planted

NAMES = {"first": "first.mp4", "hevc": "hevc.mkv"}


def client_of(planted: Planted, video_dir: pathlib.Path | str) -> Any:
    from gridclip.engine.serve.server import make_service
    from starlette.testclient import TestClient

    searcher = Searcher(planted.store, temperature=0.1)
    service = make_service(planted.encoder, searcher, planted.store.reader(), video_dir, Bounds(making=1))
    application = service.application(local=True, token=None)
    return TestClient(application, base_url="http://localhost:8000", raise_server_exceptions=False)


@pytest.fixture
def in_a_tar(planted: Planted, tmp_path: pathlib.Path) -> Iterator[Any]:
    # A tar is a folder of its name, so that its videos are found by the end of their ids.
    with tarfile.open(tmp_path / "0000.tar", "w") as tar:
        for name in NAMES.values():
            tar.add(planted.video_dir / name, name)
    with client_of(planted, tmp_path / "0000.tar") as client:
        yield client


@pytest.fixture
def in_a_store(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(remote, "WAITS_S", (0.01,))
    with faulty_store.serving(monkeypatch) as store:
        for name in NAMES.values():
            store.put(f"videos/{name}", (planted.video_dir / name).read_bytes())
        with client_of(planted, f"s3://{BUCKET}/videos") as client:
            yield client


@pytest.mark.parametrize("kind", ["in_a_tar", "in_a_store"])
def test_they_are_played_shown_and_cut(
    kind: str, planted: Planted, client: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 10_000)
    served = request.getfixturevalue(kind)
    for video_id, name in NAMES.items():
        content = (planted.video_dir / name).read_bytes()
        whole = served.get(f"/media/{video_id}")
        assert whole.status_code == 200 and whole.content == content
        assert whole.headers["content-type"] == client.get(f"/media/{video_id}").headers["content-type"]
        assert len(content) > 10_000
        for span, expected in (
            ("bytes=100-199", content[100:200]),
            ("bytes=-50", content[-50:]),
            ("bytes=7-", content[7:10_007]),  # the player asks on
        ):
            part = served.get(f"/media/{video_id}", headers={"Range": span})
            assert part.status_code == 206 and part.content == expected
        assert served.get(f"/media/{video_id}", headers={"Range": f"bytes={len(content)}-"}).status_code == 416
        for route in ("strip", "frame"):
            address = f"/api/{route}/{video_id}?{'at=3' if route == 'frame' else 'frames=5'}"
            shown, plain = (Image.open(io.BytesIO(each.get(address).content)) for each in (served, client))
            assert np.array_equal(np.asarray(shown), np.asarray(plain))
        clip = served.get(f"/api/clip/{video_id}?start=9.5&end=12")
        with av.open(io.BytesIO(clip.content)) as opened:
            assert 20 <= sum(1 for _ in opened.decode(video=0)) <= 80
    found = {row["video_id"]: row for row in served.get("/api/search?q=a+ring&top=100").json()["results"]}
    assert found["first"]["local"] is False and found["first"]["file"].endswith("first.mp4")
    assert found["second"]["file"] is None


@pytest.mark.parametrize("kind", ["in_a_tar", "in_a_store"])
def test_they_have_no_dates(kind: str, request: pytest.FixtureRequest) -> None:
    served = request.getfixturevalue(kind)
    assert served.get("/api/info").json()["dates"] is False
    refused = served.get("/api/search?q=a&since=2026-01-01")
    assert refused.status_code == 400 and "leave since and until out" in refused.json()["error"]


def test_a_store_that_refuses_is_a_sentence(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS_S", (0.01,))
    with faulty_store.serving(monkeypatch) as store:
        store.put("videos/first.mp4", (planted.video_dir / "first.mp4").read_bytes())
        with client_of(planted, f"s3://{BUCKET}/videos") as client:
            store.forbidden = "first.mp4"
            for route in ("/media/first", "/api/strip/first", "/api/clip/first?start=1&end=2"):
                answer = client.get(route)
                assert answer.status_code in (404, 422), answer.text
                assert answer.json()["error"] and "secret" not in answer.text
            assert client.get("/media/first", headers={"Range": "bytes=0-9"}).status_code == 404
