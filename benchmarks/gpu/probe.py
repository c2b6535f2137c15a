"""This machine in; driver, NVDEC and what it decodes, providers: what the GPU path finds there, out. Step 0."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

from gridclip import GridClipError
from gridclip.dali_pipes.nvdali import nvidia_driver, self_test, sources
from gridclip.engine.encoding import providers

from . import nvidia_smi
from .checks import Check, judged, measured, not_possible
from .plans import Work

# Codec, bits per sample; all 4:2:0.
FORMATS = (("h264", 8), ("hevc", 8), ("hevc", 10), ("av1", 8), ("av1", 10), ("vp8", 8), ("vp9", 8), ("mjpeg", 8))
NVJPEG = ("libnvjpeg.so.13", "libnvjpeg.so.12", "libnvjpeg.so")
NO_CARD = "no NVIDIA driver shows a GPU on this machine"


def run(work: Work) -> Iterator[Check]:
    """NVDEC's library first: without it nothing else of the video path can be measured."""
    if work.place.device_id is None:
        for name in ("NVDEC library", "decoder capabilities", "NVJPEG library", "nvidia-smi"):
            yield not_possible(name, NO_CARD)
    else:
        yield from _card(work.place.device_id)
    available = providers.available_providers()
    wanted = providers.EXECUTION_PROVIDERS[work.place.providers[0]]
    yield judged("ONNX Runtime", wanted in available, ", ".join(available), providers=available)
    yield _attempt("DALI's self-test", lambda: _self_test(work.place.device_id))


def _card(device_id: int) -> Iterator[Check]:
    yield _attempt(
        "NVDEC library", lambda: f"libnvcuvid.so.1 answers: {', '.join(nvidia_driver.decoder_limits(device_id))}"
    )
    try:
        caps = nvidia_driver.ask_decoder(device_id, FORMATS)
    except GridClipError as error:
        yield judged("decoder capabilities", False, str(error))
    else:
        engines = max((caps_of.nNumNVDECs for caps_of in caps.values()), default=0)
        told = {
            f"{codec} {bits} bit": {"engines": found.nNumNVDECs, "max": [found.nMaxWidth, found.nMaxHeight]}
            for (codec, bits), found in caps.items()
            if found.bIsSupported
        }
        right = "h264 8 bit" in told and "hevc 8 bit" in told
        yield judged(
            "decoder capabilities", right, f"{engines} engines; {', '.join(told)}", engines=engines, formats=told
        )
    found = next(filter(_loads, NVJPEG), None)
    yield measured("NVJPEG library", found or "not found by its name: DALI brings its own")
    try:
        described = nvidia_smi.describe(device_id)
    except GridClipError as error:
        yield judged("nvidia-smi", False, str(error))
    else:
        yield measured("nvidia-smi", f"{described['name']}, driver {described['driver_version']}", **described)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _self_test(device_id: int | None) -> str:
    if reason := sources.why_not():
        raise GridClipError(reason)
    self_test.check_device(device_id)
    return f"DALI on the {'CPU' if device_id is None else 'GPU'} decodes the test files"


def _attempt(name: str, tell: Callable[[], str]) -> Check:
    try:
        return judged(name, True, tell())
    except GridClipError as error:
        return judged(name, False, str(error))


def engines(work: Work) -> int | None:
    """How many NVDEC engines decode H.264 here; None without a card, or where the driver does not tell."""
    if work.place.device_id is None:
        return None
    found = nvidia_driver.ask_decoder(work.place.device_id, [("h264", 8)])["h264", 8]
    return found.nNumNVDECs or None
