"""tests/fuzz/: the fuzzer itself finds defects that are planted, keeps their inputs, and judges them again."""

from __future__ import annotations

import json
import pathlib
import random

import generated_videos
import planted
import pytest
from click.testing import CliRunner
from generated_videos import Recipe

from fuzz import damage, pool
from fuzz.__main__ import KINDS, main
from fuzz.contract import DEFECTS, KNOWN_DEATHS, Outcome
from fuzz.videos import Videos

LIMITS = pool.Limits(case_s=3, memory_bytes=200 << 20)


def make_job(kind: str, folder: pathlib.Path) -> pool.Job:
    for name in ("seeds", "work", "finds"):
        (folder / name).mkdir()
    return pool.Job(kind, folder / "seeds", folder / "work", folder / "finds", seed=1, limits=LIMITS)


def test_every_ending_is_told_apart_and_defects_are_kept(tmp_path: pathlib.Path) -> None:
    job = make_job("planted:Endings", tmp_path)
    ways = planted.Endings.WAYS
    cases = {case.what: case for case in pool.run(job, processes=2, goes_on=lambda number: number < len(ways))}
    assert {what: case.verdict.outcome for what, case in cases.items()} == {
        "read": Outcome.IDENTICAL,
        "refuse": Outcome.REFUSED,
        "raise": Outcome.TRACEBACK,
        "die": Outcome.DEATH,
        "hang": Outcome.HANG,
        "grow": Outcome.GROWTH,
    }
    assert "surprise" in cases["raise"].verdict.detail and "Aborted" in cases["die"].verdict.detail
    for what in ("raise", "die", "hang", "grow"):
        kept = cases[what].kept
        assert kept is not None and (kept / "input").read_text() == what
    assert cases["read"].kept is cases["refuse"].kept is None
    replayed = CliRunner().invoke(main, ["--replay", str(cases["raise"].kept)])
    assert replayed.exit_code == 1 and "traceback" in replayed.output and "surprise" in replayed.output


@pytest.mark.parametrize(("kind", "outcome"), [(planted.Neighbours, "different"), (Videos, "identical")])
def test_a_neighbour_s_frame_is_found(kind: type[Videos], outcome: str, tmp_path: pathlib.Path) -> None:
    seeds, case = tmp_path / "seeds", tmp_path / "case"
    seeds.mkdir()
    case.mkdir()
    recipe = Recipe("b_frames.mp4", frames=45, gop=12, options=(("preset", "veryfast"), ("bf", "2")))
    generated_videos.write(seeds, recipe)
    fuzzed = kind()
    fuzzed.make(seeds, case, 0, random.Random(0))
    settings = json.loads((case / "settings.json").read_text())
    (case / "settings.json").write_text(json.dumps(settings | {"fps": 7.0}))
    verdict = pool.judged(fuzzed, case, tmp_path / "scratch")
    assert verdict.outcome == outcome, verdict.detail


@pytest.mark.parametrize("name", sorted(KINDS))
def test_undamaged_seeds_are_read_right(name: str, tmp_path: pathlib.Path) -> None:
    kind = pool.make_kind(KINDS[name])
    (tmp_path / "seeds").mkdir()
    if name == "videos":  # the others' seeds take milliseconds
        generated_videos.write(tmp_path / "seeds", Recipe("video.mp4", frames=30, options=(("bf", "2"),)))
    else:
        kind.write_seeds(tmp_path / "seeds")
    case = tmp_path / "case"
    case.mkdir()
    assert "undamaged" in kind.make(tmp_path / "seeds", case, 0, random.Random(0))
    verdict = pool.judged(kind, case, tmp_path / "scratch")
    assert verdict.outcome in (Outcome.IDENTICAL, Outcome.ACCEPTED), verdict.detail


def test_the_same_seed_makes_the_same_damage() -> None:
    data = bytes(range(256)) * 8
    first, second = (damage.damaged_bytes(data, [data[::-1]], random.Random(5)) for _ in range(2))
    assert first == second and first[0] != data
    assert damage.damaged_json({"a": [1, {"b": 2}]}, random.Random(3)) == damage.damaged_json(
        {"a": [1, {"b": 2}]}, random.Random(3)
    )


def test_only_lances_own_abort_is_known() -> None:
    panic = "thread '<unnamed>' (12) panicked at /root/crates/arrow-array-58.4.0/src/ffi_stream.rs:257:55:"
    assert KNOWN_DEATHS.search(panic)
    assert not KNOWN_DEATHS.search(panic.replace("ffi_stream", "array/list")) and Outcome.KNOWN not in DEFECTS
