"""Whatever is asked, no answer is a fault of the server: no 500, no traceback, JSON with a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")

SETTINGS = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
NUMBERS = st.one_of(
    st.integers(-5, 2**70).map(str),
    st.floats().map(str),
    st.sampled_from(["", "٣", "1e400", "0x10", "1_0", "-0", "+1", "1 ", "inf", "NaN"]),
)
TEXTS = st.one_of(
    st.text(max_size=600), st.sampled_from(["first", "hevc", "../first", "a" * 501, "\0", "%", "holidays"])
)
IDS = st.one_of(
    TEXTS, st.lists(st.sampled_from(["..", ".", "", "first", "etc", "passwd", "~"]), max_size=6).map("/".join)
)
PARAMETERS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["q", "then", "like", "folder", "save", "since", "until", "?"]), TEXTS),
        st.tuples(st.sampled_from(["since", "until"]), st.dates().map(str)),
        st.tuples(st.sampled_from(["at", "top", "moments", "shortest", "longest", "start", "end", "frames"]), NUMBERS),
    ),
    max_size=6,
)
ROUTES = st.sampled_from(["/api/search", "/api/info", "/", "/metrics", "/openapi.json"])
WITH_ID = st.sampled_from(["/api/strip/", "/api/frame/", "/api/clip/", "/media/"])
HEADERS = st.dictionaries(
    st.sampled_from(["Range", "If-Range", "Cookie", "Authorization", "Origin", "Accept", "If-None-Match"]),
    st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
        st.sampled_from(["bytes=0-", "bytes=-0", "bytes=9-1", "bytes=0-1,3-4", "bytes=" + "9" * 40 + "-", "bytes=a-b"]),
    ),
    max_size=3,
)


def check(response: Any) -> None:
    assert response.status_code < 500 or response.status_code == 503, response.text
    assert "Traceback" not in response.text[:2000]
    kind = response.headers.get("content-type", "")
    # The ranges of a file are refused by Starlette, in plain text.
    if response.status_code >= 400 and response.status_code != 416 and not (kind.startswith("text/plain")):
        assert json.loads(response.text)["error"]


@SETTINGS
@given(route=ROUTES, parameters=PARAMETERS, headers=HEADERS)
def test_any_parameters(client: Any, route: str, parameters: list[tuple[str, str]], headers: dict[str, str]) -> None:
    check(client.get(route, params=without_surrogates(parameters), headers=headers))


@SETTINGS
@given(route=WITH_ID, video_id=IDS, parameters=PARAMETERS, headers=HEADERS)
def test_any_id(
    client: Any, route: str, video_id: str, parameters: list[tuple[str, str]], headers: dict[str, str]
) -> None:
    from urllib.parse import quote

    check(client.get(route + quote(video_id), params=without_surrogates(parameters), headers=headers))


@settings(SETTINGS, max_examples=30)
@given(
    body=st.binary(max_size=300),
    magic=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF"]),
)
def test_any_picture(client: Any, body: bytes, magic: bytes) -> None:
    check(client.post("/api/search", content=magic + body))


@settings(SETTINGS, max_examples=60)
@given(raw=st.binary(max_size=80))
def test_any_bytes_in_the_query_string(client: Any, raw: bytes) -> None:
    text = "".join(f"%{byte:02x}" if byte % 3 else chr(byte % 62 + 64) for byte in raw)
    check(client.get(f"/api/search?q={text}&{text}"))


def without_surrogates(parameters: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, text.encode("utf-8", "replace").decode()) for name, text in parameters]
