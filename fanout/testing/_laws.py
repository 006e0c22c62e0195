"""The tools of `fanout.testing.transport`: sending within the deadline, and the other inputs of a check."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar
from unittest import mock

from fanout.plugin import Action, Address, Delivery, Message, Notification, Outcome
from fanout.testing.subject import Gateway, Maker, Raw, Subject

__all__ = [
    "NOTIFICATION", "bounded", "contents", "delivery", "law", "logged", "made_id", "no_network", "parsed", "plain", "played",
    "send", "texts",
]  # fmt: skip

NOTIFICATION = Notification(title="A title", body="A body", data={"k": "v"}, id="01890a5d-ac96-774b-bcce-b302099a8057")

_TEXTS = ("title", "body", "subtitle", "image", "icon", "sound", "url", "category", "thread")
_ESCAPED = ("x", '"', "\\", "\n", "\x01", "<", "&", "\u00e9", "\ufffe", "\U0001f600")
_SIZES = (1, 100, 300, 600, 900, 1_300, 2_000, 3_400, 3_600, 4_096)
_KEYS = ("k", "fanout", "aps", "from", "message_type", "google.x", "gcm.notification.x")

_SLACK = 10.0
"""Seconds beyond the deadline after which a send counts as one that never resolves; a slow machine is no broken law."""

_T = TypeVar("_T")


def law(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(f"Broken law: {law}")


def made_id(n: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(n)))


def contents() -> Iterator[Notification]:
    """Notifications around the limits of gateways, whose one long value is a text, a key or a value of data, or
    actions."""
    yield from (Notification(data={key: "v"}, id=NOTIFICATION.id) for key in _KEYS)
    yield from (Notification(title="t", data={key: "v"}, id=NOTIFICATION.id) for key in _KEYS)
    for size in _SIZES:
        actions = [Action("a", "A")] * (size // 20), [Action('"', '"', url='"')] * (size // 20)
        data: list[dict[str, object]] = [{"k": [0] * size}, {str(n): n for n in range(size // 5)}]
        for text in _ESCAPED:
            long = text * (size // len(text.encode()))
            for name in _TEXTS:
                yield Notification(**{"title": "t", name: long}, id=NOTIFICATION.id)  # type: ignore[arg-type]
            data += [{"k": long}, {long: 1}, {"k": {long: long}}]
        for each in data:
            yield Notification(data=each, id=NOTIFICATION.id)
            yield Notification(body="b", data=each, badge=1, sound="s", id=NOTIFICATION.id)
        yield from (
            Notification(title="t", data={"k": "v"}, actions=tuple(each), id=NOTIFICATION.id) for each in actions
        )


def parsed(subject: Subject, n: int) -> Address:
    return subject.transport.parse_address(subject.address(n))


def delivery(subject: Subject, n: int) -> Delivery:
    return Delivery.of(parsed(subject, n), id=made_id(n))


async def send(subject: Subject, n: int) -> Outcome:
    message = subject.transport.prepare(NOTIFICATION)
    try:
        return await bounded(subject.transport.send(message, delivery(subject, n)), subject)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"Broken law: send returns an outcome, and raises no {type(error).__name__}") from error


async def bounded(waited: Awaitable[_T], subject: Subject) -> _T:
    try:
        async with asyncio.timeout(subject.deadline + _SLACK):
            return await waited
    except TimeoutError:
        raise AssertionError(f"Broken law: it ends within the deadline of {subject.deadline} s") from None


def plain(message: Message) -> dict[str, object]:
    """The values in the message's slots and attributes that can be compared."""
    names = {name for cls in type(message).__mro__ for name in getattr(cls, "__slots__", ())}
    names |= set(getattr(message, "__dict__", ()))
    values = {name: getattr(message, name) for name in sorted(names) if hasattr(message, name)}
    return {name: value for name, value in values.items() if isinstance(value, (bytes, str, int, float, tuple, dict))}


def texts(raw: Raw) -> list[str]:
    if isinstance(raw, str):
        return [raw]
    return [text for value in raw.values() for text in (texts(value) if isinstance(value, (str, Mapping)) else [])]


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Broken law: prepare uses no network")

    with mock.patch.object(socket.socket, "connect", refuse), mock.patch.object(socket, "getaddrinfo", refuse):
        yield


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self._formatter.format(record))


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Everything that is logged meanwhile, debug messages and tracebacks too."""
    root, handler = logging.getLogger(), _Lines()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def played(check: Callable[[Subject, Gateway], Awaitable[None]]) -> Callable[[Maker], Awaitable[None]]:
    """A check that opens the subject's transport and plays with its gateway; without a gateway it has nothing to
    say."""

    @functools.wraps(check)
    async def run(maker: Maker) -> None:
        async with maker() as subject:
            if subject.gateway is not None:
                async with subject.transport:
                    await check(subject, subject.gateway)

    return run
