"""Nothing in, the words for where a video lies out: a file of its own, a part of a tar, an object of a remote store.

Places are small and can be pickled; whoever reads one opens it himself, in his own process: see `opening`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import stat
from typing import TypeAlias

# A user with a password, and what follows the path: signed URLs are keys. Neither belongs into messages and failures.
_SECRETS = re.compile(r"(?<=://)[^/@]*@|\?.*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file that fsspec reads.

    Attributes:
        url: such as s3://bucket/folder/clip.mp4, or https://...
        size: bytes; None where the listing did not say.
    """

    url: str
    size: int | None = None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return pathlib.PurePosixPath(str(self)).name

    def __str__(self) -> str:
        return _SECRETS.sub("", self.url)


@dataclasses.dataclass(frozen=True)
class TarMember:
    """A file in an uncompressed tar, read in place.

    Attributes:
        tar: the tar.
        member: its name in the tar.
        offset: where its bytes begin in the tar.
        size: bytes.
    """

    tar: pathlib.Path | RemoteFile
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The last part of its name."""
        return pathlib.PurePosixPath(self.member).name

    def __str__(self) -> str:
        return f"{self.tar}/{self.member}"


Place: TypeAlias = pathlib.Path | TarMember | RemoteFile


def size_bytes(place: Place) -> int:
    """Bytes of the file; 0 where nobody knows, it is gone, or no ordinary file: whoever opens it will say so."""
    if not isinstance(place, pathlib.Path):
        return place.size or 0
    try:
        found = place.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def is_url(text: str) -> bool:
    """Whether a text names a remote place: `scheme://...`."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.isascii() and scheme[:1].isalpha() and all(c.isalnum() or c in "+-." for c in scheme)
