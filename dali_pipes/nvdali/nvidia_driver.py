"""The NVIDIA driver in, what it says of this machine out: the first GPU, and what a GPU's decoder (NVDEC) takes."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ... import GridClipError

# FFmpeg's names of codecs, and cudaVideoCodec's numbers (cuviddec.h of NVIDIA's Video Codec SDK, which DALI ships).
_CODEC_NUMBERS = {"mpeg4": 2, "h264": 4, "mjpeg": 5, "hevc": 8, "vp8": 9, "vp9": 10, "av1": 11}
_CHROMA_420 = 1
_MACROBLOCK_PX = 16


@dataclasses.dataclass(frozen=True)
class DecoderLimits:
    """The pictures of one codec, 8 bits and 4:2:0, that a GPU's video decoder takes.

    Attributes:
        min_width, min_height, max_width, max_height: in pixels.
        max_macroblocks: of 16 x 16 pixels in a picture.
    """

    min_width: int
    min_height: int
    max_width: int
    max_height: int
    max_macroblocks: int

    def takes(self, width: int, height: int) -> bool:
        """Whether pictures of this size are within the limits."""
        macroblocks = -(-width // _MACROBLOCK_PX) * -(-height // _MACROBLOCK_PX)
        return (
            self.min_width <= width <= self.max_width
            and self.min_height <= height <= self.max_height
            and macroblocks <= self.max_macroblocks
        )


class DecoderCaps(ctypes.Structure):
    """CUVIDDECODECAPS: the caller fills the first three fields, the driver those from bIsSupported on."""

    _fields_ = [
        ("eCodecType", ctypes.c_int),
        ("eChromaFormat", ctypes.c_int),
        ("nBitDepthMinus8", ctypes.c_uint),
        ("reserved1", ctypes.c_uint * 3),
        ("bIsSupported", ctypes.c_ubyte),
        ("nNumNVDECs", ctypes.c_ubyte),
        ("nOutputFormatMask", ctypes.c_ushort),
        ("nMaxWidth", ctypes.c_uint),
        ("nMaxHeight", ctypes.c_uint),
        ("nMaxMBCount", ctypes.c_uint),
        ("nMinWidth", ctypes.c_ushort),
        ("nMinHeight", ctypes.c_ushort),
        ("bIsHistogramSupported", ctypes.c_ubyte),
        ("nCounterBitDepth", ctypes.c_ubyte),
        ("nMaxHistogramBins", ctypes.c_ushort),
        ("reserved3", ctypes.c_uint * 10),
    ]


def first_gpu() -> int | None:
    """The GPU that a job takes which was told of none; None where the driver shows no GPU."""
    driver = _library("libcuda.so.1")
    if driver is None:
        return None
    count = ctypes.c_int()
    shows = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return 0 if shows else None


def decoder_limits(device_id: int) -> Mapping[str, DecoderLimits]:
    """What the video decoder of a GPU takes, by FFmpeg's name of the codec; a codec that it does not decode is missing.

    Raises:
        GridClipError: the driver does not answer.
    """
    answers = ask_decoder(device_id, [(codec, 8) for codec in _CODEC_NUMBERS])
    return {
        codec: DecoderLimits(caps.nMinWidth, caps.nMinHeight, caps.nMaxWidth, caps.nMaxHeight, caps.nMaxMBCount)
        for (codec, _), caps in answers.items()
        if caps.bIsSupported
    }


def ask_decoder(device_id: int, formats: Iterable[tuple[str, int]]) -> dict[tuple[str, int], DecoderCaps]:
    """What the driver answers for each format, a codec by FFmpeg's name and bits per sample, all of them 4:2:0.

    Raises:
        GridClipError: the driver does not answer.
    """
    decoder = _library("libnvcuvid.so.1")
    if decoder is None:
        raise GridClipError(
            'the driver\'s video decoder, libnvcuvid.so.1, is missing: a container needs the capability "video" '
            "(NVIDIA_DRIVER_CAPABILITIES=all), or use `decoder='pyav'`"
        )
    answers = {}
    with _context(device_id):
        for codec, bits in formats:
            caps = DecoderCaps(eCodecType=_CODEC_NUMBERS[codec], eChromaFormat=_CHROMA_420, nBitDepthMinus8=bits - 8)
            _succeed("cuvidGetDecoderCaps", decoder.cuvidGetDecoderCaps(ctypes.byref(caps)))
            answers[codec, bits] = caps
    return answers


@contextlib.contextmanager
def _context(device_id: int) -> Iterator[None]:
    """The GPU's primary context, the one that torch and DALI use, made current for a while."""
    driver = _library("libcuda.so.1")
    if driver is None:
        raise GridClipError("no NVIDIA driver: libcuda.so.1 cannot be loaded")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _succeed("cuInit", driver.cuInit(0))
    _succeed("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), device_id))
    _succeed("cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    try:
        _succeed("cuCtxPushCurrent", driver.cuCtxPushCurrent_v2(context))
        try:
            yield
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)


def _succeed(function: str, result: int) -> None:
    if result:
        raise GridClipError(f"NVIDIA's driver: {function} ends with error {result}; see `gridclip doctor`")


def _library(name: str) -> Any | None:
    """A library of the driver; None where it cannot be loaded."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
