"""dali_pipes/image_folders/jpeg_decoding.py: damaged files cost themselves only, whatever jpeg4py makes of them."""

import io
import logging
import subprocess
import sys

import mutated_jpegs
import numpy as np
import pytest
from gridclip.dali_pipes.image_folders import jpeg_decoding
from PIL import Image

FUZZED = 2000
# In a process of its own: a damaged heap shows itself at any later moment, the end of the process among them.
FUZZ = f"""
import sys
sys.path[:0] = sys.argv[1:]
import mutated_jpegs
from gridclip.dali_pipes.image_folders import jpeg_decoding

good = mutated_jpegs.good_jpegs()
before = [jpeg_decoding.decode(data).tobytes() for data in good]
refused = 0
for number, data in enumerate(mutated_jpegs.mutations(good, {FUZZED}, seed=8)):
    try:
        jpeg_decoding.decode(data)
    except jpeg_decoding.JpegError:
        refused += 1
    which = number % len(good)
    assert jpeg_decoding.decode(good[which]).tobytes() == before[which], number
assert jpeg_decoding.turbojpeg_library() is not None
print(refused)
"""


def reference(data: bytes) -> np.ndarray:
    """The pixels as Pillow reads them."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def in_a_process(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script, *sys.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("length", [20, 200, 500])
def test_a_file_cut_in_its_header_leaves_the_next_ones_alone(length):
    in_a_process(f"""
import io, sys
sys.path[:0] = sys.argv[1:]
import numpy as np
from PIL import Image
from gridclip.dali_pipes.image_folders import jpeg_decoding

file = io.BytesIO()
Image.effect_noise((336, 336), 60).convert("RGB").save(file, "JPEG")
good = file.getvalue()
for _ in range(5):
    try:
        jpeg_decoding.decode(good[:{length}])
    except jpeg_decoding.JpegError:
        pass
    else:
        raise AssertionError("a cut file was decoded")
    for _ in range(3):
        assert np.array_equal(jpeg_decoding.decode(good), np.asarray(Image.open(file)))
""")


def test_thousands_of_damaged_files_kill_nothing_and_leave_good_ones_bit_equal():
    refused = int(in_a_process(FUZZ))
    assert FUZZED // 4 < refused < FUZZED  # some damage is noticed, some only changes colours


def test_pillow_survives_the_same_files():
    good = mutated_jpegs.good_jpegs()
    refused = 0
    for data in mutated_jpegs.mutations(good, FUZZED, seed=9):
        try:
            jpeg_decoding.decode_with_pillow(data)
        except jpeg_decoding.JpegError:
            refused += 1
    assert FUZZED // 4 < refused < FUZZED
    for data in good:
        assert np.array_equal(jpeg_decoding.decode_with_pillow(data), reference(data))


@pytest.mark.parametrize("decode", [jpeg_decoding.decode, jpeg_decoding.decode_with_pillow])
def test_both_decoders_give_the_same_pixels(decode):
    for data in mutated_jpegs.good_jpegs():
        assert np.array_equal(decode(data), reference(data))


@pytest.mark.parametrize("decode", [jpeg_decoding.decode, jpeg_decoding.decode_with_pillow])
def test_a_size_that_no_memory_holds_is_refused_before_decoding(decode):
    data = mutated_jpegs.good_jpegs()[0]
    at = data.index(b"\xff\xc0") + 5
    huge = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    with pytest.raises(jpeg_decoding.JpegError, match="pixel"):
        decode(huge)
    assert jpeg_decoding.pixel_count(huge) is None
    assert jpeg_decoding.pixel_count(data) == 64 * 48
    for bad in (b"", b"text", data[:200]):
        with pytest.raises(jpeg_decoding.JpegError):
            decode(bad)
        assert jpeg_decoding.pixel_count(bad) is None


def test_one_warning_without_turbojpeg(monkeypatch, caplog):
    monkeypatch.setattr(jpeg_decoding, "turbojpeg_library", lambda: None)
    monkeypatch.setattr(logging.getLogger("gridclip"), "propagate", True)
    jpeg_decoding.warn_without_turbojpeg()
    assert caplog.text.count(jpeg_decoding.LIBRARY_VARIABLE) == 1
