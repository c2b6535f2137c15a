"""Who is let in: this machine's own pages; with a token whoever knows it; nobody's page from elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from gridclip import ArgumentError
from gridclip.engine.serve.addresses import check_host, is_loopback

pytest.importorskip("starlette")
from gridclip.engine.serve.guard import POLICY

TOKEN = "0123456789abcdef-_XYZ"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "127.9.9.9"]
)
def test_this_machines_names_are_let_in(client: Any, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8000", "192.168.1.7", "", "[::2]", "127.0.0.1.nip.io"],
)
def test_another_host_is_refused(client: Any, host: str) -> None:
    for route in ("/", "/api/search?q=a", "/media/first", "/metrics"):
        response = client.get(route, headers={"Host": host})
        assert response.status_code == 400, route
        assert "Host header" in response.json()["error"]


def test_another_sites_page_is_refused(client: Any) -> None:
    assert client.get("/api/info", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get("/api/info", headers={"Origin": "null"}).status_code == 403
    assert client.get("/api/info", headers={"Origin": "http://localhost:8000"}).status_code == 200
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert client.get("/api/frame/first", headers=embedded).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/?q=a", headers=link).status_code == 200


def test_every_answer_has_the_safe_headers(client: Any) -> None:
    for route in ("/", "/page.js", "/api/search?q=a", "/api/search", "/media/first", "/nowhere", "/api/frame/first"):
        headers = client.get(route).headers
        assert headers["content-security-policy"] == POLICY, route
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "'unsafe" not in POLICY and "default-src 'none'" in POLICY


@pytest.fixture
def locked(service: Any) -> Any:
    from starlette.testclient import TestClient

    application = service.application(local=False, token=TOKEN)
    return TestClient(application, base_url="http://videos.example:8000", follow_redirects=False)


def test_a_token_opens_the_page_and_leaves_the_address(locked: Any) -> None:
    assert locked.get("/").status_code == 401
    assert locked.get(f"/?token={TOKEN}x").status_code == 401
    assert locked.get(f"/api/info?token={TOKEN}").status_code == 401, "a token in an address is for the page only"
    opened = locked.get(f"/?q=a+b&token={TOKEN}")
    assert opened.status_code == 303 and opened.headers["location"] == "/?q=a+b"
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert locked.get("/").status_code == 200
    locked.cookies.clear()
    assert locked.get("/page.js").status_code == 401
    assert locked.get("/page.js", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert locked.get("/page.js", headers={"Authorization": "Bearer \u00e9".encode("latin-1")}).status_code == 401
    assert locked.get("/healthz").status_code == 200


def test_which_addresses_are_this_machines_only() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "", "localhost.example"]))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "videos.example"])
def test_another_host_needs_a_token(host: str) -> None:
    with pytest.raises(ArgumentError, match="`token`"):
        check_host(host, None)
    check_host(host, TOKEN)


@pytest.mark.parametrize("token", ["", "short", "with spaces in it, long enough", "ä" * 20, "x" * 201])
def test_a_token_that_is_too_easy_or_no_cookie(token: str) -> None:
    with pytest.raises(ArgumentError, match="`token` has"):
        check_host("127.0.0.1", token)
