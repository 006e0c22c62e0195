"""TLS for a service that stands alone: its certificate, taken anew when its files change, and clients' certificates."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Never

from fanout.config import EVERY, in_thread
from fanout.config.marks import Marks, marks_of
from fanout.errors import UsageError

__all__ = ["HANDSHAKE", "ServerTls"]

HANDSHAKE = 10.0
"""Seconds for a handshake: until it is done, a connection is counted nowhere."""

_log = logging.getLogger("fanout.service")


class ServerTls:
    """A certificate chain with its key (PEM), and the authorities (PEM) of clients that may show a certificate of
    theirs.

    TLS 1.2 and 1.3. A client need not show a certificate; one that is shown must be good by `client_ca`, or the
    handshake fails. Raises `UsageError` for files that cannot be used together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._files = (certificate, key)
        self._seen = self._used = self._marks()
        try:
            self.context = self._made()
            if client_ca is not None:
                self.context.load_verify_locations(client_ca)
                self.context.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ValueError) as error:
            raise UsageError(f"--tls-cert and --tls-key cannot be used: {_why(error)}.") from None

    def _marks(self) -> Marks:
        return marks_of(map(str, self._files))

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(*self._files, password=_no_prompt)

    async def look(self) -> bool:
        """Look at the files; whether a changed certificate was taken into use, for connections from now on.

        It counts when two looks found the same texts, and certificate and key fit: half a renewal is no certificate.
        """
        found = await in_thread(self._marks)
        stood, self._seen = found == self._seen, found
        if found == self._used or not stood:
            return False
        self._used = found
        try:
            await in_thread(
                self._made
            )  # in a context of its own first: a pair that does not fit leaves half of itself behind
            self._load(self.context)
        except (OSError, ValueError) as error:
            _log.error("The changed TLS certificate is not in use, the one before is: %s.", _why(error))
            return False
        _log.info("A changed TLS certificate is in use.")
        return True

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Look at the files every second meanwhile."""

        async def follow() -> Never:
            while True:
                await asyncio.sleep(EVERY)
                await self.look()

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _no_prompt() -> str:
    raise ValueError("the key is encrypted: write it without a passphrase, readable by this user alone")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"they are no certificate and key in PEM that belong together ({error.reason or 'no PEM'})"
    return str(getattr(error, "strerror", None) or error)
