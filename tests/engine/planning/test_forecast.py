"""engine/forecast.py: the arithmetic, written out again for one job, and where each number is said to come from."""

import json

import pytest
from click.testing import CliRunner
from gridclip import ArgumentError, Sampling
from gridclip.cli import main
from gridclip.engine.planning import forecast as forecasts
from gridclip.engine.planning.plan import plan_folder

SAMPLING = Sampling(super_img_size=224)


def test_a_million_videos_on_eight_cards():
    found = forecasts.forecast(None, SAMPLING, card="a800", cards=8, videos=1_000_000)
    assert found.super_images == 15_000_000  # 120 s at 0.5 fps are 60 frames, 15 super images of 4
    decoded_per_s = 8 * 5 * 730
    assert found.decode_h == pytest.approx((15e6 * 46 / decoded_per_s / 3600, 15e6 * 240 / decoded_per_s / 3600))
    assert found.encode_h[0] == pytest.approx(15e6 * 162e9 / (8 * 312e12 * 0.6) / 3600, rel=0.02)
    assert found.hours == found.decode_h and found.bound == ("decoding", "decoding")
    assert found.read_bytes == 1_000_000 * 120 * 250_000
    assert found.stored_bytes == (15_000_000 + 60_000_000) * (768 * 2 + forecasts.ROW_BYTES)  # with a vector a frame
    alone = forecasts.forecast(None, Sampling(grid_size=1), card="a800", cards=8, videos=1)
    assert alone.stored_bytes == 60 * (768 * 2 + forecasts.ROW_BYTES)
    assert forecasts.forecast(None, SAMPLING, card="a800", cards=16, videos=1_000_000).hours[0] == found.hours[0] / 2


def test_a_counted_folder_stands_for_more_videos_of_its_kind(small_videos):
    plan = plan_folder(small_videos, SAMPLING)
    size = forecasts.measure_bytes(small_videos)
    assert size == sum(path.stat().st_size for path in small_videos.iterdir())
    found = forecasts.forecast(plan, SAMPLING, card="h100", cards=1, video_bytes=size)
    assert (found.videos, found.super_images, found.read_bytes) == (4, 5, size)
    found = forecasts.forecast(plan, SAMPLING, card="h100", cards=1, videos=4000, video_bytes=size)
    assert (found.super_images, found.read_bytes) == (5000, 1000 * size)


def test_every_number_says_where_it_comes_from_and_none_claims_a_gpu():
    found = forecasts.forecast(None, SAMPLING, card="h200", cards=2, videos=10)
    measured = [number.name for number in found.numbers if number.origin == "measured"]
    assert measured == ["through one driver's books"]
    assert all(f"{number.origin} ({number.why})" in str(found) for number in found.numbers)


def test_the_command(small_videos):
    runner = CliRunner()
    result = runner.invoke(main, ["plan", "--cards", "8", "--card", "a800", "--videos", "1000000", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["forecast"]["bound"] == ["decoding", "decoding"]
    result = runner.invoke(main, ["plan", "--video-dir", str(small_videos), "--cards", "1"])
    assert result.exit_code == 0 and "decoding bounds" in result.output and "fp16 vectors" in result.output
    assert runner.invoke(main, ["plan", "--cards", "1"]).exit_code == 2


def test_operations_are_those_of_a_layer_by_layer_count():
    for size, published in ((224, 162e9), (336, 382e9)):
        tokens = (size // 14) ** 2 + 1
        products = [(tokens, 1024, 3 * 1024), (tokens, 1024, 1024), (tokens, 1024, 4096), (tokens, 4096, 1024)]
        products += [(tokens, 1024, tokens), (tokens, tokens, 1024)]  # all heads together
        total = 24 * sum(2 * n * k * m for n, k, m in products)
        total += 2 * (tokens - 1) * 3 * 14 * 14 * 1024 + 2 * 1024 * 768
        assert forecasts.flop_per_image(size) == total == pytest.approx(published, rel=0.01)


def test_wrong_use():
    with pytest.raises(ArgumentError, match=r"`card='tape'` must be one of a800"):
        forecasts.forecast(None, SAMPLING, card="tape", cards=1, videos=1)
    with pytest.raises(ArgumentError, match="needs `videos`"):
        forecasts.forecast(None, SAMPLING, card="a800", cards=1)
