"""A real S3 server on loopback (moto), behind a proxy that delays, cuts off and refuses reads as it is told."""

from __future__ import annotations

import collections
import contextlib
import http.client
import http.server
import logging
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Literal

import pytest

BUCKET = "videos"
Fault = Literal["delay", "cut", "refuse", "drop", "forbid"]


class FaultyStore:
    """Attributes tell and change how the reads of objects go; listing always works.

    Attributes:
        url: of the proxy.
        always: what every read suffers.
        forbidden: what is in the keys of which no byte is given.
        faults: what the next reads suffer, one after the other; None is nothing.
        delay_s: how long a delayed read takes.
        reads: (path, bytes sent) of each read.
    """

    def __init__(self, behind: tuple[str, int]) -> None:
        self.behind = behind
        self.url = ""
        self.always: Fault | None = None
        self.forbidden: str | None = None
        self.faults: collections.deque[Fault | None] = collections.deque()
        self.delay_s = 0.0
        self.reads: list[tuple[str, int]] = []

    @property
    def bytes_read(self) -> int:
        """Of all reads."""
        return sum(size for _, size in self.reads)

    def put(self, key: str, data: bytes) -> None:
        """Stores an object."""
        self.request("PUT", f"/{BUCKET}/{key}", data)

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Asks the server itself."""
        connection = http.client.HTTPConnection(*self.behind)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()


def _handler(store: FaultyStore) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fault = None
            if "Range" in self.headers:
                fault = store.always or (store.faults.popleft() if store.faults else None)
                if store.forbidden and store.forbidden in self.path:
                    fault = "forbid"
            if fault == "drop":
                self.close_connection = True
                self.connection.close()
                return
            if fault in ("refuse", "forbid"):
                self._answer(503 if fault == "refuse" else 403, {}, b"")
                return
            if fault == "delay":
                time.sleep(store.delay_s)
            self._forward(cut=fault == "cut")

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - the base class's names

        def _forward(self, *, cut: bool) -> None:
            connection = http.client.HTTPConnection(*store.behind)
            with contextlib.closing(connection):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
            if self.command != "HEAD":
                headers["Content-Length"] = str(len(data))
            if cut:
                data = data[: len(data) // 2]
                self.close_connection = True
            if "Range" in self.headers:
                store.reads.append((self.path, len(data)))
            self._answer(answer.status, headers, data)

        def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The store with an empty bucket, and the environment that leads to it; fsspec forgets other stores."""
    import s3fs
    from gridclip.dali_pipes import remote
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it tells of every request
    server.start()
    store = FaultyStore(server.get_host_and_port())
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(store))
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    store.url = f"http://127.0.0.1:{proxy.server_port}"
    environment = {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    remote._connected.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    store.request("POST", "/moto-api/reset")
    store.request("PUT", f"/{BUCKET}")
    try:
        yield store
    finally:
        remote._connected.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.shutdown()
        proxy.server_close()
        server.stop()


def put_folder(store: FaultyStore, folder: pathlib.Path, prefix: str) -> None:
    """Stores the files of a folder below a prefix."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
