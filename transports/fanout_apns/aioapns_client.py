"""The binding over aioapns 4: the conservative client, to compare with and to fall back to (`client = "aioapns"`).

aioapns waits for ever where a stream is reset or an error comes without a body, and sends everything again when a
connection ends. So it is given one attempt per send (its connections are used, its retry loop is not), a deadline
around each, this process's one provider token instead of one per connection, and one request alone on a new connection,
as Apple demands. The README lists its limits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from functools import partial, partialmethod
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import orjson

from fanout.plugin import (
    ACCEPTED,
    ConfigurationError,
    Deferred,
    Delivery,
    InvalidMessage,
    Message,
    MessageTooLarge,
    Notification,
    Outcome,
    RequestFailed,
    certificate_alert,
)
from fanout_apns.outcome import Answer, of_answer
from fanout_apns.payload import LIMIT, VOIP_LIMIT, ApnsMessage
from fanout_apns.transport import ApnsTransport, tls

__all__ = ["AioapnsTransport"]


class AioapnsTransport(ApnsTransport):
    """The same binding, outcomes and checks; only the connections are aioapns's."""

    _connections: Any = None
    _closed = True
    _alert = ""
    """The gateway's alert about our certificate, where that ended the last connection."""

    def prepare(self, notification: Notification) -> ApnsMessage:
        """As the other client's, but aioapns writes JSON with blanks, and the limit counts them."""
        message = self._encode(notification)
        headers = message.headers
        if headers.extra:
            raise InvalidMessage(f"client = aioapns cannot send the header {headers.extra[0][0]}: leave it out.")
        content = orjson.loads(message.payload)
        size = len(json.dumps(content, ensure_ascii=False).encode())
        limit = VOIP_LIMIT if headers.push_type == "voip" else LIMIT
        if size > limit:
            raise MessageTooLarge(
                f"The payload for APNs has {size} bytes as aioapns writes it, and may have {limit}: shorten it.",
                size=size,
                limit=limit,
            )
        message.size = size
        message.head = content
        return message

    def capacity(self, group: str) -> int:
        """The configured number: aioapns does not tell the capacity of its connections."""
        return self._settings.streams * self._settings.connections

    start = None  # type: ignore[assignment]  # aioapns sends one by one

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """Send once, within the deadline."""
        assert isinstance(message, ApnsMessage)
        if self._closed:
            if self._connections is None:
                raise RuntimeError("The APNs transport is not open: enter it with `async with` before sending.")
            return Deferred("closed")
        if self._token is not None and not self._token.text:
            await self._token_there()
        generation = self._generation
        try:
            result = await self._attempt(self._make_request(message, delivery))
        except RequestFailed as failed:
            return self._act(*self._unanswered(failed), generation)
        if result.status == "200":
            return ACCEPTED
        since = result.timestamp / 1000 if isinstance(result.timestamp, int) else None
        answer = Answer(int(result.status), result.description or "", since)
        return self._act(*of_answer(answer, own_topic=message.headers.own_topic), generation)

    # -- inside

    def _make_request(self, message: ApnsMessage, delivery: Delivery) -> Any:
        from aioapns import NotificationRequest

        headers = message.headers
        ttl = None if headers.expiration is None else max(0, headers.expiration - int(self._context.clock.now()))
        push_type: Any = SimpleNamespace(value=headers.push_type)  # its own enumeration lacks four of the eleven
        return NotificationRequest(
            device_token=delivery.address,
            message=message.head,
            notification_id=delivery.id,
            time_to_live=ttl,
            priority=headers.priority,
            collapse_key=headers.collapse_id or None,
            push_type=push_type,
            apns_topic=headers.topic or None,
        )

    async def _attempt(self, request: Any) -> Any:
        """One attempt by the deadline. A request given up is taken from aioapns's table: it would crash on a late
        answer."""
        holder: list[Any] = []
        task = asyncio.ensure_future(self._exchange(request, holder))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._settings.request_timeout)
            if done and not task.cancelled():
                return task.result()
            raise RequestFailed("unknown" if holder else "no", "closed" if done else "timeout", own=bool(done))
        finally:
            if not task.done():
                for connection in holder:
                    connection.requests.pop(request.notification_id, None)
                    self._distrust(connection)
                task.cancel()
                await asyncio.wait({task})

    async def _exchange(self, request: Any, holder: list[Any]) -> Any:
        from aioapns.exceptions import ConnectionClosed
        from aioapns.exceptions import ConnectionError as ConnectFailed
        from h2.exceptions import H2Error

        try:
            connection = await self._connections.acquire()
            if connection not in self._proved:
                async with self._alone:
                    connection = await self._connections.acquire()
                    if connection not in self._proved:
                        holder.append(connection)
                        result = await connection.send_notification(request)
                        if result.status not in ("401", "403"):
                            self._proved.add(connection)
                        return result
            if request.notification_id in connection.requests:
                # It tells answers apart by their apns-id: one of two with the same would wait for ever.
                raise RequestFailed("no", "overload", own=True)
            holder.append(connection)
            return await connection.send_notification(request)
        except ConnectFailed:
            raise RequestFailed("no", self._alert or "connect") from None
        except ConnectionClosed:
            raise RequestFailed("unknown" if holder else "no", self._alert or "closed") from None
        except H2Error:
            for connection in holder:
                self._distrust(connection)
            raise RequestFailed("unknown", "protocol") from None

    def _distrust(self, connection: Any) -> None:
        """Send nothing more on a connection that left a request without an answer; others may still be answered on
        it."""
        if connection in self._connections.connections:
            self._connections.connections.remove(connection)
        if not connection.requests:
            connection.close()

    def _replace_connections(self) -> None:
        for connection in list(self._connections.connections):
            self._distrust(connection)

    async def _open(self) -> None:
        self._settings.check_client()
        try:
            from aioapns.connection import APNsBaseConnectionPool, APNsTLSClientProtocol
        except ImportError as error:
            raise ConfigurationError(
                f"client is aioapns, and {error.name} is not installed: install the extra `aioapns` "
                "(pip install '.[aioapns]' in the checkout), or write client = fanout."
            ) from None
        if logging.getLogger("hpack").level == logging.NOTSET:
            # At DEBUG it writes every header field into the log, device tokens and the provider token too.
            logging.getLogger("hpack").setLevel(logging.WARNING)
        gateway = urlsplit(self._settings.url)
        self._gateway = (gateway.hostname or "", gateway.port or 443)
        self._tls = tls(self._settings, self._certificate)
        self._alone = asyncio.Lock()
        self._proved: WeakSet[Any] = WeakSet()
        self._live: dict[Any, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        base: Any = APNsTLSClientProtocol
        places = {"APNS_SERVER": self._gateway[0], "APNS_PORT": self._gateway[1]}
        protocol: Any = type(
            "Gateway",
            (base,),
            {
                **places,
                "data_received": partialmethod(_received, base),
                "connection_lost": partialmethod(_ended, base, self),
            },
        )
        topic = self._settings.topic or (self._certificate.uid if self._certificate is not None else "")
        if not topic:
            raise ConfigurationError(
                "topic is missing and the certificate names none: set topic to the app's bundle id."
            )
        self._connections = APNsBaseConnectionPool(topic=topic, max_connections=self._settings.connections)
        self._connections.create_connection = partial(self._connect, protocol, topic)
        self._closed = False

    async def _connect(self, protocol: Any, topic: str) -> Any:
        if self._closed:
            raise ConnectionAbortedError("The transport is closed.")
        loop = asyncio.get_running_loop()
        provider = SimpleNamespace(get_header=self._header) if self._token is not None else None
        make = partial(protocol, topic, loop, self._lost, provider)
        async with asyncio.timeout(min(10.0, self._settings.request_timeout)):
            host, port = self._gateway
            try:
                _, connection = await loop.create_connection(make, host, port, ssl=self._tls)
            except ssl.SSLError as error:
                self._alert = certificate_alert(str(error))
                raise
        self._live[connection] = loop.create_future()
        return connection

    def _header(self) -> str:
        return f"bearer {self._token.text}" if self._token is not None else ""

    def _lost(self, connection: Any) -> None:
        if connection in self._connections.connections:
            self._connections.connections.remove(connection)
        gone = self._live.pop(connection, None)
        if gone is not None and not gone.done():
            gone.set_result(None)

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for connection in self._live:
            connection.requests.clear()  # it would crash on those that are cancelled now
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        gone = list(self._live.values())
        for connection in list(self._live):
            connection.transport.abort()
        if gone:
            await asyncio.wait(gone, timeout=1.0)


def _ended(self: Any, base: Any, transport: AioapnsTransport, error: Exception | None) -> None:
    """With TLS 1.3 a certificate is refused after the handshake."""
    transport._alert = certificate_alert(str(error)) if isinstance(error, ssl.SSLError) else ""
    base.connection_lost(self, error)


def _received(self: Any, base: Any, data: bytes) -> None:
    """An error that aioapns raises over an answer (an error body in two parts is enough) ends the connection, not in
    the loop's handler."""
    try:
        base.data_received(self, data)
    except Exception as error:
        logging.getLogger("fanout.apns").warning("aioapns failed over an answer: %s", type(error).__name__)
        self.transport.abort()
