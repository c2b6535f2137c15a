"""Repositories of files in, a stand-in for the Hugging Face hub on the loopback out: what it tells and sends."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import re
import subprocess
import urllib.parse


@dataclasses.dataclass
class Repository:
    """The files of one commit by name; those in `large` are kept under their SHA-256, as the hub keeps weights."""

    files: dict[str, bytes]
    large: set[str] = dataclasses.field(default_factory=set)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def told(self, name: str) -> dict[str, object]:
        body = self.files[name]
        blob = subprocess.run(["git", "hash-object", "--stdin"], input=body, capture_output=True, check=True).stdout
        told: dict[str, object] = {"rfilename": name, "size": len(body), "blobId": blob.decode().strip()}
        if name in self.large:
            told["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
        return told


class Hub(http.server.ThreadingHTTPServer):
    """Every commit that a repository had is served; `sent` replaces what files have, `breaks` ends answers early."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, list[Repository]] = {}
        self.breaks: list[int] = []
        self.sent: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def push(self, name: str, repository: Repository) -> None:
        self.commits.setdefault(name, []).append(repository)

    def fetched(self) -> list[str]:
        """The names of the files that were asked for."""
        return [path.rpartition("/")[2] for path, _ in self.requests if path.startswith("/stored/")]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path, self.close_connection = urllib.parse.urlparse(self.path).path, True
        self.server.requests.append((path, self.headers.get("Range")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            self._tell(found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            # The hub sends files from another place.
            self._answer(302, b"", Location=f"{self.server.url}/stored/{found[1]}/{found[2]}/{found[3]}")
        elif found := re.fullmatch(r"/stored/([^/]+/[^/]+)/(\w+)/(.+)", path):
            self._send(*found.groups())
        else:
            self._answer(404, b"")

    def _tell(self, name: str) -> None:
        if name not in self.server.commits:
            self._answer(404, b"", **{"X-Error-Code": "RepoNotFound"})
            return
        newest = self.server.commits[name][-1]
        told = {"id": name, "sha": newest.sha, "siblings": [newest.told(file) for file in newest.files]}
        self._answer(200, json.dumps(told).encode())

    def _send(self, name: str, sha: str, file: str) -> None:
        (commit,) = [each for each in self.server.commits[name] if each.sha == sha]
        body = self.server.sent.get(file, commit.files[file])
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        part = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if wanted else {}
        self._answer(206 if wanted else 200, body[start:], **part)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.breaks.pop(0) if body and self.server.breaks and "/stored/" in self.path else len(body)
        self.wfile.write(body[:cut])

    def log_message(self, *_args: object) -> None:
        pass
