"""A video's file, its place in a tar or at a URL, or a finished clip in, an answer with byte ranges out."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from ...dali_pipes import opening
from ...dali_pipes.errors import GridClipError
from ...dali_pipes.places import Place
from ...dali_pipes.read_ahead import MOST_BYTES, ReadFailed
from .orders import Made
from .refusal import NOT_FOUND, Refusal

logger = logging.getLogger(__name__)

# What browsers are told; never a type that they would run. The others they would not play anyway.
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # the same container; Chromium asks no further for video/quicktime
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ogv": "video/ogg",
}
OTHER_TYPE = "application/octet-stream"

Span: TypeAlias = tuple[int, int]  # the first byte and the one behind the last


def file_response(path: pathlib.Path) -> Response:
    """The file as it is; raises Refusal where it cannot be read."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
    except OSError as error:
        raise Refusal(NOT_FOUND, "the file of this video is gone, or cannot be read") from error
    return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix.lower(), OTHER_TYPE), stat_result=found)


async def placed_response(request: Request, place: Place) -> Response:
    """A video that is no file of its own, or the beginning of the range that the request names.

    At most `MOST_BYTES` of a range are sent, as RFC 9110 allows: players ask on, and nothing is fetched that a player
    does not come to. Raises Refusal where it cannot be read.
    """
    size, span, data = await asyncio.to_thread(_read, place, request.headers.get("range", ""))
    media_type = MEDIA_TYPES.get(pathlib.PurePosixPath(place.name).suffix.lower(), OTHER_TYPE)
    headers = {"accept-ranges": "bytes", "cache-control": "private, no-cache"}
    if span is None:
        return _Parts(place, size, headers, media_type)
    return _part(data, span[0], size, headers, media_type)


class _Parts(Response):
    """All of a place, part after part; where one cannot be read the connection is cut: nobody takes that for all."""

    def __init__(self, place: Place, size: int, headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(None, 200, {**headers, "content-length": f"{size}"}, media_type)
        self._place, self._size = place, size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for first in range(0, self._size if scope["method"] == "GET" else 0, MOST_BYTES):
            try:
                _, _, data = await asyncio.to_thread(_read, self._place, f"bytes={first}-")
            except Refusal as error:
                logger.warning("%s: cut off after %d bytes: %s", self._place, first, error)
                return
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _read(place: Place, header: str) -> tuple[int, Span | None, bytes]:
    """The size of a place, the range that a Range header names (see `_range`), and the first bytes of that.

    Where it names none, the first byte of all: raises Refusal, so that what cannot be read is refused before an answer
    begins.
    """
    try:
        with opening.seekable(place) as file:
            span = _range(header, file.size)
            first, end = span or (0, 1)
            return file.size, span, file.read_range(first, min(end, first + MOST_BYTES))
    except (ReadFailed, GridClipError) as error:
        logger.info("%s cannot be read: %s", place, error)
        raise Refusal(NOT_FOUND, "the file of this video is gone, or cannot be read") from error


def made_response(request: Request, made: Made, *, name: str | None = None) -> Response:
    """What was made, or the one range of it that the request names.

    Args:
        request: whose Range header counts; several ranges are answered with the whole, as RFC 9110 allows.
        made: a picture or a clip.
        name: of the file that a browser is to save; None: it is to be shown.
    """
    headers = {"accept-ranges": "bytes", "cache-control": "private, max-age=3600"}
    if name is not None:
        headers["content-disposition"] = f'attachment; filename="{name}"'
    span = _range(request.headers.get("range", ""), len(made.data))
    if span is None:
        return Response(made.data, 200, headers, made.media_type)
    return _part(made.data[slice(*span)], span[0], len(made.data), headers, made.media_type)


def _part(data: bytes, first: int, size: int, headers: Mapping[str, str], media_type: str) -> Response:
    """Bytes from `first` on of so many; where there are none, that the range cannot be satisfied."""
    if not data:
        return Response(b"", 416, {**headers, "content-range": f"bytes */{size}"}, media_type)
    told = {**headers, "content-range": f"bytes {first}-{first + len(data) - 1}/{size}"}
    return Response(data, 206, told, media_type)


def _range(header: str, size: int) -> Span | None:
    """First byte and the one behind the last; empty where none of them is there, None: all are asked for."""
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    first, last = int(found[1]), int(found[2] or size - 1)
    return None if found[2] and last < first else (first, min(size, last + 1))
