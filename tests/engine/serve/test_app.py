"""The routes: answers beside a plain loop, byte ranges, pictures and clips of the true seconds, refusals in words."""

from __future__ import annotations

import io
import os
import pathlib
import re
import time
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from .conftest import LONG, Planted


def search(client: Any, **parameters: Any) -> Any:
    response = client.get("/api/search", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def plain_scores(planted: Planted, sentence: str, temperature: float) -> dict[str, float]:
    """The definition, video by video in float64."""
    query = planted.encoder.encode_texts([sentence])[0].astype(np.float64)
    query /= np.linalg.norm(query)
    table = planted.store.read_super_images()
    scores = {}
    for place, video_id in enumerate(table.video_ids):
        rows = table.vectors[table.offsets[place] : table.offsets[place + 1]].astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        weights = np.exp(rows @ query / temperature)
        mixed = (weights / weights.sum()) @ rows
        scores[video_id] = float(query @ mixed / np.linalg.norm(mixed))
    return scores


def test_a_caption_finds_its_video_and_the_seconds_of_its_scene(client: Any, planted: Planted) -> None:
    for video_id in planted.made:
        caption, start_s, end_s = planted.longest_caption(video_id)
        best = search(client, q=caption, top=3)["results"][0]
        assert best["video_id"] == video_id
        middle_s = (best["moments"][0]["start_s"] + best["moments"][0]["end_s"]) / 2
        assert start_s - 4 <= middle_s <= end_s + 4  # a super image is 8 s


def test_scores_curves_and_weights_are_those_of_a_plain_loop(client: Any, planted: Planted) -> None:
    caption, *_ = planted.longest_caption("first")
    answer = search(client, q=caption, top=100, moments=2)
    expected = plain_scores(planted, caption, 0.1)
    assert {row["video_id"]: row["score"] for row in answer["results"]} == pytest.approx(expected, abs=1e-5)
    scores = [row["score"] for row in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    for row in answer["results"]:
        assert 1 <= len(row["moments"]) <= 2
        assert sum(row["curve"]["weight"]) == pytest.approx(1, abs=1e-4)
        assert max(row["curve"]["cosine"]) == pytest.approx(row["moments"][0]["score"], abs=1e-4)
        assert row["duration_s"] == pytest.approx(planted.made[row["video_id"]].timestamps[-1][1], abs=0.3)


def test_noise_is_what_nonsense_scores(client: Any, planted: Planted) -> None:
    caption, *_ = planted.longest_caption("second")
    until = time.monotonic() + 30
    while (noise := search(client, q=caption)["noise"]) is None and time.monotonic() < until:
        time.sleep(0.1)  # it is measured beside the first requests
    from gridclip.engine.serve.noise import nonsense

    sentences = nonsense(planted.encoder.model_dir)
    best = [max(plain_scores(planted, sentence, 0.1).values()) for sentence in sentences]
    assert noise["sentences"] == len(best) == 64
    assert noise["level"] == pytest.approx(np.percentile(best, 95), abs=1e-4)
    assert noise["median"] == pytest.approx(np.median(best), abs=1e-4)
    assert search(client, q=caption)["results"][0]["score"] > noise["level"]


def test_sentences_in_time_order(client: Any, planted: Planted) -> None:
    captions, times = planted.made["first"].captions, planted.made["first"].timestamps
    ahead = search(client, q=captions[0], then=captions[2])["results"]
    assert ahead[0]["video_id"] == "first"
    first, second = ahead[0]["moments"]
    assert first["end_s"] <= second["start_s"] + 1e-6
    assert second["start_s"] < times[2][1] and second["end_s"] > times[2][0]
    back = {row["video_id"]: row["score"] for row in search(client, q=captions[2], then=captions[0])["results"]}
    assert back["first"] < ahead[0]["score"]


def test_what_is_not_wanted_counts_against(client: Any, planted: Planted) -> None:
    caption, *_ = planted.longest_caption("old")
    plain = {row["video_id"]: row["score"] for row in search(client, q="a ring", top=100)["results"]}
    against = search(client, **{"q": "a ring", "not": caption, "top": 100})
    lost = {row["video_id"]: plain[row["video_id"]] - row["score"] for row in against["results"]}
    unwanted = plain_scores(planted, caption, 0.1)
    assert lost == pytest.approx({video_id: max(score, 0) for video_id, score in unwanted.items()}, abs=1e-4)
    assert against["noise"] is None


def test_more_like_a_moment_begins_with_that_moment(client: Any) -> None:
    answer = search(client, like="hevc", at=9)
    assert answer["results"][0]["video_id"] == "hevc" and answer["noise"] is None
    moment = answer["results"][0]["moments"][0]
    assert moment["start_s"] <= 9 < moment["end_s"] and moment["score"] == pytest.approx(1, abs=1e-3)


def test_a_frame_of_a_video_finds_it(client: Any, planted: Planted) -> None:
    _, start_s, end_s = planted.longest_caption("second")
    still = client.get("/api/frame/second", params={"at": (start_s + end_s) / 2})
    response = client.post("/api/search", params={"top": 2}, content=still.content)
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["video_id"] == "second"


def test_filters(client: Any, planted: Planted) -> None:
    found = {row["video_id"] for row in search(client, q="a ring", folder="holidays", top=100)["results"]}
    assert found == {LONG.strip(), "holidays/last"}
    assert not search(client, q="a ring", folder="holi")["results"], "a folder is no beginning of a name"
    lengths = {video_id: video.timestamps[-1][1] for video_id, video in planted.made.items()}
    middle = sorted(lengths.values())[3] - 0.5
    long = {row["video_id"] for row in search(client, q="a ring", shortest=middle, top=100)["results"]}
    assert long == {video_id for video_id, length in lengths.items() if length >= middle + 0.4}


def test_dates(client: Any, planted: Planted) -> None:
    days = {"first": 9, "second": 10, "hevc": 11}  # of the files, in this machine's time zone
    for video_id, day in days.items():
        path = next(planted.video_dir.glob(f"{video_id}.*"))
        os.utime(path, (time.time(), time.mktime((2026, 3, day, 23, 59, 0, 0, 0, -1))))

    def dated(**bounds: str) -> set[str]:
        return {row["video_id"] for row in search(client, q="a ring", top=100, **bounds)["results"]}

    assert dated(until="2026-03-31") == set(days)
    assert dated(since="2026-03-10", until="2026-03-10") == {"second"}
    assert dated(since="2026-03-10") == set(planted.made) - {"first"}
    assert dated(since="2026-03-01", until="2026-03-11", longest="0.1") == set()
    few = search(client, q="a ring", top=2, since="2026-03-01")["results"]
    assert few == search(client, q="a ring", top=100)["results"][:2], "a filter that lets all through changes nothing"
    assert client.get("/api/info").json()["dates"] is True


@pytest.mark.parametrize("span", ["bytes=0-99", "bytes=100-", "bytes=-50", "bytes=7-7"])
@pytest.mark.parametrize("route", ["/media/first", "/api/clip/first?start=1&end=3", "/api/strip/first"])
def test_byte_ranges(client: Any, route: str, span: str) -> None:
    whole = client.get(route)
    assert whole.status_code == 200 and whole.headers["accept-ranges"] == "bytes"
    part = client.get(route, headers={"Range": span})
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", span).groups()  # type: ignore[union-attr]
    expected = whole.content[int(first) :] if first else whole.content[-int(last) :]
    expected = expected[: int(last) - int(first) + 1] if first and last else expected
    assert part.status_code == 206 and part.content == expected
    assert part.headers["content-range"].endswith(f"/{len(whole.content)}")
    behind = client.get(route, headers={"Range": f"bytes={len(whole.content)}-"})
    assert behind.status_code == 416


def test_media_is_the_file(client: Any, planted: Planted) -> None:
    for video_id, name in (("hevc", "hevc.mkv"), (LONG.strip(), f"{LONG.strip()}.mp4")):
        response = client.get(f"/media/{video_id}")
        assert response.content == (planted.video_dir / name).read_bytes()
        assert response.headers["content-type"].startswith("video/")


def colours(picture: np.ndarray) -> np.ndarray:
    return picture.reshape(-1, 3).astype(float).mean(axis=0)


def frame_at(path: pathlib.Path, second: float) -> np.ndarray:
    with av.open(str(path)) as container:
        shown = None
        for frame in container.decode(video=0):
            if shown is not None and frame.time > second:
                break
            shown = frame
    assert shown is not None
    return shown.to_ndarray(format="rgb24")


@pytest.mark.parametrize(("video_id", "name"), [("first", "first.mp4"), ("hevc", "hevc.mkv"), ("old", "old.avi")])
def test_pictures_are_the_frames_of_a_plain_decode(client: Any, planted: Planted, video_id: str, name: str) -> None:
    path = planted.video_dir / name
    for second in (0.0, 10.0, 1e6):
        still = client.get(f"/api/frame/{video_id}", params={"at": second})
        picture = np.asarray(Image.open(io.BytesIO(still.content)))
        assert still.headers["content-type"] == "image/jpeg"
        assert np.abs(colours(picture) - colours(frame_at(path, second))).max() < 4
    strip = np.asarray(Image.open(io.BytesIO(client.get(f"/api/strip/{video_id}?frames=6").content)))
    length_s = planted.made[video_id].timestamps[-1][1]
    for place, cell in enumerate(np.split(strip, 6, axis=1)):
        assert np.abs(colours(cell) - colours(frame_at(path, place / 6 * length_s + 0.01))).max() < 6


@pytest.mark.parametrize(("video_id", "name"), [("hevc", "hevc.mkv"), ("old", "old.avi"), ("first", "first.mp4")])
def test_a_clip_shows_the_seconds_that_were_asked_for(client: Any, planted: Planted, video_id: str, name: str) -> None:
    response = client.get(f"/api/clip/{video_id}?start=9.5&end=14&save=1")
    assert response.status_code == 200 and response.headers["content-type"] == "video/mp4"
    assert f'filename="{video_id}_9.5-14.mp4"' in response.headers["content-disposition"]
    with av.open(io.BytesIO(response.content)) as clip:
        assert clip.streams.video[0].codec_context.name == "h264"
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in clip.decode(video=0)]
    assert frames[0][0] == pytest.approx(0, abs=0.01) and 4.3 < frames[-1][0] < 4.5
    for time_s, picture in frames[::10]:
        expected = frame_at(planted.video_dir / name, 9.5 + time_s + 0.005)
        assert np.abs(picture.astype(float) - expected).mean() < 8


def test_a_clip_has_the_sound(client: Any, planted: Planted, tmp_path: pathlib.Path) -> None:
    from gridclip.engine.clips.encoding import PREVIEW, encode_clip

    rate, path = 48_000, tmp_path / "tone.mp4"
    with av.open(str(path), "w") as target:
        pictures, sound = target.add_stream("libx264", rate=10), target.add_stream("aac", rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        for number in range(60):
            target.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
            # Silence, but for the fourth second.
            wave = np.sin(np.arange(rate // 10) * 0.06) * (30 <= number < 40) * 20000
            frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.pts = rate, number * rate // 10
            target.mux(sound.encode(frame))
        target.mux(pictures.encode())
        target.mux(sound.encode())
    made = encode_clip(path, 2.0, 5.0, PREVIEW)
    with av.open(io.BytesIO(made.data)) as clip:
        parts = [(frame.time, np.abs(frame.to_ndarray()).max()) for frame in clip.decode(audio=0)]
    loud = [time_s for time_s, peak in parts if peak > 0.1]
    assert min(loud) == pytest.approx(1, abs=0.1) and max(loud) == pytest.approx(2, abs=0.1)


def test_what_is_made_once_is_kept(client: Any, service: Any) -> None:
    client.get("/api/strip/first?frames=7")
    before = service._workshop.made
    assert client.get("/api/strip/first?frames=7").status_code == 200
    assert service._workshop.made == before


@pytest.mark.parametrize(
    ("route", "status", "told"),
    [
        ("/api/search", 400, "q is empty"),
        ("/api/search?q=+", 400, "q is empty"),
        ("/api/search?q=" + "x" * 501, 400, "at most 500"),
        ("/api/search?q=a&top=0", 400, "a whole number from 1 to 100"),
        ("/api/search?q=a&top=1e9", 400, "a whole number"),
        ("/api/search?q=a&moments=99", 400, "moments"),
        ("/api/search?q=a&quality=1", 400, "unknown parameter 'quality'"),
        ("/api/search?q=a" + "&then=b" * 5, 400, "at most 5"),
        ("/api/search?like=nowhere&at=1", 404, "no video of this id"),
        ("/api/search?q=a&shortest=nan", 400, "shortest is 'nan'"),
        ("/api/search?q=a&since=2026-02-30", 400, "since is '2026-02-30', expected a date such as 2026-01-31"),
        ("/api/search?q=a&until=20260131", 400, "until is '20260131', expected a date such as"),
        ("/api/search?q=a&since=2026-02-02&until=2026-02-01", 400, "expected since on or before until"),
        ("/api/clip/first?start=5&end=4", 400, "start before end"),
        ("/api/clip/first?start=0&end=61", 400, "at most 60 s"),
        ("/api/clip/first?start=1e5&end=100010", 422, "shows nothing"),
        ("/api/frame/first?at=-1", 400, "0 or more"),
        ("/api/strip/first?frames=25", 400, "from 1 to 24"),
        ("/api/frame/nowhere", 404, "no file for this video"),
        ("/media/../conftest", 404, "nothing at this address"),
        ("/media/..%2F..%2Fetc%2Fpasswd", 404, "no file for this video"),
        ("/media/%2Fetc%2Fpasswd", 404, "no file for this video"),
        ("/media/first%00", 400, "NUL"),
        ("/nowhere", 404, "nothing at this address"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(client: Any, route: str, status: int, told: str) -> None:
    response = client.get(route)
    assert response.status_code == status, response.text
    assert told in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [(b"", 422, "no picture"), (b"GIF89a", 422, "no picture"), (b"x" * (1 << 21), 413, "larger than 1 MiB")],
)
def test_a_body_that_is_no_picture(client: Any, body: bytes, status: int, told: str) -> None:
    response = client.post("/api/search", content=body)
    assert response.status_code == status, response.text
    assert told in response.json()["error"]


def test_other_methods_are_refused(client: Any) -> None:
    assert client.post("/api/info").status_code == 405
    assert client.put("/media/first", content=b"x").status_code == 405


def test_a_file_that_vanishes_is_a_sentence_and_a_new_one_is_found(
    client: Any, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridclip.engine.serve.library.LIST_AGAIN_S", -1.0)
    added = planted.video_dir / "added.mp4"
    assert client.get("/media/added").status_code == 404
    added.write_bytes((planted.video_dir / "first.mp4").read_bytes())
    try:
        assert client.get("/media/added").content == added.read_bytes()
    finally:
        added.unlink()
    assert "gone" in client.get("/media/added").json()["error"]


def test_what_the_server_says_of_itself(client: Any, planted: Planted) -> None:
    info = client.get("/api/info").json()
    assert info["videos"] == len(planted.made) and info["folders"] == ["holidays", "holidays/2026 in the far north"]
    assert client.get("/healthz").json() == {"status": "ok"}
    text = client.get("/metrics").text
    assert f"gridclip_videos {len(planted.made):.1f}" in text
    assert 'gridclip_requests_total{route="/api/info",status="200"}' in text
    assert "media/" not in text, "an id is no label"


def test_every_route_is_documented(service: Any, client: Any) -> None:
    documented = {
        (path, method.upper()) for path, each in client.get("/openapi.json").json()["paths"].items() for method in each
    }
    application = service.application(local=True, token=None)
    routes = {(route.path.replace(":path", ""), method) for route in application.routes for method in route.methods}
    pages = {"/index.html", "/page.css", "/page.js", "/icon.svg"}
    assert {route for route in routes if route[0] not in pages and route[1] != "HEAD"} == documented


def test_the_page_and_its_parts(client: Any) -> None:
    page = client.get("/").text
    for part in re.findall(r'(?:src|href)="(/[^"#]+)"', page):
        assert client.get(part).status_code == 200, part
    assert "://" not in re.sub(
        r"http://www\.w3\.org/\S+", "", page + client.get("/page.js").text + client.get("/page.css").text
    )
