"""Awaitables that are begun at once, so that a value that is there already costs no timer."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

__all__ = ["Begun"]

T = TypeVar("T")


class Begun(Generic[T]):
    """An awaitable, run up to its first wait. Awaited, once, it goes on from there in the same task: nothing of it is
    run twice or lost, as it would be where a second call replaced the first.

    Example:
        ```python
        asked = Begun(receive())
        if asked.ended:
            return asked.result
        async with asyncio.timeout(30):
            return await asked
        ```
    """

    __slots__ = ("_steps", "_waited", "ended", "result")

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._steps: Any = awaitable.__await__()
        self.ended = False
        """Whether it waited for nothing: then `result` is its result."""
        try:
            self._waited = next(self._steps)
        except StopIteration as done:
            self.result: T = done.value
            self.ended = True

    def __await__(self) -> Generator[Any, None, T]:
        while not self.ended:
            try:
                yield self._waited
            except BaseException as error:  # such as the end of a timer: it is told, and may go on
                try:
                    self._waited = self._steps.throw(error)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
            else:
                return (yield from self._steps)  # type: ignore[no-any-return]
        return self.result

    def close(self) -> None:
        """Give it up where it waits."""
        if not self.ended:
            self._steps.close()
