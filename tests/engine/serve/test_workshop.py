"""Orders that crash, hang or fail cost themselves only; one that many ask for is made once; memory is bounded."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from collections.abc import Iterator

import pytest
from gridclip.engine.serve.bounds import Bounds
from gridclip.engine.serve.held import Held
from gridclip.engine.serve.orders import Clip, Made, Still
from gridclip.engine.serve.refusal import Refusal
from gridclip.engine.serve.workshop import Workshop

sys.path.append(str(pathlib.Path(__file__).parent))  # worker processes import by name what their parent can
from fake_making import by_name  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    opened = Workshop(Bounds(making=1, make_s=1.5, waiting_orders=3), by_name)
    yield opened
    opened.close()


def order(workshop: Workshop, *names: str) -> list[object]:
    """What comes of orders that are given at the same time, refusals included."""

    async def all_of_them() -> list[object]:
        orders = [workshop.order(Still(name, pathlib.Path())) for name in names]
        return list(await asyncio.gather(*orders, return_exceptions=True))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("segfault", "crashed"),
        ("hang", "1.5 s"),
        ("bug", "KeyError"),
        ("broken", "damaged"),
        ("nothing", "nothing came"),
    ],
)
def test_a_bad_order_is_refused_and_the_next_is_made(workshop: Workshop, name: str, told: str) -> None:
    refused, made = order(workshop, name, f"good after {name}")
    assert isinstance(refused, Refusal) and told in str(refused) and refused.status == 422
    assert isinstance(made, Made)
    assert workshop.waiting == 0


def test_many_that_ask_for_one_thing_get_one(workshop: Workshop) -> None:
    before = workshop.made
    answers = order(workshop, *["slow"] * 20)
    assert len({made.data for made in answers if isinstance(made, Made)}) == 1 and len(answers) == 20
    assert workshop.made == before + 1


def test_too_many_orders_are_refused(workshop: Workshop) -> None:
    answers = order(workshop, *(f"order {number}" for number in range(6)))
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(refused) == 3 and {refusal.status for refusal in refused} == {503}


def test_what_is_waiting_when_it_closes_is_refused() -> None:
    closing = Workshop(Bounds(making=1, make_s=0.5), by_name)
    closing.close()
    (refused,) = order_without_waiting(closing)
    assert isinstance(refused, Refusal)


def order_without_waiting(workshop: Workshop) -> list[object]:
    async def one() -> object:
        task = asyncio.ensure_future(workshop.order(Still("late", pathlib.Path())))
        await asyncio.sleep(0.05)
        workshop.close()
        return await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(one())  # type: ignore[return-value]


def test_held_files_are_bounded_and_the_last_used_stay() -> None:
    held = Held(100)
    keys = [Clip("video", pathlib.Path(), float(number), number + 1.0) for number in range(6)]
    for key in keys[:4]:
        held.put(key, Made(b"x" * 25, "video/mp4"))
    assert held.get(keys[0]) is not None and held.bytes == 100
    held.put(keys[4], Made(b"y" * 30, "video/mp4"))
    assert [key for key in keys if held.get(key) is not None] == [keys[0], keys[3], keys[4]] and held.bytes == 80
    held.put(keys[4], Made(b"z" * 10, "video/mp4"))
    assert held.bytes == 60
    held.put(keys[5], Made(b"x" * 101, "video/mp4"))
    assert held.get(keys[5]) is None and held.bytes == 60
