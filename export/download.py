"""An address and a checksum in, the file of both out: fetched into the cache folder, and held to its checksum there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import logging
import os
import pathlib
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from .. import GridClipError, __version__

logger = logging.getLogger(__name__)

_ADDRESS = "https://openaipublic.azureedge.net/clip/models"
# The part of the address before the file's name is the file's SHA-256.
MODELS = {
    "ViT-B/32": f"{_ADDRESS}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "ViT-B/16": f"{_ADDRESS}/5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
    "ViT-L/14": f"{_ADDRESS}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "ViT-L/14@336px": f"{_ADDRESS}/3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
}

_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
# Attempts in a row that bring no new byte before giving up; an attempt that does starts the count again.
_FRUITLESS_ATTEMPTS = 3
_PAUSE_S = 1.0


def cache_folder(cache_dir: pathlib.Path | None = None) -> pathlib.Path:
    """Where downloads and exported models are kept: `cache_dir`, $GRIDCLIP_CACHE, or the user's cache folder."""
    if cache_dir is not None:
        return cache_dir
    if own := os.environ.get("GRIDCLIP_CACHE"):
        return pathlib.Path(own).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gridclip"


@dataclasses.dataclass(frozen=True)
class Checksum:
    """What a file must have.

    Attributes:
        kind: a key of CHECKSUMS.
        value: in hexadecimal.
    """

    kind: str
    value: str

    def of(self, path: pathlib.Path) -> str:
        """The checksum of this kind that a file has."""
        return CHECKSUMS[self.kind](path)


def download_openai(name: str, cache_dir: pathlib.Path | None = None) -> pathlib.Path:
    """Download one of MODELS unless the cache folder has it already.

    Raises:
        GridClipError: the download failed, or what came does not have the right SHA-256.
    """
    url = MODELS[name]
    sha256, file = url.split("/")[-2:]
    target = cache_folder(cache_dir) / "checkpoints" / file
    download_file(url, target, Checksum("SHA-256", sha256))
    return target


def download_file(url: str, target: pathlib.Path, checksum: Checksum) -> None:
    """Fetch `url` to `target`, going on where a broken download ended.

    The file grows as `target` + ".part" and gets its name only once its checksum is right, so whatever has the name is
    whole. A `target` that is there already is checked, and fetched again when it is damaged. Of several processes that
    want it at once, one fetches it.

    Raises:
        GridClipError: the network or the server fails, the checksum is another one, or the file cannot be written.
    """
    if _is_whole(target, checksum):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _held(target.with_name(target.name + ".lock")):
            if not _is_whole(target, checksum):
                _replace(url, target, checksum)
    except OSError as error:
        raise GridClipError(f"cannot write {target}: {error}; free some space or set GRIDCLIP_CACHE") from error


def _is_whole(target: pathlib.Path, checksum: Checksum) -> bool:
    return target.is_file() and checksum.of(target) == checksum.value


def _replace(url: str, target: pathlib.Path, checksum: Checksum) -> None:
    if target.exists():
        logger.warning("%s is damaged: fetching it again", target)
        target.unlink()
    part = target.with_name(target.name + ".part")
    _fetch(url, part)
    found = checksum.of(part)
    if found != checksum.value:
        part.unlink()
        raise GridClipError(
            f"{url}: the download has {checksum.kind} {found} instead of {checksum.value} and was removed; run the "
            "command again, or fetch the file elsewhere and pass its path"
        )
    part.replace(target)


@contextlib.contextmanager
def _held(path: pathlib.Path) -> Iterator[None]:
    """Hold a lock file, which is there only as long; a process that dies lets go of it."""
    while True:
        with open(path, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever held it before may have removed it meanwhile, and somebody else made another of its name.
            if not (path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def file_sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return _digest(path, hashlib.sha256())


def git_blob(path: pathlib.Path) -> str:
    """The name that git gives the content of a file: SHA-1 of "blob", its length in bytes, a zero byte and itself."""
    return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _digest(path: pathlib.Path, digest: hashlib._Hash) -> str:
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


CHECKSUMS: dict[str, Callable[[pathlib.Path], str]] = {"SHA-256": file_sha256, "git blob": git_blob}


def _fetch(url: str, part: pathlib.Path) -> None:
    """Append to `part` until it is as long as the server says."""
    fruitless = 0
    with _progress(part.name.removesuffix(".part")) as report:
        while True:
            had = part.stat().st_size if part.exists() else 0
            try:
                if _fetch_rest(url, part, report):
                    return
                reason = "the connection broke off"
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != 429:
                    raise GridClipError(
                        f"{url}: the server answers {error.code} {error.reason}; "
                        "fetch the file elsewhere and pass its path"
                    ) from None
                reason = f"the server answers {error.code}"
            except _NETWORK_ERRORS as error:
                reason = str(error)
            have = part.stat().st_size if part.exists() else 0
            fruitless = 0 if have > had else fruitless + 1
            if fruitless >= _FRUITLESS_ATTEMPTS:
                kept = f"; the next run goes on after the {have} bytes in {part}" if have else ""
                raise GridClipError(
                    f"cannot download {url}: {reason}{kept}. "
                    "Without a network, fetch the file elsewhere and pass its path"
                )
            logger.info("%s after %d bytes: trying again", reason, have)
            time.sleep(_PAUSE_S)


def _fetch_rest(url: str, part: pathlib.Path, report: Callable[[int, int | None], None]) -> bool:
    """One request for what is missing; True when the file is then complete."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"gridclip/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing lies beyond what we have. The checksum tells whether that is the whole file.
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return True
        part.unlink()
        return False
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not resumed:
            logger.info("the server cannot resume: starting %s again", part.name)
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(part, "ab" if resumed else "wb") as stream:
            while True:
                try:
                    block = response.read(_BLOCK_BYTES)
                except http.client.IncompleteRead as error:
                    stream.write(error.partial)
                    return False
                if not block:
                    break
                stream.write(block)
                have += len(block)
                report(have, total)
    return total is None or have >= total


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function to report (bytes so far, total) to: a bar on a terminal, a log line every 10% elsewhere."""
    if sys.stderr.isatty():
        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=None)
            yield lambda have, total: bar.update(task, completed=have, total=total)
        return
    tenth = -1

    def log(have: int, total: int | None) -> None:
        nonlocal tenth
        if total and have * 10 // total > tenth:
            tenth = have * 10 // total
            logger.info("%s: %d%% of %.0f MB", name, tenth * 10, total / 1e6)

    yield log
