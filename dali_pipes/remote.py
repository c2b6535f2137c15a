"""A URL in, its files and ranges of their bytes out, by fsspec: with patience for services that are slow or refuse.

Credentials are those that the service's own client finds (environment, files, roles); other settings are fsspec's, such
as FSSPEC_S3_ENDPOINT_URL or ~/.config/fsspec/*.json. fsspec is imported when a URL is used (extra `remote`), and each
process has its own connections.
"""

from __future__ import annotations

import errno
import functools
import logging
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import GridClipError
from .places import RemoteFile
from .read_ahead import FIRST_BYTES, ReadFailed

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Between the tries of a request, seconds, each up to half as long again, so that many workers do not come back at once.
# fsspec's own clients try again, too, some within one of these tries.
WAITS_S = (0.5, 2.0, 8.0)
# After so long a try counts as failed: 4 MiB in it are 140 KiB/s, 256 KiB, which are asked for then, 9 KiB/s.
TRY_LIMIT_S = 30.0
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_IN_EXTRA = ("s3fs", "aiohttp")  # which s3fs needs, too


def require(url: str) -> None:
    """Raises GridClipError where what reads such a URL is not installed, or nobody knows its scheme."""
    _file_system(url)


class _Final(Exception):
    """Another try of a request will not help."""


def listed(url: str) -> dict[str, RemoteFile]:
    """All files below a URL, of any kind, by their paths below it; none where there is nothing.

    Raises:
        GridClipError: it cannot be listed: a package, the bucket, the rights or the connection is missing. One sentence
            says which.
    """
    file_system, path = _file_system(url)
    try:
        found = _patiently(lambda: file_system.find(path, detail=True), url)
        if not found and not _patiently(lambda: file_system.exists(path), url):
            raise GridClipError(f"`video_dir` {url} does not exist")
    except ReadFailed as error:
        raise GridClipError(f"`video_dir` {url} cannot be listed: {error.strerror}") from error
    root = path.rstrip("/") + "/"
    return {
        name[len(root) :]: RemoteFile(file_system.unstrip_protocol(name), info.get("size"))
        for name, info in sorted(found.items())
        if info.get("type", "file") == "file" and name.startswith(root) and name != root
    }


def size_of(file: RemoteFile) -> int:
    """Bytes of a file; raises ReadFailed."""
    if file.size is not None:
        return file.size
    file_system, path = _file_system(file.url)
    size = _patiently(lambda: file_system.info(path), file.url).get("size")
    if size is None:
        raise ReadFailed(errno.EINVAL, "the server does not say how large it is, and so not where to read")
    return int(size)


def fetch(file: RemoteFile, start: int, stop: int) -> bytes:
    """These bytes of a file, or some from `start` on where all of them at once fail; raises ReadFailed."""
    file_system, path = _file_system(file.url)
    wanted = stop

    def once() -> bytes:
        nonlocal wanted
        asked, wanted = wanted, min(wanted, start + FIRST_BYTES)
        data: bytes = _cat(file_system, path, start, asked)
        if len(data) > asked - start:
            raise _Final(f"{len(data):,} bytes came for {asked - start:,}: the server does not give parts of files")
        if len(data) < asked - start:
            raise ReadFailed(errno.EIO, f"cut off: {len(data):,} of {asked - start:,} bytes came")
        return data

    return _patiently(once, file.url)


def read(file: RemoteFile) -> bytes:
    """All of a file, a small one; raises ReadFailed."""
    return fetch(file, 0, size_of(file)) if size_of(file) else b""


def _cat(file_system: Any, path: str, start: int, stop: int) -> bytes:
    """A range of a file, within TRY_LIMIT_S where the file system can be told."""
    data: bytes
    if getattr(file_system, "async_impl", False):
        from fsspec.asyn import sync

        # The public cat_file has no time limit.
        data = sync(file_system.loop, file_system._cat_file, path, start=start, end=stop, timeout=TRY_LIMIT_S)
    else:
        data = file_system.cat_file(path, start=start, end=stop)
    return data


def _patiently(request: Callable[[], T], url: str) -> T:
    """What a request gives, at its first try or a later one; raises ReadFailed, whose message has no place."""
    for wait_s in (*WAITS_S, None):
        try:
            return request()
        except FileNotFoundError as error:
            raise ReadFailed(errno.ENOENT, "no such file, folder or bucket") from error
        except PermissionError as error:
            raise ReadFailed(errno.EACCES, f"permission denied ({_sentence(error)})") from error
        except _Final as error:
            raise ReadFailed(errno.EINVAL, str(error)) from error
        except Exception as error:
            problem = _sentence(error)
            if type(error).__name__ == "NoCredentialsError":
                raise ReadFailed(errno.EACCES, f"there are no credentials for it: {problem}") from error
            if wait_s is None:
                raise ReadFailed(errno.EIO, f"{problem} ({len(WAITS_S) + 1} tries)") from error
            logger.info("%s: %s; another try follows", url, problem)
            time.sleep(wait_s * random.uniform(1, 1.5))
    raise AssertionError("the last try returns or raises")


def _sentence(error: Exception) -> str:
    """What an error says, in one line; services say much, and some errors nothing but their name."""
    if type(error).__name__ in ("FSTimeoutError", "TimeoutError"):
        return f"nothing came for {TRY_LIMIT_S:g} s"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return re.sub(r"\s+", " ", text).strip()[:200] or type(error).__name__


@functools.cache
def _connected(scheme: str, host: str) -> Any:
    """The file system of a scheme, and for http of a host: made once in a process."""
    import fsspec

    return fsspec.filesystem(scheme)


def _file_system(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the URL's path in it).

    Raises:
        GridClipError: fsspec or the service's package is not installed, or nobody knows the scheme.
    """
    scheme, _, rest = url.partition("://")
    package = _PACKAGES.get(scheme, "fsspec")
    try:
        file_system = _connected(scheme, rest.partition("/")[0])
    except ImportError as error:
        missing = error.name or package
        in_extra = missing in ("fsspec", *_IN_EXTRA)
        told = "in the clone of the repository, pip install '.[remote]'" if in_extra else f"pip install {package}"
        raise GridClipError(f"{url} needs {package}, which is not installed: {told}") from error
    except ValueError as error:
        expected = "expected s3, gs, hf, http or https"
        raise GridClipError(f"{url}: {scheme}:// is unknown ({_sentence(error)}): {expected}") from error
    return file_system, file_system._strip_protocol(url)
