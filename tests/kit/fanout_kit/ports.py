"""Ports for servers that cannot be given port 0."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

_RANDOM = random.SystemRandom()  # tests may seed the common one
_FROM, _TO = 10_000, 32_768
"""Below the ports that systems give to connections and to port 0 (Linux: from 32,768 on): a port that was free a moment
ago would be taken by one of those again and again, where many tests run at once."""


def free_port() -> int:
    """A port of loopback on which no process listens."""
    while True:
        port = _RANDOM.randrange(_FROM, _TO)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
