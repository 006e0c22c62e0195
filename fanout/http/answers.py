"""Requests that are started as a run: the receiver of their answers, by index, and the way there.

The codec's token of such a request is (answers, index), where that of a single one is a future. Nothing of the
receiver runs inside a connection: answers are handed over in a callback of the loop's own, so that no fault of
the receiver reaches the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fanout.core.outcome import Outcome
from fanout.core.run import Run
from fanout.http.response import RequestFailed, Response
from fanout.http.settings import PoolStats

__all__ = ["Answers", "RunAnswers", "Token", "failed", "hand_over", "over"]

_CREATED = 201


class Answers(Protocol):
    """The receiver of a run's answers. Each index is answered once by one of the first three, never during
    `H2Pool.start`. One whose attribute `created` is true takes status 201 (Created) for an acceptance, too."""

    def accepted(self, indices: list[int]) -> None:
        """These were answered with status 200, or 201 where the receiver is `created`.

        Args:
            indices: The numbers of the requests in their run, from 0.
        """
        ...

    def answered(self, index: int, response: Response) -> None:
        """This one was answered with another status.

        Args:
            index: The number of the request in its run, from 0.
            response: The gateway's response.
        """
        ...

    def failed(self, index: int, failure: RequestFailed) -> None:
        """No answer to this one will come.

        Args:
            index: The number of the request in its run, from 0.
            failure: Why no answer comes, and whether the request may have arrived.
        """
        ...

    def over(self, index: int) -> bool:
        """Whether the answer to a request is waited for no more: its stream is then reset within a tick.

        Args:
            index: The number of the request in its run, from 0.

        Returns:
            Whether it is over.
        """
        ...


class RunAnswers:
    """The `Answers` of a `run`, handed on as outcomes: status 200 is an acceptance, and the functions judge all else.

    `answered` judges a response by its index: None leaves the delivery to `send`. `failed` judges a request without
    one.
    """

    __slots__ = ("_answered", "_failed", "_run", "accepted", "over")

    def __init__(
        self,
        run: Run,
        answered: Callable[[int, Response], Outcome | None],
        failed: Callable[[RequestFailed], Outcome],
    ) -> None:
        self._run = run
        self._answered = answered
        self._failed = failed
        self.accepted = run.accept
        self.over = run.over

    def answered(self, index: int, response: Response) -> None:
        """See `Answers`.

        Args:
            index: The number of the request in its run, from 0.
            response: The gateway's response.
        """
        self._run.answer(index, self._answered(index, response))

    def failed(self, index: int, failure: RequestFailed) -> None:
        """See `Answers`.

        Args:
            index: The number of the request in its run, from 0.
            failure: Why no answer comes, and whether the request may have arrived.
        """
        self._run.answer(index, self._failed(failure))


Token = asyncio.Future[Response] | tuple[Answers, int]


def over(token: Token) -> bool:
    """Whether the answer is not awaited."""
    return token[0].over(token[1]) if type(token) is tuple else token.done()  # type: ignore[union-attr]


def hand_over(
    loop: asyncio.AbstractEventLoop, taken: list[tuple[Answers, int]], answered: list[tuple[Token, Response]]
) -> None:
    """The yield of a read: runs' requests that were answered with 200 (`taken`), and all other answers."""
    others: list[tuple[tuple[Answers, int], Response]] = []
    for token, response in answered:
        if type(token) is tuple:
            if response.status == _CREATED and getattr(token[0], "created", False):
                taken.append(token)
            else:
                others.append((token, response))
        elif not token.done():  # type: ignore[union-attr]  # done where the caller was cancelled since the last tick
            token.set_result(response)  # type: ignore[union-attr]
    if taken:
        loop.call_soon(_accept, loop, taken)
    if others:
        loop.call_soon(_answer, loop, others)


def failed(loop: asyncio.AbstractEventLoop, failures: Sequence[tuple[Token, RequestFailed]], stats: PoolStats) -> None:
    """Requests to which no answer will come."""
    others: list[tuple[tuple[Answers, int], RequestFailed]] = []
    for token, failure in failures:
        if over(token):
            continue
        stats.count_failed(failure.reason)
        if type(token) is tuple:
            others.append((token, failure))
        else:
            token.set_exception(failure)  # type: ignore[union-attr]
    if others:
        loop.call_soon(_fail, loop, others)


def _accept(loop: asyncio.AbstractEventLoop, taken: list[tuple[Answers, int]]) -> None:
    answers = taken[0][0]
    indices: list[int] = []
    for token in taken:
        if token[0] is not answers:
            _tell(loop, answers.accepted, indices)
            answers, indices = token[0], []
        indices.append(token[1])
    _tell(loop, answers.accepted, indices)


def _answer(loop: asyncio.AbstractEventLoop, answered: list[tuple[tuple[Answers, int], Response]]) -> None:
    for (answers, index), response in answered:
        _tell(loop, answers.answered, index, response)


def _fail(loop: asyncio.AbstractEventLoop, failures: list[tuple[tuple[Answers, int], RequestFailed]]) -> None:
    for (answers, index), failure in failures:
        _tell(loop, answers.failed, index, failure)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *what: Any) -> None:
    """One receiver's fault costs no other its answer."""
    try:
        call(*what)
    except Exception as error:
        # Without the arguments: a request's path may hold an address.
        loop.call_exception_handler({"message": "The receiver of an HTTP/2 answer raised", "exception": error})
