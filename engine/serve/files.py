"""A video's file or a finished clip in, an answer with byte ranges out."""

from __future__ import annotations

import os
import pathlib
import re

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from .orders import Made
from .refusal import NOT_FOUND, Refusal

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


def file_response(path: pathlib.Path) -> Response:
    """The file as it is; raises Refusal where it cannot be read."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
    except OSError as error:
        raise Refusal(NOT_FOUND, "the file of this video is gone, or cannot be read") from error
    return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix.lower(), OTHER_TYPE), stat_result=found)


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
    first, end = span
    if first >= end:
        return Response(b"", 416, headers | {"content-range": f"bytes */{len(made.data)}"}, made.media_type)
    headers["content-range"] = f"bytes {first}-{end - 1}/{len(made.data)}"
    return Response(made.data[first:end], 206, headers, made.media_type)


def _range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last; empty where none of them is there, None: all are asked for."""
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    first, last = int(found[1]), int(found[2] or size - 1)
    return None if found[2] and last < first else (first, min(size, last + 1))
