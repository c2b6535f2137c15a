"""Downloads from a server on the loopback that resumes, ignores ranges, breaks off, or sends something else."""

import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator

import pytest
from gridclip import GridClipError
from gridclip.export import download

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()
CHECKSUM = download.Checksum("SHA-256", SHA256)


class Server(http.server.ThreadingHTTPServer):
    """Sends `body`; `breaks` lists after how many bytes each of the first answers breaks off."""

    body = BODY
    ranges = True
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int] = []
        self.requests: list[str | None] = []
        self.hold: Callable[[], object] = lambda: None  # before each answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{SHA256}/clip.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        self.server.hold()
        self.close_connection = True
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        body, size = self.server.body, len(self.server.body)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        end = start + self.server.breaks.pop(0) if self.server.breaks else size
        self.wfile.write(body[start:end])

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE_S", 0)
    monkeypatch.setattr(download, "_BLOCK_BYTES", 1 << 16)


def test_whole_file_is_fetched_once(server, tmp_path):
    for _ in range(2):
        download.download_file(server.url, tmp_path / "a" / "clip.pt", CHECKSUM)
        assert (tmp_path / "a" / "clip.pt").read_bytes() == BODY
    assert server.requests == [None]
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["clip.pt"]


def test_of_several_that_want_a_file_one_fetches_it(server, tmp_path):
    begun, waits = threading.Event(), threading.Event()
    server.hold = lambda: (begun.set(), waits.wait(10))
    threads = [
        threading.Thread(target=download.download_file, args=(server.url, tmp_path / "clip.pt", CHECKSUM))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    waits.set()
    for thread in threads:
        thread.join()
    assert server.requests == [None] and [file.name for file in tmp_path.iterdir()] == ["clip.pt"]


def test_broken_connections_are_resumed(server, tmp_path):
    server.breaks = [300_000, 100_000, 0, 200_000]
    download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert (tmp_path / "clip.pt").read_bytes() == BODY
    assert server.requests == [None, "bytes=300000-", "bytes=400000-", "bytes=400000-", "bytes=600000-"]


def test_broken_run_is_resumed_by_the_next(server, tmp_path):
    server.breaks = [300_000, 0, 0, 0]
    with pytest.raises(GridClipError, match="after the 300000 bytes in .*clip.pt.part"):
        download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert not (tmp_path / "clip.pt").exists()
    download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert server.requests[-1] == "bytes=300000-"
    assert (tmp_path / "clip.pt").read_bytes() == BODY


def test_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "clip.pt.part").write_bytes(BODY[:1000])
    download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert server.requests == ["bytes=1000-"]
    assert (tmp_path / "clip.pt").read_bytes() == BODY


def test_whole_part_only_needs_its_checksum(server, tmp_path):
    (tmp_path / "clip.pt.part").write_bytes(BODY)
    download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert (tmp_path / "clip.pt").read_bytes() == BODY


def test_part_that_is_too_long_is_fetched_again(server, tmp_path):
    (tmp_path / "clip.pt.part").write_bytes(BODY + b"more")
    download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert (tmp_path / "clip.pt").read_bytes() == BODY


def test_wrong_content_is_an_error_and_removed(server, tmp_path):
    server.body = BODY[:-1] + b"x"
    with pytest.raises(GridClipError, match=f"instead of {SHA256} and was removed"):
        download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_is_fetched_again(server, tmp_path):
    (tmp_path / "clip.pt").write_bytes(b"damaged")
    download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert (tmp_path / "clip.pt").read_bytes() == BODY


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 3)])
def test_what_the_server_answers_is_told(server, tmp_path, status, requests):
    server.status = status
    with pytest.raises(GridClipError, match=f"the server answers {status}"):
        download.download_file(server.url, tmp_path / "clip.pt", CHECKSUM)
    assert len(server.requests) == requests


def test_without_a_network_the_way_out_is_told(tmp_path):
    with pytest.raises(GridClipError, match="fetch the file elsewhere and pass its path"):
        download.download_file("http://127.0.0.1:9/clip.pt", tmp_path / "clip.pt", CHECKSUM)


def test_unwritable_cache_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GridClipError, match="cannot write .*set GRIDCLIP_CACHE"):
        download.download_file(server.url, tmp_path / "file" / "clip.pt", CHECKSUM)


def test_names_download_to_the_cache_folder(server, tmp_path, monkeypatch):
    monkeypatch.setitem(download.MODELS, "ViT-L/14", server.url)
    assert download.download_openai("ViT-L/14", tmp_path) == tmp_path / "checkpoints" / "clip.pt"
    assert (tmp_path / "checkpoints" / "clip.pt").read_bytes() == BODY


def test_cache_folder_is_chosen_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("GRIDCLIP_CACHE", raising=False)
    assert download.cache_folder() == tmp_path / "xdg" / "gridclip"
    monkeypatch.setenv("GRIDCLIP_CACHE", str(tmp_path / "own"))
    assert download.cache_folder() == tmp_path / "own"
    assert download.cache_folder(tmp_path / "given") == tmp_path / "given"


def test_every_model_s_address_holds_its_checksum():
    assert set(download.MODELS) == {"ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"}
    for url in download.MODELS.values():
        assert re.fullmatch(r"https://openaipublic\.azureedge\.net/clip/models/[0-9a-f]{64}/ViT-[\w-]+\.pt", url)
