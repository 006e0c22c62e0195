"""An awaitable that is begun at once, and awaited later."""

from __future__ import annotations

import asyncio

import pytest

from fanout.service.begun import Begun

pytestmark = pytest.mark.anyio


async def test_a_value_that_is_there_is_a_result_at_once() -> None:
    async def ready() -> int:
        return 7

    begun = Begun(ready())
    assert (begun.ended, begun.result, await begun) == (True, 7, 7)


async def test_an_error_that_is_there_is_raised_at_once() -> None:
    async def failing() -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        Begun(failing())


@pytest.mark.parametrize("waits", [1, 2, 3])
async def test_it_goes_on_from_its_first_wait(waits: int) -> None:
    steps = []

    async def waiting() -> int:
        for number in range(waits):
            steps.append(number)
            await asyncio.sleep(0)
        return len(steps)

    begun = Begun(waiting())
    assert (begun.ended, steps) == (False, [0])
    assert (await begun, steps) == (waits, list(range(waits)))


async def test_a_future_that_fails_fails_it_where_it_waits() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def waiting() -> str:
        try:
            await future
        except KeyError:
            return "seen"
        return "missed"

    begun = Begun(waiting())
    asyncio.get_running_loop().call_soon(future.set_exception, KeyError("it"))
    assert await begun == "seen"


@pytest.mark.parametrize("stays", [False, True])
async def test_the_end_of_a_timer_reaches_the_awaitable(stays: bool) -> None:
    """One that answers it by a value has that value; one that waits again is waited for again."""
    told = []
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waiting() -> str:
        try:
            await never
        except asyncio.CancelledError:
            told.append("ended")
            if not stays:
                raise
            await asyncio.sleep(0)
        return "stayed"

    begun = Begun(waiting())
    task = asyncio.ensure_future(_awaited(begun))
    await asyncio.sleep(0)
    task.cancel()
    if stays:
        assert await task == "stayed"
    else:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert told == ["ended"]


async def _awaited(begun: Begun[str]) -> str:
    return await begun


async def test_where_it_waits_it_can_be_given_up() -> None:
    closed = []

    async def waiting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    begun = Begun(waiting())
    begun.close()
    assert closed == [True]
    begun = Begun(asyncio.sleep(0, None))
    begun.close()
