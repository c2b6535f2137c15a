"""The bytes of a JPEG file in, its pixels out: jpeg4py (libjpeg-turbo), or Pillow where that is missing or crashed."""

from __future__ import annotations

import functools
import io
import logging
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)

LIBRARY_VARIABLE = "GRIDCLIP_LIBTURBOJPEG"
MAX_PIXELS = 1 << 26  # a damaged header can ask for 65,535 x 65,535; super images have some hundred pixels a side

# The bytes of a file in, uint8 [H, W, 3], RGB out; raises JpegError.
Decode = Callable[[bytes], np.ndarray]


class JpegError(ValueError):
    """A file is no JPEG image, is cut off or damaged, or has more than MAX_PIXELS."""


def decode(data: bytes) -> np.ndarray:
    """The pixels of a JPEG file, uint8 [H, W, 3], RGB, by the fastest decoder of this machine.

    Raises:
        JpegError: the file is empty, cut off, damaged or too large.
    """
    return decode_with_pillow(data) if turbojpeg_library() is None else _decode_with_jpeg4py(data)


def decode_with_pillow(data: bytes) -> np.ndarray:
    """The same by Pillow, whose own libjpeg-turbo gives the same pixels at two thirds of the speed."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            _check_size(*image.size)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise JpegError(str(error)) from error


def pixel_count(data: bytes) -> int | None:
    """Width x height of a JPEG file that begins and ends as one does, at most MAX_PIXELS; else None."""
    if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-64:]:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:  # reads the header only
            _check_size(*image.size)
            return image.width * image.height
    except (JpegError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _decode_with_jpeg4py(data: bytes) -> np.ndarray:
    """Decodes with jpeg4py, around a defect of it that writes outside of its memory.

    jpeg4py keeps a libjpeg-turbo decompressor for the next image even after an error. One that failed in a header
    stays in the middle of that header (tjDecompressHeader2 does not reset it, tjDecompress2 does): asked for the next
    image's header it reports success and a size of 0 x 0, which jpeg4py does not check. It makes an array of no bytes,
    and passes the width 0 on to tjDecompress2, for which 0 means the file's own width: the whole image is written over
    the heap. So: a decompressor that has failed is destroyed and never used again, and a size of 0 goes no further
    (a file that ends before its first picture gives it, too). All that is decoded then has the size of its array.
    """
    import jpeg4py

    if not data:
        raise JpegError("empty file")
    image = jpeg4py.JPEG(np.frombuffer(data, np.uint8))
    try:
        image.parse_header()
        _check_size(image.width, image.height)
        pixels: np.ndarray = image.decode()
        return pixels
    except BaseException as error:
        if image.decompressor is not None:
            image.decompressor.release()
            image.decompressor = None  # else jpeg4py puts it back among those that wait for an image
        if isinstance(error, jpeg4py.JPEGRuntimeError):
            raise JpegError(str(error)) from error
        raise


def _check_size(width_px: int, height_px: int) -> None:
    if not (width_px > 0 and height_px > 0):
        raise JpegError("it ends before its picture")
    if width_px * height_px > MAX_PIXELS:
        raise JpegError(f"{width_px} x {height_px} pixels, expected at most {MAX_PIXELS:,}: make it smaller")


@functools.cache
def turbojpeg_library() -> str | None:
    """The libturbojpeg that jpeg4py has loaded: from $GRIDCLIP_LIBTURBOJPEG, the virtual environment, or the system."""
    try:
        import jpeg4py._cffi
    except ImportError:
        return None
    own = pathlib.Path(sys.prefix) / "lib"
    names = [os.environ.get(LIBRARY_VARIABLE), own / "libturbojpeg.so.0", own / "libturbojpeg.dylib"]
    for name in [*filter(None, names), "libturbojpeg.so.0", "libturbojpeg.so", "libturbojpeg.dylib", "turbojpeg.dll"]:
        try:
            jpeg4py._cffi.initialize(backends=(str(name),))
        except OSError:
            continue
        return str(name)
    return None


def warn_without_turbojpeg() -> None:
    """One warning where super images will be read with Pillow; for the process that starts the reading ones."""
    if turbojpeg_library() is None:
        logger.warning(
            "libturbojpeg or jpeg4py is missing: JPEG files are read with Pillow, which is slower; install "
            "libturbojpeg, or name its file in %s",
            LIBRARY_VARIABLE,
        )
