"""NVDEC's limits, asked of stand-ins for NVIDIA's libraries, in NVIDIA's own layout."""

from __future__ import annotations

import ctypes
import importlib.util
import pathlib
import re

import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.nvdali import nvidia_driver
from gridclip.dali_pipes.nvdali.nvidia_driver import DecoderCaps, DecoderLimits

HEADER = "include/dali/operators/video/dynlink_nvcuvid/cuviddec.h"
SIZES = {"cudaVideoCodec": 4, "cudaVideoChromaFormat": 4, "unsigned int": 4, "unsigned char": 1, "unsigned short": 2}
H264, HEVC, VP9, AV1 = 4, 8, 10, 11


class Driver:
    """libcuda.so.1 with one GPU."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str):
        def call(*arguments: object) -> int:
            self.calls.append(name)
            return 0

        return call

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = 1
        return 0


class Decoder:
    """libnvcuvid.so.1 of a card that decodes H.264, HEVC and VP9, as an A100 does, but no AV1."""

    def __init__(self, result: int = 0) -> None:
        self.result = result
        self.asked: list[int] = []

    def cuvidGetDecoderCaps(self, pointer) -> int:
        caps = pointer._obj
        assert (caps.eChromaFormat, caps.nBitDepthMinus8) == (1, 0)
        assert not any(caps.reserved1) and not any(caps.reserved3)
        self.asked.append(caps.eCodecType)
        caps.bIsSupported = caps.eCodecType in (H264, HEVC, VP9)
        caps.nMinWidth, caps.nMinHeight = 48, 16
        caps.nMaxWidth, caps.nMaxHeight, caps.nMaxMBCount = 4096, 4096, 65536
        return self.result


def install(monkeypatch: pytest.MonkeyPatch, **libraries: object) -> None:
    names = {"libcuda.so.1": libraries.get("driver"), "libnvcuvid.so.1": libraries.get("decoder")}
    monkeypatch.setattr(nvidia_driver, "_library", names.__getitem__)


def test_the_structure_has_the_layout_of_nvidias_header() -> None:
    """DALI ships the header; offsets are worked out from its declarations by C's rules of alignment."""
    spec = importlib.util.find_spec("nvidia.dali")
    assert spec is not None and spec.origin is not None
    text = (pathlib.Path(spec.origin).parent / HEADER).read_text(errors="replace")
    body = text[text.index("typedef struct _CUVIDDECODECAPS") : text.index("} CUVIDDECODECAPS;")]
    declared = re.findall(r"^\s+(unsigned \w+|cuda\w+)\s+(\w+)(?:\[(\d+)\])?;", body, re.MULTILINE)
    offset, found = 0, []
    for kind, name, count in declared:
        offset += -offset % SIZES[kind]
        found.append((name, offset))
        offset += SIZES[kind] * int(count or 1)
    assert found == [(name, getattr(DecoderCaps, name).offset) for name, *_ in DecoderCaps._fields_]
    assert ctypes.sizeof(DecoderCaps) == offset == 88
    codecs = text[text.index("typedef enum cudaVideoCodec_enum") :]
    order = re.findall(r"cudaVideoCodec_(\w+)(?:=0)?,", codecs[: codecs.index("NumCodecs")])
    assert [order.index(name) for name in ("MPEG4", "H264", "JPEG", "HEVC", "VP8", "VP9", "AV1")] == list(
        nvidia_driver._CODEC_NUMBERS.values()
    )


def test_codecs_that_the_card_lacks_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, decoder = Driver(), Decoder()
    install(monkeypatch, driver=driver, decoder=decoder)
    limits = nvidia_driver.decoder_limits(0)
    assert set(limits) == {"h264", "hevc", "vp9"}
    assert limits["h264"] == DecoderLimits(48, 16, 4096, 4096, 65536)
    assert AV1 in decoder.asked and len(decoder.asked) == len(set(decoder.asked)) == 7
    assert driver.calls == [
        "cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "takes"),
    [(48, 16, True), (47, 64, False), (64, 15, False), (4096, 4096, True), (4097, 16, False), (1920, 1080, True)],
)
def test_sizes(width: int, height: int, takes: bool) -> None:
    assert DecoderLimits(48, 16, 4096, 4096, 65536).takes(width, height) is takes
    assert not DecoderLimits(48, 16, 4096, 4096, 8159).takes(1920, 1080)  # 120 x 68 macroblocks


def test_a_driver_that_fails_is_an_error_and_the_context_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    install(monkeypatch, driver=driver, decoder=Decoder(result=100))
    with pytest.raises(GridClipError, match="cuvidGetDecoderCaps ends with error 100"):
        nvidia_driver.decoder_limits(0)
    assert driver.calls[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]


def test_a_container_without_the_video_capability_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, driver=Driver())
    with pytest.raises(GridClipError, match="NVIDIA_DRIVER_CAPABILITIES"):
        nvidia_driver.decoder_limits(0)


def test_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert nvidia_driver.first_gpu() is None
    install(monkeypatch, driver=Driver())
    assert nvidia_driver.first_gpu() == 0
